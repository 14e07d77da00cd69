package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// mark begins every secret value of these tests, so that one search finds them
// all.
const mark = "PlantedSecret-"

// planted are the secrets that don't begin with mark: tokens, keys, ids.
var planted = &registry{values: map[string]bool{}}

type registry struct {
	mu     sync.Mutex
	values map[string]bool // guarded by mu
	made   int             // guarded by mu; values that begin with mark
}

// secret makes a value that nothing may ever write down.
func secret() string {
	planted.mu.Lock()
	planted.made++
	planted.mu.Unlock()
	return mark + rand.Text()
}

// plant remembers other secrets.
func plant(values ...string) {
	planted.mu.Lock()
	defer planted.mu.Unlock()
	for _, v := range values {
		if len(v) >= 8 {
			planted.values[v] = true
		}
	}
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made + len(r.values)
}

func (r *registry) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for v := range r.values {
		out = append(out, v)
	}
	return out
}

// vaultToken is what Vault's tokens look like: service, batch and recovery
// (https://developer.hashicorp.com/vault/docs/concepts/tokens#token-prefixes).
var vaultToken = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`hv[sbr]\.[A-Za-z0-9_-]{8,}`) })

// spellings are the forms in which a text may stand somewhere.
func spellings(s string) []string {
	out := []string{s, hex.EncodeToString([]byte(s))}
	// The middle of the three base64 texts that s has at the three offsets.
	for offset := range 3 {
		padded := append(bytes.Repeat([]byte{0}, offset), s...)
		padded = padded[:len(padded)-len(padded)%3]
		text := base64.StdEncoding.EncodeToString(padded)
		out = append(out, text[4*((offset+2)/3):])
	}
	return out
}

// leaks finds the secrets in a text, each with a little of what stands around.
func leaks(text string) []string {
	var found []string
	add := func(i, n int) {
		found = append(found, "..."+text[max(0, i-120):min(len(text), i+n+60)]+"...")
	}
	for _, s := range append(planted.list(), mark) {
		for _, spelt := range spellings(s) {
			if i := strings.Index(text, spelt); i >= 0 {
				add(i, len(spelt))
			}
		}
	}
	for _, at := range vaultToken().FindAllStringIndex(text, 5) {
		add(at[0], at[1]-at[0])
	}
	return found
}

func TestSearchForLeaksFindsEverySpelling(t *testing.T) {
	t.Parallel()
	value := secret()
	token := "5f0c2f3e-1111-4a4a-9d9d-" + rand.Text()
	plant(token)
	for name, text := range map[string]string{
		"plain":                value,
		"in JSON":              `{"level":"INFO","msg":"read","body":"{\"password\":\"` + value + `\"}"}`,
		"hex":                  hex.EncodeToString([]byte("x" + value)),
		"base64":               base64.StdEncoding.EncodeToString([]byte(value)),
		"base64, shifted by 1": base64.StdEncoding.EncodeToString([]byte("x" + value)),
		"base64, shifted by 2": base64.StdEncoding.EncodeToString([]byte("xy" + value)),
		"another secret":       "secret_id=" + token,
		"a service token":      "X-Vault-Token: hvs.CAESIPzmge8fptbLY9ZnhnPTs84eaO5U7Zvk1FXxAlUSdKCV",
		"a batch token":        `"hvb.AAAAAQKJlYmSsNAecyNb5SMTsieo0f8MaFDmD22"`,
	} {
		if len(leaks("before "+text+" after")) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
	if found := leaks("nothing to see: hvs. and planted, secret-less"); len(found) > 0 {
		t.Errorf("found %q where nothing is", found)
	}
}
