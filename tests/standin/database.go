package standin

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// planDatabase is the database engine as far as its answers go: each read of
// creds/ makes a user with a lease. There is no database behind it, so a password
// is the number of its user, by which tests tell them apart, and leases are not
// kept: nothing can renew or revoke them.
// https://developer.hashicorp.com/vault/api-docs/secret/databases#generate-credentials
func (c *call) planDatabase(m *mount, prefix, rel string) (answer, *change) {
	area, name, _ := strings.Cut(rel, "/")
	text, known := m.plain[name]
	switch {
	case area == "roles" && (c.op == opCreate || c.op == opUpdate):
		if c.text("db_name") == "" {
			return invalid("database name is required"), nil
		}
		role, err := json.Marshal(c.body)
		if err != nil {
			return errorAnswer(http.StatusInternalServerError, "stand-in: encode the role: "+err.Error()), nil
		}
		return noContent, &change{entries: 1, apply: func(*state) { m.plain[name] = role }}
	case area == "creds" && c.op == opRead && !known:
		return invalid("unknown role: " + name), nil
	case area == "creds" && c.op == opRead:
		var role struct {
			TTL json.RawMessage `json:"default_ttl"` // a number of seconds, or text
		}
		if err := json.Unmarshal(text, &role); err != nil {
			return errorAnswer(http.StatusInternalServerError, "stand-in: decode the role: "+err.Error()), nil
		}
		d, err := parseSeconds(strings.Trim(string(role.TTL), `"`))
		if err != nil {
			return invalid(err.Error()), nil
		}
		if d == 0 {
			d = defaultLease * time.Second
		}
		n := strconv.Itoa(m.users[name] + 1)
		return c.enveloped(envelope{
			LeaseID: prefix + rel + "/" + randomText(24), Renewable: true, LeaseDuration: int(d.Seconds()), MountType: m.kind,
			Data: map[string]any{"username": "v-" + c.token.display + "-" + name + "-" + n, "password": n},
		}), &change{entries: 3, apply: func(*state) { m.users[name]++ }}
	}
	return unsupported(), nil
}
