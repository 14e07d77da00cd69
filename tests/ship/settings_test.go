package ship

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// tierSettings are the variables of the shared cache and of the proactive one
// that a platform has: in the table of settings those from CACHE_ENABLE to
// THAW_WARM_CONFIRMED_ONLY, any other that is named like them, and the two that
// say how old what is in there may get.
func tierSettings(t *testing.T, platform string) []string {
	t.Helper()
	named := []string{"CACHE_", "PROACTIVE_", "NEW_PROACTIVE_", "THAW_MEMCACHED", "THAW_CACHE_KEY", "THAW_AUDIENCE", "THAW_NO_SHARE", "THAW_DUMP", "THAW_WARM_"}
	only := map[string]string{"THAW_CACHE_KEY_KMS": "aws", "THAW_CACHE_KEY_KEYVAULT": "azure", "THAW_WARM_FUNCTION": "azure"}
	var names []string
	in := false
	for _, s := range config.Settings(config.ForAzure()) {
		in = in || s.Name == "CACHE_ENABLE"
		if in || s.Name == "THAW_MAX_AGE" || s.Name == "THAW_STALE_IF_ERROR" ||
			slices.ContainsFunc(named, func(p string) bool { return strings.HasPrefix(s.Name, p) }) {
			if at := only[s.Name]; at == "" || at == platform {
				names = append(names, s.Name)
			}
		}
		in = in && s.Name != "THAW_WARM_CONFIRMED_ONLY"
	}
	if len(names) < 20 || slices.Contains(names, "VAULT_SECRET_PATH") {
		t.Fatalf("the table of settings is in another order: %v", names)
	}
	return names
}

// words are a variable's name without THAW_, in lower case.
func words(name string) []string {
	return strings.Split(strings.ToLower(strings.TrimPrefix(name, "THAW_")), "_")
}

func TestEverySettingOfTheTierIsAParameter(t *testing.T) {
	t.Parallel()
	a := sharedCache()
	template, stacks := a.translate(t)
	everywhere := map[string]bool{}
	for name, given := range a.variants {
		d := deploy(t, &template, stacks[name], given)
		if f, ok := d.made("WarmupFunction"); ok {
			for k := range environment(f) {
				everywhere[k] = true
			}
		}
	}
	for _, name := range tierSettings(t, "aws") {
		if name == "CACHE_ENABLE" {
			continue // the stack itself says so
		}
		parameter := ""
		for _, w := range words(name) {
			parameter += strings.ToUpper(w[:1]) + w[1:]
		}
		if _, ok := template.Parameters[parameter]; !ok {
			t.Errorf("%s: the SAM template has no parameter %s", name, parameter)
		}
		if !everywhere[name] {
			t.Errorf("%s reaches no function of the SAM template", name)
		}
	}
}

// environment is a function's.
func environment(f resource) map[string]string {
	out := map[string]string{}
	e, _ := f.Properties["Environment"].(map[string]any)
	v, _ := e["Variables"].(map[string]any)
	for k, one := range v {
		out[k] = fmt.Sprint(one)
	}
	return out
}

// TestTheFunctionsOfTheTemplateAreConfiguredWithoutAWarning has thaw itself
// read what the template gives its functions.
func TestTheFunctionsOfTheTemplateAreConfiguredWithoutAWarning(t *testing.T) {
	t.Parallel()
	for _, a := range applications() {
		template, stacks := a.translate(t)
		for name, given := range a.variants {
			d := deploy(t, &template, stacks[name], given)
			if f, ok := d.made("DemoFunction"); ok {
				t.Run(name+", DemoFunction", func(t *testing.T) { takes(t, environment(f), false, d.condition("CacheOn")) })
			}
			if f, ok := d.made("WarmupFunction"); ok {
				t.Run(name+", WarmupFunction", func(t *testing.T) { takes(t, environment(f), true, d.condition("WarmupOn")) })
			}
		}
	}
}

// takes loads a function's environment as thaw in Lambda would.
func takes(t *testing.T, env map[string]string, warmup, cache bool) {
	t.Helper()
	if !cache && warmup {
		return // its schedule waits for a key
	}
	environ := []string{"AWS_LAMBDA_FUNCTION_NAME=fn", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"}
	for k, v := range env {
		environ = append(environ, k+"="+v)
	}
	cfg, warnings, err := config.Load(config.Source{Environ: environ, NoListener: warmup})
	if err != nil {
		t.Fatalf("%v\n%v", err, env)
	}
	for _, w := range warnings {
		// A legacy warm-up that was asked for is told how to migrate, and a
		// memcached without TLS is somebody's own.
		t.Errorf("warning: %s", w.Message)
	}
	if cfg.CacheEnable != cache || (len(cfg.Memcached) > 0) != cache || !cfg.EMF || cfg.Auth.Method != config.AuthAWS {
		t.Errorf("shared cache %v at %v, want %v; EMF %v; auth %v", cfg.CacheEnable, cfg.Memcached, cache, cfg.EMF, cfg.Auth.Method)
	}
	if warmup && (!cfg.Warm.Enable || len(cfg.Warm.Paths)+len(cfg.Warm.Audiences) == 0) {
		t.Errorf("the warm-up would have nothing to do: %+v", cfg.Warm)
	}
}

// TestTheWarmUpsTimeIsWithinItsFunctions: a run ends ten seconds before the
// function's timeout, so a longer one is a mistake.
func TestTheWarmUpsTimeIsWithinItsFunctions(t *testing.T) {
	t.Parallel()
	number := func(where, after, pattern string) int {
		_, rest, _ := strings.Cut(file(t, where), after)
		m := regexp.MustCompile(pattern).FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("%s has no %s after %s", where, pattern, after)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	sam, timeout := number("template-cache.yaml", "\n  WarmFor:\n", `MaxValue: (\d+)`), number("template-cache.yaml", "\n  WarmupFunction:\n", `Timeout: (\d+)`)
	tf, limit := number("terraform/aws/variables_warmup.tf", `variable "warmup"`, `var\.warmup\.run_for, 0\) <= (\d+)`), number("terraform/aws/warmup.tf", `"aws_lambda_function" "warmup"`, `timeout +=\s+(\d+)`)
	if sam != timeout-10 || tf != limit-10 {
		t.Errorf("SAM allows %d s of %d, Terraform %d of %d", sam, timeout, tf, limit)
	}
}
