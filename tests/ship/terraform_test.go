package ship

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// mirrorName is the environment variable with the folder that holds providers
// (registry.terraform.io/...), as `terraform providers mirror` lays it out.
const mirrorName = "THAW_TEST_TF_MIRROR"

// terraform is Terraform with a mirror of providers, and nothing of the user's.
type terraform struct {
	t   *testing.T
	bin string
	env []string
}

func newTerraform(t *testing.T) *terraform {
	t.Helper()
	tf := &terraform{t: t, bin: tool(t, "terraform")}
	mirror := findMirror(t)
	if mirror == "" {
		t.Skipf("NOT TESTED: no mirror of Terraform's providers; name one in %s", mirrorName)
	}
	rc := filepath.Join(t.TempDir(), "terraformrc")
	text := fmt.Sprintf("provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\ndisable_checkpoint = true\n", mirror)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tf.env = []string{"TF_CLI_CONFIG_FILE=" + rc, "TF_IN_AUTOMATION=1", "TF_INPUT=0", "NO_COLOR=1", "AWS_EC2_METADATA_DISABLED=true"}
	return tf
}

// findMirror looks where the environment says, and else where images have it.
func findMirror(t *testing.T) string {
	t.Helper()
	for _, e := range harness.FromEnv().All {
		if v, ok := strings.CutPrefix(e, mirrorName+"="); ok {
			return v
		}
	}
	for _, pattern := range []string{"/opt/*/registry.terraform.io", "/usr/share/terraform/plugins/registry.terraform.io", "/usr/local/share/terraform/plugins/registry.terraform.io"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return filepath.Dir(found[0])
		}
	}
	return ""
}

func (tf *terraform) must(dir string, args ...string) string {
	tf.t.Helper()
	return must(tf.t, dir, tf.env, tf.bin, args...)
}

// checkout copies the modules to where Terraform may write.
func checkout(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "terraform")
	copyTree(t, filepath.Join(root(t), "terraform"), dir)
	return dir
}

func TestTerraformIsFormatted(t *testing.T) {
	t.Parallel()
	bin := tool(t, "terraform")
	if out, err := run(t, root(t), []string{"TF_CLI_CONFIG_FILE=" + os.DevNull}, bin, "fmt", "-check", "-recursive", "-list=true", "terraform", "examples"); err != nil {
		t.Errorf("terraform fmt: %v\n%s", err, out)
	}
}

func TestTerraformOnlyNeedsItsCloudsProvider(t *testing.T) {
	t.Parallel()
	for name, provider := range map[string]string{
		"aws": "aws", "aws/examples/own-function": "aws", "aws/examples/shared-cache": "aws",
		"azure": "azurerm", "azure/examples/flex": "azurerm", "azure/examples/premium-shared-cache": "azurerm", "azure/modules/settings": "",
		"vault": "vault", "vault/examples/aws": "vault", "vault/examples/azure": "vault", "vault/modules/policies": "",
	} {
		var asked []string
		for _, b := range module(t, name).blocks {
			if b.kind != "terraform" {
				continue
			}
			for _, inner := range b.blocks {
				for p, v := range inner.attrs {
					asked = append(asked, p)
					if !strings.Contains(v, `"hashicorp/`+p+`"`) || !strings.Contains(v, `">= `) || !strings.Contains(v, `, < `) {
						t.Errorf("%s: the range of %s has no two ends: %s", name, p, v)
					}
				}
			}
		}
		if want := strings.Fields(provider); !slices.Equal(asked, want) {
			t.Errorf("%s needs %v, want %v", name, asked, want)
		}
	}
}

// TestTheExamplesAgreeOnTheServerID: the header that a function sends is the one
// that Vault's mount asks for.
func TestTheExamplesAgreeOnTheServerID(t *testing.T) {
	t.Parallel()
	id := func(name, attribute string) string {
		for _, b := range module(t, name).blocks {
			if v := b.attrs[attribute]; b.kind == "module" && v != "" {
				value, _, _ := strings.Cut(v, " #")
				return value
			}
		}
		t.Errorf("%s gives no %s", name, attribute)
		return ""
	}
	want := id("vault/examples/aws", "aws_iam_server_id")
	for _, name := range []string{"aws/examples/own-function", "aws/examples/shared-cache", "../examples/python", "../examples/nodejs", "../examples/go"} {
		if got := id(name, "vault_iam_server_id"); got != want {
			t.Errorf("%s sends %s, and Vault's mount asks for %s", name, got, want)
		}
	}
}

// TestTerraformOfAWSIsValid runs validate on the module and its examples, and
// the module's own tests, whose provider is a mock.
func TestTerraformOfAWSIsValid(t *testing.T) {
	t.Parallel()
	tf, dir := newTerraform(t), checkout(t)
	aws := filepath.Join(dir, "aws")
	examples, err := filepath.Glob(filepath.Join(aws, "examples", "*"))
	if err != nil || len(examples) < 2 {
		t.Fatalf("examples: %v %v", examples, err)
	}
	own := filepath.Join(filepath.Dir(filepath.Dir(aws)), "examples", "python")
	if err := os.CopyFS(own, os.DirFS(filepath.Join(root(t), "examples", "python"))); err != nil {
		t.Fatal(err)
	}
	for _, where := range append(examples, aws, own) {
		tf.must(where, "init", "-backend=false")
		var answer struct {
			Valid        bool
			WarningCount int `json:"warning_count"`
		}
		out := tf.must(where, "validate", "-json")
		if err := json.Unmarshal([]byte(out), &answer); err != nil || !answer.Valid || answer.WarningCount > 0 {
			t.Errorf("%s: %v\n%s", filepath.Base(where), err, out)
		}
	}
	t.Log(lastLine(tf.must(aws, "test", "-var=artifacts_dir="+stubs(t))))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// stubs is a folder of zips that nobody looks into.
func stubs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []string{"layer", "warmup", "demo"} {
		for _, arch := range []string{"amd64", "arm64"} {
			if err := os.WriteFile(filepath.Join(dir, "thaw-"+f+"-"+arch+".zip"), []byte(f+arch), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// applied is a state as `terraform show -json` prints it.
type applied struct {
	Values struct {
		RootModule struct {
			ChildModules []struct {
				Resources []struct {
					Address, Type, Name string
					Values              map[string]any
				}
			} `json:"child_modules"`
		} `json:"root_module"`
	}
}

// TestTerraformAppliesToAWSAndThenHasNothingToChange applies everything the
// module can make to moto, and plans again.
func TestTerraformAppliesToAWSAndThenHasNothingToChange(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("an apply takes a minute")
	}
	tf := newTerraform(t)
	aws := fillGaps(t, harness.AWS(t).Addr())
	dir := filepath.Join(checkout(t), "aws", "applied")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var endpoints strings.Builder
	for _, service := range []string{"cloudwatch", "ec2", "elasticache", "events", "iam", "kms", "lambda", "logs", "sts"} {
		fmt.Fprintf(&endpoints, "    %s = %q\n", service, aws)
	}
	main := fmt.Sprintf(`provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  endpoints {
%s  }
}
data "aws_vpc" "default" { default = true }
data "aws_subnets" "default" {}
module "thaw" {
  source                        = "../"
  vault_addr                    = "https://vault.example.com:8200"
  artifacts_dir                 = %q
  vpc_id                        = data.aws_vpc.default.id
  subnet_ids                    = slice(sort(data.aws_subnets.default.ids), 0, 2)
  create_kms_endpoint           = true
  vault_assumed_role_arn        = "arn:aws:iam::123456789012:role/vault"
  alarm_topic_arns              = ["arn:aws:sns:eu-central-1:123456789012:alarms"]
  cache_enable                  = true
  cache_key_kms                 = "AQIDAHg="
  max_age                       = "10s"
  audience_role_arns            = ["arn:aws:iam::123456789012:role/shop"]
  no_share_paths                = ["secret/data/root/*"]
  create_demo                   = true
  warmup                        = { recommended = false, dump_interval = 15, dump = "s3://backups/thaw/dump" }
  role_path                     = "/thaw/"
  environment                   = { THAW_POLL_TIMEOUT = "300ms" }
  tags                          = { team = "shop" }
}
`, endpoints.String(), stubs(t))
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(main), 0o600); err != nil {
		t.Fatal(err)
	}
	tf.must(dir, "init")
	tf.must(dir, "apply", "-auto-approve")
	if out, err := run(t, dir, tf.env, tf.bin, "plan", "-detailed-exitcode"); err != nil {
		t.Errorf("a plan after the apply finds changes: %v\n%s", err, out)
	}
	var state applied
	if err := json.Unmarshal([]byte(tf.must(dir, "show", "-json")), &state); err != nil {
		t.Fatal(err)
	}
	appliedFunctions(t, &state)
	appliedPermissions(t, &state)
}

// appliedFunctions has thaw read the environments of the functions.
func appliedFunctions(t *testing.T, state *applied) {
	t.Helper()
	functions := 0
	reached := map[string]bool{}
	for _, r := range state.Values.RootModule.ChildModules[0].Resources {
		if r.Type != "aws_lambda_function" {
			continue
		}
		functions++
		env := map[string]string{}
		for k, v := range r.Values["environment"].([]any)[0].(map[string]any)["variables"].(map[string]any) {
			env[k], reached[k] = v.(string), true
		}
		takes(t, env, r.Name == "warmup", true)
		if env["THAW_MEMCACHED"] != "tls://thaw.abc123.cfg.euc1.cache.amazonaws.com:11211" {
			t.Errorf("THAW_MEMCACHED is %q", env["THAW_MEMCACHED"])
		}
	}
	if functions != 2 {
		t.Errorf("%d functions", functions)
	}
	other := []string{"THAW_CACHE_KEY", "THAW_WARM_AUDIENCES", "PROACTIVE_CACHE_WORKERS", // of other choices
		"THAW_MEMCACHED_CACERT", "THAW_MEMCACHED_TLS_SERVER_NAME", "THAW_MEMCACHED_CLIENT_CERT", "THAW_MEMCACHED_CLIENT_KEY"}
	for _, name := range tierSettings(t, "aws") {
		if !reached[name] && !slices.Contains(other, name) {
			t.Errorf("%s reaches no function", name)
		}
	}
}
