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

// application is one of the two stacks: its template and the parameters that
// it is checked with.
type application struct {
	file       string
	everything map[string]string            // a value for every optional parameter
	variants   map[string]map[string]string // by name
}

// given changes some of everything.
func (a application) given(change map[string]string) map[string]string {
	all := maps.Clone(a.everything)
	maps.Copy(all, change)
	return all
}

// function is the template with the layer and the demo function.
func function() application {
	a := application{file: "template.yaml", everything: map[string]string{
		"VaultAddr": "https://vault.example.com:8200", "VaultNamespace": "team", "VaultCaCertBytes": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
		"VaultAuthProvider": "aws-eu", "VaultAuthRole": "shop", "VaultIamServerId": "vault.example.com", "DemoEnable": "true", "SecretPath": "secret/data/shop",
		"MaxAge": "10s", "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1", "SecurityGroupIds": "sg-0123456789abcdef0",
		"AlarmTopicArn": "arn:aws:sns:eu-central-1:123456789012:alarms",
		"Memcached":     "tls://thaw.abc123.cfg.euc1.cache.amazonaws.com:11211", "CacheKeyKms": "AQIDAHg=,AQIDAHs=", "Audience": "shop",
	}}
	a.variants = map[string]map[string]string{
		"the defaults":    {"VaultAddr": "https://vault.example.com:8200"},
		"everything":      a.everything,
		"the layer alone": {"VaultAddr": "https://vault.example.com:8200", "DemoEnable": "false"},
		"outside a VPC":   a.given(map[string]string{"SubnetIds": "", "SecurityGroupIds": "", "Memcached": "tls://cache.example.com"}),
		"no shared cache": a.given(map[string]string{"Memcached": "", "CacheKeyKms": ""}),
	}
	return a
}

// sharedCache is the template with the shared cache and the warm-up.
func sharedCache() application {
	a := application{file: "template-cache.yaml", everything: map[string]string{
		"VaultAddr": "https://vault.example.com:8200", "VaultNamespace": "team", "VaultCaCertBytes": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
		"VaultAuthProvider": "aws-eu", "VaultIamServerId": "vault.example.com", "VaultStsEndpointRegion": "eu-central-1",
		"VaultAssumedRoleArn": "arn:aws:iam::123456789012:role/vault", "Architecture": "x86_64", "MaxAge": "10s",
		"StaleIfError": "1h", "LogLevel": "DEBUG", "LogRetention": "7", "AlarmTopicArn": "arn:aws:sns:eu-central-1:123456789012:alarms",
		"VpcId": "vpc-0123456789abcdef0", "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1", "VaultPort": "443", "VaultCidr": "10.0.0.0/16",
		"CreateKmsEndpoint": "true", "MemcachedTimeout": "30ms", "MemcachedNodeType": "cache.m7g.large", "MemcachedNodes": "2",
		"CacheKeyKms": "AQIDAHg=,AQIDAHs=", "AudienceRoleArns": "arn:aws:iam::123456789012:role/shop,arn:aws:iam::123456789012:role/till", "Audience": "shop",
		"CacheTtl": "30", "ClockSkew": "2s", "NoSharePaths": "secret/data/root/*", "ProactiveCacheEnable": "true", "NewProactiveCacheEnable": "false",
		"ProactiveCacheWorkers": "4", "ProactiveCacheMinimumFetchingTime": "0", "ProactiveCacheDumpInterval": "15", "Dump": "s3://backups/thaw/dump",
		"WarmPaths": "secret/,kv/app/", "WarmFor": "50", "WarmConfirmedOnly": "true", "WarmupVaultAuthRole": "warm", "WarmupSchedule": "rate(2 minutes)", "WarmupReserveConcurrency": "false",
	}}
	own := map[string]string{
		"Memcached": "tls://cache.example.com:11212", "MemcachedPort": "11212", "MemcachedCacert": "/var/task/ca.pem", "MemcachedTlsServerName": "cache",
		"MemcachedClientCert": "/var/task/c.pem", "MemcachedClientKey": "/var/task/k.pem", "KmsKeyArn": "arn:aws:kms:eu-central-1:123456789012:key/0-1-2",
		"NewProactiveCacheEnable": "true", "ProactiveCacheDumpInterval": "", "Dump": "",
	}
	a.variants = map[string]map[string]string{
		"the defaults":  {"VpcId": "vpc-0123456789abcdef0", "SubnetIds": "subnet-0123456789abcdef0"},
		"everything":    a.everything,
		"given":         a.given(own),
		"a plain key":   a.given(map[string]string{"CacheKeyKms": "", "CacheKey": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}),
		"no key yet":    a.given(map[string]string{"CacheKeyKms": ""}),
		"audiences":     a.given(map[string]string{"CacheKeyKms": "", "WarmAudiences": `[{"audience":"a","paths":"kv/","key":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}]`}),
		"outside a VPC": a.given(map[string]string{"VpcId": "", "SubnetIds": "", "CreateKmsEndpoint": "false", "Memcached": "cache.example.com"}),
		"no warm-up":    a.given(map[string]string{"ProactiveCacheEnable": "false"}),
	}
	return a
}

func applications() []application { return []application{function(), sharedCache()} }

// translated is the translator's output for all variants of each template,
// made once.
var translated = sync.OnceValues(func() (map[string]string, error) {
	bin, err := harness.FindPython(context.Background())
	if err != nil {
		return nil, err
	}
	root, err := harness.Root()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, a := range applications() {
		given, err := json.Marshal(a.variants)
		if err != nil {
			return nil, err
		}
		p, err := harness.Run(context.Background(), harness.Command{
			Path: filepath.Join(bin, "python"), Args: []string{"-W", "ignore", "tests/ship/translate.py", a.file, string(given)},
			Dir: root, Env: harness.FromEnv().All,
		})
		if err != nil {
			return nil, err
		}
		out[a.file] = p.Stdout()
	}
	return out, nil
})

// translate returns the template, and the stack of each variant.
func (a application) translate(t *testing.T) (sam, map[string]stack) {
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
	if err := json.Unmarshal([]byte(out[a.file]), &all); err != nil {
		t.Fatalf("%v: %.3000s", err, out[a.file])
	}
	return all.Template, all.Translated
}

// TestTheTemplatesPassCfnLint lints them as they are, and with the most telling
// sets of parameters as their defaults. Warnings count, and remarks.
func TestTheTemplatesPassCfnLint(t *testing.T) {
	t.Parallel()
	lint, dir := pypi(t, "cfn-lint"), t.TempDir()
	var names []string
	for _, a := range applications() {
		names = append(names, filepath.Join(root(t), a.file))
		for _, name := range []string{"everything", "audiences", "outside a VPC"} {
			parameters, ok := a.variants[name]
			if !ok {
				continue
			}
			variant := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+"-"+a.file)
			if err := os.WriteFile(variant, []byte(withDefaults(t, file(t, a.file), parameters)), 0o600); err != nil {
				t.Fatal(err)
			}
			names = append(names, variant)
		}
	}
	if out, err := run(t, root(t), nil, lint, append([]string{"--non-zero-exit-code", "informational", "--"}, names...)...); err != nil {
		t.Errorf("cfn-lint: %v\n%s", err, out)
	}
}

// withDefaults replaces the defaults in a template's text: cfn-lint then looks
// at what the conditions make of them.
func withDefaults(t *testing.T, text string, parameters map[string]string) string {
	t.Helper()
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
	return strings.Join(lines, "\n")
}

func TestTheTranslatorTakesTheTemplates(t *testing.T) {
	t.Parallel()
	for _, a := range applications() {
		template, stacks := a.translate(t)
		for name, s := range stacks {
			d := deploy(t, &template, s, a.variants[name])
			kinds := map[string]int{}
			for id, r := range s.Resources {
				if strings.HasPrefix(r.Type, "AWS::Serverless::") {
					t.Errorf("%s, %s: %s is left", a.file, name, r.Type)
				}
				if _, ok := d.made(id); ok {
					kinds[r.Type]++
				}
			}
			layers, functions := 2, 1
			if a.file == "template-cache.yaml" {
				layers = 0
			}
			if p := a.variants[name]; p["DemoEnable"] == "false" || layers == 0 && p["ProactiveCacheEnable"] != "true" {
				functions = 0
			}
			// SAM makes roles and policies of its own where a function names none.
			if kinds["AWS::Lambda::LayerVersion"] != layers || kinds["AWS::Lambda::Function"] != functions || kinds["AWS::IAM::Role"] != functions {
				t.Errorf("%s, %s: %v, want %d layers, %d functions with a role each", a.file, name, kinds, layers, functions)
			}
		}
	}
}

// TestTheFirstTemplateStaysSmall: more parameters than these nobody reads.
func TestTheFirstTemplateStaysSmall(t *testing.T) {
	t.Parallel()
	s, _ := function().translate(t)
	if n := len(s.Parameters); n > 15 {
		t.Errorf("template.yaml has %d parameters: what belongs to the shared cache goes into template-cache.yaml", n)
	}
}

// TestTheSamCommandLineTakesTheTemplates has the real SAM CLI validate and lint
// them, and those of the examples.
func TestTheSamCommandLineTakesTheTemplates(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob(filepath.Join(root(t), "examples", "*", "template.yaml"))
	if err != nil || len(examples) < 5 {
		t.Fatalf("%d templates of examples (%v)", len(examples), err)
	}
	for _, template := range append(examples, function().file, sharedCache().file) {
		must(t, root(t), samEnv(t), pypi(t, "sam"), "validate", "--lint", "--region", "eu-central-1", "--template", template)
	}
}

// samEnv keeps the SAM CLI from calling anybody and from the user's own files.
func samEnv(t *testing.T) []string {
	return []string{"SAM_CLI_TELEMETRY=0", "SAM_CLI_CHECK_UPDATES=0", "HOME=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true", "GOCACHE=" + goEnv(t, "GOCACHE"), "GOMODCACHE=" + goEnv(t, "GOMODCACHE")}
}

// goEnv is a variable of the go command, which it may derive from HOME.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(must(t, root(t), nil, "go", "env", name))
}

func TestEveryParameterSaysWhatItIs(t *testing.T) {
	t.Parallel()
	bad := map[string][]struct{ name, value string }{
		"template.yaml": {
			{"VaultAddr", "vault.example.com"}, {"VaultAddr", "https://"}, {"VaultAddr", "https://vault.example.com?x=1"}, {"Memcached", "http://cache"}, {"Memcached", "a,,b"},
			{"AlarmTopicArn", "alarms"}, {"CacheKeyKms", "a b"}, {"VaultCaCertBytes", "/etc/ca.pem"}, {"SecretPath", "secret/data/a b"},
		},
		"template-cache.yaml": {
			{"VaultAddr", "vault.example.com"}, {"VaultAddr", "https://"}, {"Memcached", "http://cache"}, {"Memcached", "a,,b"},
			{"KmsKeyArn", "alias/thaw"}, {"AlarmTopicArn", "alarms"}, {"VpcId", "thaw"}, {"Dump", "s3://bucket"}, {"Dump", "/tmp/x"}, {"WarmPaths", "secret/*"},
			{"MemcachedTimeout", "fast"}, {"WarmupSchedule", "1 minute"}, {"CacheKeyKms", "a b"}, {"ProactiveCacheDumpInterval", "0"}, {"VaultCaCertBytes", "/etc/ca.pem"},
		},
	}
	for _, a := range applications() {
		s, _ := a.translate(t)
		for name, p := range s.Parameters {
			if p.Description == "" || !strings.HasSuffix(p.Description, ".") && !strings.HasSuffix(p.Description, "}.") {
				t.Errorf("%s: %s has no description, or half a sentence: %q", a.file, name, p.Description)
			}
			if p.Type == "String" && p.AllowedPattern == "" && len(p.AllowedValues) == 0 {
				t.Errorf("%s: %s is any text: give it a pattern", a.file, name)
			}
			if p.AllowedPattern == "" {
				continue
			}
			pattern := regexp.MustCompile(p.AllowedPattern)
			var values []string
			if d, ok := p.Default.(string); ok {
				values = append(values, d)
			}
			for _, v := range a.variants {
				values = append(values, v[name])
			}
			for _, v := range values {
				if v != "" && !pattern.MatchString(v) {
					t.Errorf("%s: %s: the pattern %s refuses %q", a.file, name, p.AllowedPattern, v)
				}
			}
		}
		for _, b := range bad[a.file] {
			if regexp.MustCompile(s.Parameters[b.name].AllowedPattern).MatchString(b.value) {
				t.Errorf("%s: %s takes %q", a.file, b.name, b.value)
			}
		}
	}
}

// TestSamBuildsEachResource runs `sam build` with both sections of
// samconfig.toml.
func TestSamBuildsEachResource(t *testing.T) {
	t.Parallel()
	sam, env := pypi(t, "sam"), samEnv(t)
	want := map[string]map[string][]string{
		"default": {"LayerArm64": {"extensions/thaw"}, "LayerAmd64": {"extensions/thaw"}, "DemoFunction": {"bootstrap", "bootstrap-amd64", "bootstrap-arm64"}},
		"cache":   {"WarmupFunction": {"bootstrap", "bootstrap-amd64", "bootstrap-arm64"}},
	}
	layers(t) // leaves the compiler's cache warm
	for section, resources := range want {
		t.Run(section, func(t *testing.T) {
			t.Parallel()
			built := t.TempDir()
			must(t, root(t), env, sam, "build", "--config-env", section, "--region", "eu-central-1", "--build-dir", built, "--cache-dir", t.TempDir())
			for id, files := range resources {
				dir := filepath.Join(built, id)
				if got := programs(t, dir); !slices.Equal(got, files) {
					t.Errorf("%s: %v, want %v", id, got, files)
				}
				if files[0] == "bootstrap" {
					startsAsFunction(t, dir, "/usr/local/bin:/usr/bin/:/bin:/opt/bin")
					startsAsFunction(t, dir, dir) // an image with nothing but sh
				}
			}
		})
	}
}

// programs lists the files below dir, each of which has to be executable.
func programs(t *testing.T, dir string) []string {
	t.Helper()
	var got []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			got = append(got, rel)
			if info, err := d.Info(); err != nil || info.Mode().Perm()&0o111 == 0 {
				t.Errorf("%s cannot be executed", path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return got
}
