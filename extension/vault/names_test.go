package vault

import (
	"net/http"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

// A message names the setting that the address came from, and no other.
func TestMessagesNameTheSettingThatWasUsed(t *testing.T) {
	t.Parallel()
	refused := "http://" + harness.FreeAddr(t)
	garbage := newScript(t, say("SSH-2.0\r\n\r\n")).url()
	page := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	for _, from := range []string{"VLE_VAULT_ADDR", "VAULT_ADDR", "THAW_VAULT_ADDRS", "vault.address"} {
		for name, ask := range map[string]func() error{
			"refused": func() error { return errorOf(t, refused, from, false) },
			"garbage": func() error { return errorOf(t, garbage, from, false) },
			"no TLS":  func() error { return errorOf(t, strings.Replace(page, "http:", "https:", 1), from, false) },
			"a page":  func() error { return errorOf(t, page, from, true) },
			"no name": func() error { return errorOf(t, "http://vault.invalid:8200", from, false) },
			"no file": func() error { return errorOf(t, "unix:///nonexistent/vault.sock", from, false) },
		} {
			err := ask()
			if err == nil || !strings.Contains(err.Error(), from) {
				t.Errorf("%s, from %s: %v", name, from, err)
				continue
			}
			if rest := strings.ReplaceAll(err.Error(), from, ""); strings.Contains(rest, "VAULT_ADDR") {
				t.Errorf("%s, from %s: another setting is named: %v", name, from, err)
			}
		}
	}
}

// errorOf is the error of one request to addr, or of its health.
func errorOf(t *testing.T, addr, from string, health bool) error {
	t.Helper()
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, AddrsFrom: from}})
	if health {
		_, err := c.Health(t.Context())
		return err
	}
	_, err := c.Do(request(t, "GET", "/v1/x", ""))
	return err
}
