package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

const planted = "pl4nted-s3cret"

// said is everything that Load says to a log.
func said(warnings []config.Warning, err error) string {
	var b strings.Builder
	if err != nil {
		fmt.Fprintf(&b, "%v %+v %s", err, err, err)
	}
	for _, w := range warnings {
		b.WriteString("\n" + w.Message)
	}
	return b.String()
}

func TestG5NoSecretOfAVariableIsEverShown(t *testing.T) {
	t.Parallel()
	// Well-formed, malformed in every way that the parsers tell apart, and in
	// the place of something else.
	forms := []string{
		planted, planted + "\n" + planted, "\x01" + planted, `{"a":"` + planted + `"}`, `{"a":"` + planted + `\n"}`, `{"` + planted, `{"X-Vault-Token":"` + planted + `"}`,
		`{"Authorization":"Bearer ` + planted + `"}`, "http://user:" + planted + "@proxy:1", "http://user:" + planted + "@proxy:99999", "ftp://user:" + planted + "@proxy", "//" + planted + "@[::1", planted + strings.Repeat("x", 70000),
	}
	names := []string{"THAW_LOCAL_TOKE", "THAW_SECRET", "VAULT_TOKNE", "vault_token", "THAW_CACHE_KEY", "VLE_VAULT_TOKEN"}
	for _, s := range config.Settings(config.ForAzure()) {
		if s.Secret {
			names = append(names, s.Name)
		}
	}
	if len(names) < 16 {
		t.Fatalf("only %d secret variables", len(names))
	}
	for _, name := range names {
		for _, form := range forms {
			for _, method := range []string{"", "approle", "aws", "token", "nonsense"} {
				_, warnings, err := load("", name+"="+form, "THAW_AUTH_METHOD="+method, "VAULT_ADDR=")
				if text := said(warnings, err); strings.Contains(text, planted) {
					t.Errorf("%s=%q is shown: %s", name, form, text)
				}
			}
		}
	}
	// Credentials in what is no secret by itself.
	for _, environ := range []string{
		"VAULT_ADDR=https://u:" + planted + "@vault", "VAULT_ADDR=https://" + planted + "@:x", "VAULT_ADDR=u:" + planted + "@vault", "VAULT_ADDR=http://u:" + planted + "@vault:1",
		"THAW_VAULT_ADDRS=https://a,https://u:" + planted + "@b", "THAW_LISTEN=http://u:" + planted + "@b", "THAW_LISTEN=127.0.0.1:1,u:" + planted + "@b", "AWS_ENDPOINT_URL_STS=https://u:" + planted + "@b",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://u:" + planted + "@b", "THAW_ALLOWED_HOSTS=u:" + planted + "@b", "VAULT_LOG_LEVEL=hvs." + planted, "VAULT_RUN_MODE=-----BEGIN\n" + planted,
	} {
		_, warnings, err := load("", environ)
		if err == nil {
			t.Errorf("%s is taken", environ)
		}
		if text := said(warnings, err); strings.Contains(text, planted) {
			t.Errorf("%s is shown: %s", environ, text)
		}
	}
}

func TestG5NoSecretOfTheFileIsEverShown(t *testing.T) {
	t.Parallel()
	for _, file := range []string{
		around("method \"aws\" {\n config {\n secret_key = \"" + planted + "\"\n session_token = [\"" + planted + "\"]\n access_key = true\n}\n}"),
		around("method \"aws\" {\n config {\n secret_key = \"" + planted + "\\n\"\n}\n}"),
		around("method \"aws\" {\n config {\n secret_kye = \"" + planted + "\"\n}\n}"),
		around("method \"aws\" {\n config {\n secret_key \"" + planted + "\"\n}\n}"),
		around("method \"aws\" {\n config {\n secret_key = " + planted + "\n}\n}"),
		around("method \"aws\" {\n config {\n secret_key = \"" + planted + "\n}\n}"),
		around("method \"aws\" {\n secret_key = \"" + planted + "\"\n config {\n secret_key = <<EOF\n" + planted + "\nEOF\n}\n}"),
		around("method \"aws\" {\n config {\n secret_key = \"" + planted + "\"\n secret_key = \"" + planted + "\"\n}\n}"),
		`{"auto_auth": {"method": [{"type": "aws", "config": {"secret_key": "` + planted + `", "session_token": {"x": "` + planted + `"}}}]}}`,
		`{"auto_auth": {"method": [{"type": "aws", "config": {"secret_key": "` + planted + `" "x": 1}}]}}`,
		`{"auto_auth": "` + planted + "\x00",
		"vault { address = \"https://u:" + planted + "@v\" }",
	} {
		_, warnings, err := load(file)
		if text := said(warnings, err); err == nil || strings.Contains(text, planted) {
			t.Errorf("%s\nsays %s", file, text)
		}
	}
}

// What follows a question mark may be a signature, and a key in the wrong place is one still.
func TestG5QueriesAndKeysInTheWrongPlaceAreNotShown(t *testing.T) {
	t.Parallel()
	for _, environ := range []string{
		"VAULT_ADDR=https://v?t=" + planted, "VLE_VAULT_ADDR=https://v#" + planted, "THAW_VAULT_ADDRS=https://v?" + planted, "THAW_CACHE_KEY_KMS=!" + planted,
		"AWS_ENDPOINT_URL_STS=https://v?" + planted, "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://evil?" + planted, "THAW_DUMP=s3://b/k?" + planted,
		"THAW_MEMCACHED=m?" + planted, "VAULT_NAMESPACE=a?" + planted, "VAULT_SECRET_PATH=a?" + planted, "VAULT_RUN_MODE=s." + planted + "abcdefghijkl", "VAULT_RUN_MODE=hvb." + planted,
	} {
		_, warnings, err := load("", environ)
		if text := said(warnings, err); err == nil || strings.Contains(text, planted) {
			t.Errorf("%s: %s", environ, text)
		}
	}
	_, _, err := loadAzure("", addr, "THAW_CACHE_KEY_KEYVAULT=https://evil/#"+planted)
	if err == nil || strings.Contains(err.Error(), planted) {
		t.Error(err)
	}
}

func TestG5ConfigHidesItsSecrets(t *testing.T) {
	t.Parallel()
	c, _ := mustLoad(t, "", addr, "VAULT_TOKEN="+planted, "THAW_LOCAL_TOKEN="+planted, "AWS_SECRET_ACCESS_KEY="+planted, "AWS_SESSION_TOKEN="+planted, "AWS_CONTAINER_AUTHORIZATION_TOKEN="+planted)
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, planted) {
		t.Error(text)
	}
}
