package standin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// defaultLease is Vault's default lease: what a KV version 1 answer reports,
// and the life of a token that asks for none. Seconds: 32 days.
const defaultLease = 2764800

// planKV1 is KV version 1: one JSON object at each path.
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v1
func (c *call) planKV1(m *mount, rel string) (answer, *change) {
	switch c.op {
	case opRead:
		text, ok := m.plain[rel]
		if !ok {
			return notFound(), nil
		}
		var data map[string]any
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&data); err != nil {
			return errorAnswer(http.StatusInternalServerError, "stand-in: decode the secret: "+err.Error()), nil
		}
		lease := defaultLease
		for _, name := range []string{"lease", "ttl"} { // ttl wins
			if v, ok := data[name]; ok {
				if s, ok := plainText(v); ok {
					if d, err := parseSeconds(s); err == nil {
						lease = int(d.Seconds())
					}
				}
			}
		}
		return c.enveloped(envelope{Data: data, LeaseDuration: lease, MountType: m.kind}), nil
	case opList:
		return c.list(m.kind, listKeys(m.plain, rel)), nil
	case opCreate, opUpdate:
		if len(c.body) == 0 {
			return invalid("missing data fields"), nil
		}
		text, err := json.Marshal(c.body)
		if err != nil {
			return errorAnswer(http.StatusInternalServerError, "stand-in: encode the secret: "+err.Error()), nil
		}
		return noContent, &change{entries: 1, apply: func(*state) { m.plain[rel] = text }}
	case opDelete:
		return noContent, &change{entries: 1, apply: func(*state) { delete(m.plain, rel) }}
	}
	return unsupported(), nil
}

// plainText is a JSON scalar as text.
func plainText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return strings.TrimSpace(v), true
	case json.Number:
		return v.String(), true
	}
	return "", false
}
