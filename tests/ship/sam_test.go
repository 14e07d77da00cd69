package ship

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// sam is template.yaml as it is written.
type sam struct {
	Parameters map[string]struct {
		Type, Description, AllowedPattern string
		Default                           any
		AllowedValues                     []any
	}
}

// stack is what the SAM translator makes of it for some parameters.
type stack struct {
	Conditions map[string]any
	Resources  map[string]resource
}

type resource struct {
	Type, Condition string
	Properties      map[string]any
}

// everything gives every optional parameter of the template a value.
func everything() map[string]string {
	return map[string]string{
		"VaultAddr": "https://vault.example.com:8200", "VaultNamespace": "team", "VaultCaCertBytes": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
		"VaultAuthProvider": "aws-eu", "VaultAuthRole": "shop", "VaultIamServerId": "vault.example.com", "VaultStsEndpointRegion": "eu-central-1",
		"VaultAssumedRoleArn": "arn:aws:iam::123456789012:role/vault", "Architecture": "x86_64", "SecretPath": "secret/data/shop", "MaxAge": "10s",
		"StaleIfError": "1h", "LogLevel": "DEBUG", "LogRetention": "7", "AlarmTopicArn": "arn:aws:sns:eu-central-1:123456789012:alarms",
		"VpcId": "vpc-0123456789abcdef0", "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1", "VaultPort": "443", "VaultCidr": "10.0.0.0/16",
		"CreateKmsEndpoint": "true", "CacheEnable": "true", "MemcachedTimeout": "30ms", "MemcachedNodeType": "cache.m7g.large", "MemcachedNodes": "2",
		"CacheKeyKms": "AQIDAHg=,AQIDAHs=", "AudienceRoleArns": "arn:aws:iam::123456789012:role/shop,arn:aws:iam::123456789012:role/till", "Audience": "shop",
		"CacheTtl": "30", "ClockSkew": "2s", "NoSharePaths": "secret/data/root/*", "ProactiveCacheEnable": "true", "NewProactiveCacheEnable": "false",
		"ProactiveCacheWorkers": "4", "ProactiveCacheMinimumFetchingTime": "0", "ProactiveCacheDumpInterval": "15", "Dump": "s3://backups/thaw/dump",
		"WarmPaths": "secret/,kv/app/", "WarmFor": "50", "WarmConfirmedOnly": "true", "WarmupVaultAuthRole": "warm", "WarmupSchedule": "rate(2 minutes)", "WarmupReserveConcurrency": "false",
	}
}

// variants are the sets of parameters that the template is checked with.
func variants() map[string]map[string]string {
	given := func(change map[string]string) map[string]string {
		all := everything()
		maps.Copy(all, change)
		return all
	}
	return map[string]map[string]string{
		"the defaults":  {"VaultAddr": "https://vault.example.com:8200"},
		"everything":    everything(),
		"given":         given(map[string]string{"Memcached": "tls://cache.example.com:11212", "MemcachedCacert": "/var/task/ca.pem", "MemcachedTlsServerName": "cache", "MemcachedClientCert": "/var/task/c.pem", "MemcachedClientKey": "/var/task/k.pem", "KmsKeyArn": "arn:aws:kms:eu-central-1:123456789012:key/0-1-2", "NewProactiveCacheEnable": "true", "ProactiveCacheDumpInterval": "", "Dump": ""}),
		"a plain key":   given(map[string]string{"CacheKeyKms": "", "CacheKey": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}),
		"no key yet":    given(map[string]string{"CacheKeyKms": ""}),
		"audiences":     given(map[string]string{"CacheKeyKms": "", "WarmAudiences": `[{"audience":"a","paths":"kv/","key":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}]`}),
		"outside a VPC": given(map[string]string{"VpcId": "", "SubnetIds": "", "CreateKmsEndpoint": "false", "Memcached": "cache.example.com"}),
		"no warm-up":    given(map[string]string{"ProactiveCacheEnable": "false"}),
	}
}

// translated is the translator's output for all variants, made once.
var translated = sync.OnceValues(func() (string, error) {
	given, err := json.Marshal(variants())
	if err != nil {
		return "", err
	}
	root, err := harness.Root()
	if err != nil {
		return "", err
	}
	bin, err := harness.FindPython(context.Background())
	if err != nil {
		return "", err
	}
	p, err := harness.Run(context.Background(), harness.Command{
		Path: filepath.Join(bin, "python"), Args: []string{"-W", "ignore", "tests/ship/translate.py", "template.yaml", string(given)},
		Dir: root, Env: harness.FromEnv().All,
	})
	if err != nil {
		return "", err
	}
	return p.Stdout(), nil
})

// translate returns the template, and the stack of each variant.
func translate(t *testing.T) (sam, map[string]stack) {
	t.Helper()
	pypi(t, "python")
	out, err := translated()
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Template   sam
		Translated map[string]stack
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %.3000s", err, out)
	}
	return all.Template, all.Translated
}

// TestTheTemplatePassesCfnLint lints it as it is, and with the most telling
// sets of parameters as its defaults. Warnings count, and remarks.
func TestTheTemplatePassesCfnLint(t *testing.T) {
	t.Parallel()
	lint := pypi(t, "cfn-lint")
	text, dir := file(t, "template.yaml"), t.TempDir()
	names := []string{filepath.Join(root(t), "template.yaml")}
	for _, name := range []string{"everything", "audiences", "outside a VPC"} {
		parameters := variants()[name]
		// The defaults are replaced in the text: cfn-lint then looks at what
		// the conditions make of them.
		lines := strings.Split(text, "\n")
		for p, v := range parameters {
			at := slices.Index(lines, "  "+p+":")
			if at < 0 {
				t.Fatalf("the template has no parameter %s", p)
			}
			if strings.HasPrefix(lines[at+2], "    Default:") {
				quoted, _ := json.Marshal(v)
				if lines[at+1] == "    Type: Number" {
					quoted = []byte(v)
				}
				lines[at+2] = "    Default: " + string(quoted)
			}
		}
		variant := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".yaml")
		if err := os.WriteFile(variant, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, variant)
	}
	if out, err := run(t, root(t), nil, lint, append([]string{"--non-zero-exit-code", "informational", "--"}, names...)...); err != nil {
		t.Errorf("cfn-lint: %v\n%s", err, out)
	}
}

func TestTheTranslatorTakesTheTemplate(t *testing.T) {
	t.Parallel()
	_, stacks := translate(t)
	for name, s := range stacks {
		kinds := map[string]int{}
		for _, r := range s.Resources {
			if strings.HasPrefix(r.Type, "AWS::Serverless::") {
				t.Errorf("%s: %s is left", name, r.Type)
			}
			kinds[r.Type]++
		}
		if kinds["AWS::Lambda::LayerVersion"] != 2 || kinds["AWS::Lambda::Function"] != 2 {
			t.Errorf("%s: %v", name, kinds)
		}
		// SAM makes roles and policies of its own where a function names none.
		if kinds["AWS::IAM::Role"] != 2 {
			t.Errorf("%s: %d roles", name, kinds["AWS::IAM::Role"])
		}
	}
}

func TestEveryParameterSaysWhatItIs(t *testing.T) {
	t.Parallel()
	s, _ := translate(t)
	all := everything()
	for name, p := range s.Parameters {
		if p.Description == "" || !strings.HasSuffix(p.Description, ".") && !strings.HasSuffix(p.Description, "}.") {
			t.Errorf("%s has no description, or half a sentence: %q", name, p.Description)
		}
		if p.Type == "String" && p.AllowedPattern == "" && len(p.AllowedValues) == 0 {
			t.Errorf("%s is any text: give it a pattern", name)
		}
		if p.AllowedPattern == "" {
			continue
		}
		pattern := regexp.MustCompile(p.AllowedPattern)
		values := []string{all[name]}
		if d, ok := p.Default.(string); ok {
			values = append(values, d)
		}
		for _, v := range variants() {
			if v, ok := v[name]; ok {
				values = append(values, v)
			}
		}
		for _, v := range values {
			if v != "" && !pattern.MatchString(v) {
				t.Errorf("%s: the pattern %s refuses %q", name, p.AllowedPattern, v)
			}
		}
	}
	for _, bad := range []struct{ name, value string }{
		{"VaultAddr", "vault.example.com"}, {"VaultAddr", "https://"}, {"VaultAddr", "https://vault.example.com?x=1"}, {"Memcached", "http://cache"}, {"Memcached", "a,,b"},
		{"KmsKeyArn", "alias/thaw"}, {"AlarmTopicArn", "alarms"}, {"VpcId", "thaw"}, {"Dump", "s3://bucket"}, {"Dump", "/tmp/x"}, {"WarmPaths", "secret/*"},
		{"MemcachedTimeout", "fast"}, {"WarmupSchedule", "1 minute"}, {"CacheKeyKms", "a b"}, {"ProactiveCacheDumpInterval", "0"}, {"VaultCaCertBytes", "/etc/ca.pem"},
	} {
		if regexp.MustCompile(s.Parameters[bad.name].AllowedPattern).MatchString(bad.value) {
			t.Errorf("%s takes %q", bad.name, bad.value)
		}
	}
}

// TestSamBuildBuildsEachResource runs the targets that `sam build` runs, as it
// does.
func TestSamBuildBuildsEachResource(t *testing.T) {
	t.Parallel()
	want := map[string][]string{
		"LayerArm64": {"extensions/thaw"}, "LayerAmd64": {"extensions/thaw"},
		"DemoFunction":   {"bootstrap", "bootstrap-amd64", "bootstrap-arm64"},
		"WarmupFunction": {"bootstrap", "bootstrap-amd64", "bootstrap-arm64"},
	}
	text := file(t, "template.yaml")
	if n := strings.Count(text, "BuildMethod: makefile"); n != len(want) {
		t.Errorf("%d resources are built by make, %d are checked here", n, len(want))
	}
	layers(t) // leaves the compiler's cache warm
	for id, files := range want {
		if !strings.Contains(text, "\n  "+id+":\n") {
			t.Errorf("the template has no %s", id)
		}
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must(t, root(t), []string{"ARTIFACTS_DIR=" + dir}, "make", "--makefile", "Makefile", "build-"+id)
			var got []string
			err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					rel, _ := filepath.Rel(dir, path)
					got = append(got, rel)
					if info, err := d.Info(); err != nil || info.Mode().Perm()&0o111 == 0 {
						t.Errorf("%s cannot be executed", rel)
					}
				}
				return err
			})
			if err != nil || !slices.Equal(got, files) {
				t.Errorf("%v, want %v (%v)", got, files, err)
			}
			if files[0] == "bootstrap" {
				startsAsFunction(t, dir, "/usr/local/bin:/usr/bin/:/bin:/opt/bin")
				startsAsFunction(t, dir, dir) // an image with nothing but sh
			}
		})
	}
}
