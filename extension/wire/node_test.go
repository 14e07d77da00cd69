package wire

import (
	"net/http"
	"strings"
	"testing"
)

// An answer names one node, or none; whatever else it says is of nobody.
func TestNode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		named []string
		id    string
		ok    bool
	}{
		{nil, "", true},
		{[]string{"node-1"}, "node-1", true},
		{[]string{"vault_0.vault-internal:8201"}, "vault_0.vault-internal:8201", true},
		{[]string{"node-1", "node-2"}, "", false},
		{[]string{"node-1", "node-1"}, "", false},
		{[]string{"node-1, node-2"}, "", false},
		{[]string{"node-1,node-2"}, "", false},
		{[]string{""}, "", false},
		{[]string{"a\nb"}, "", false},
		{[]string{"nöde"}, "", false},
		{[]string{strings.Repeat("x", 257)}, "", false},
	} {
		h := http.Header{}
		for _, v := range c.named {
			h.Add("X-Vault-Raft-Node-ID", v)
		}
		if id, ok := Node(h); id != c.id || ok != c.ok {
			t.Errorf("%q: %q, %v", c.named, id, ok)
		}
	}
}
