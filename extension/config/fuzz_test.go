package config_test

import (
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// checkSaid asserts what holds of every result: an error is a *Problems with
// something in it, and neither it nor a warning shows the planted secret.
func checkSaid(t *testing.T, warnings []config.Warning, err error) {
	t.Helper()
	problems(t, err)
	text := said(warnings, err)
	if strings.Contains(text, planted) {
		t.Errorf("shows a secret: %s", text)
	}
	for _, w := range warnings {
		if strings.ContainsAny(w.Message, "\n\r\x00") {
			t.Errorf("warning of more than one line: %q", w.Message)
		}
	}
}

func FuzzEnvironment(f *testing.F) {
	for name, v := range variables() {
		f.Add(name+"="+v.good, strings.Join(v.also, "\x00"))
		for _, bad := range v.bad {
			if len(bad) < 200 {
				f.Add(name+"="+bad, addr)
			}
		}
	}
	f.Add("VAULT_SECRET_PATH_A=a\x00VAULT_SECRET_FILE_A=b", "THAW_x=1\x00=\x00nonsense")
	f.Fuzz(func(t *testing.T, some, more string) {
		if strings.Contains(some+more, planted) {
			return
		}
		environ := strings.Split(some+"\x00"+more, "\x00")
		// Behind the fuzzed ones, so that those count where both are there.
		for _, s := range config.Settings(config.ForAzure()) {
			if s.Secret {
				environ = append(environ, s.Name+"="+planted)
			}
		}
		c, warnings, err := load("", environ...)
		checkSaid(t, warnings, err)
		if err == nil && (len(c.Addrs) == 0 || c.Recheck <= 0 || c.MaxConns <= 0 || c.RunMode != config.RunFile && len(c.Listeners) == 0) {
			t.Errorf("taken, but not fit for use: %+v", c)
		}
	})
}

func FuzzFile(f *testing.F) {
	secretBlock := "\nauto_auth {\n method \"aws\" {\n config {\n role = \"r\"\n secret_key = \"" + planted + "\"\n access_key = \"a\"\n}\n}\n}\n"
	f.Add(proxyFile, "")
	f.Add(around(approleMethod), "")
	f.Add("vault { address = \"https://v\" }", "x = [1, {a = 2}, [true]]")
	f.Add("log_level = <<EOF", "EOF\n")
	f.Add("log_level = \"", "\"")
	f.Add("listener \"tcp\" { tls_disable = 1\n", "}")
	f.Add(`{"vault": [{"address": "https://v"}], "listener": {"tcp": [{}]}}`, "")
	f.Add("/* ", "*/ a = \"${b}\"")
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, planted) {
			return
		}
		_, warnings, err := load(before+secretBlock+after, "VAULT_TOKEN="+planted)
		checkSaid(t, warnings, err)
		_, warnings, err = load(before+after+"\n", "VAULT_TOKEN="+planted)
		checkSaid(t, warnings, err)
	})
}
