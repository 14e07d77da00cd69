package standin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
)

// defaultMaxVersions is how many versions KV version 2 keeps when neither the
// mount nor the secret says.
const defaultMaxVersions = 10

// kv2Config is a mount's config: /v1/<mount>/config.
type kv2Config struct {
	maxVersions        uint64
	casRequired        bool
	deleteVersionAfter time.Duration // negative: off for all secrets
}

// secret is one KV version 2 secret with its versions. Immutable once stored.
type secret struct {
	current, oldest    uint64
	created, updated   time.Time
	maxVersions        uint64
	casRequired        bool
	deleteVersionAfter time.Duration
	custom             map[string]string
	updatedBy          *attribution
	versions           map[uint64]*version
}

// version is one version of a secret. Immutable once stored.
type version struct {
	created   time.Time
	deletion  time.Time // zero: none; may lie ahead
	destroyed bool
	data      map[string]any
	createdBy *attribution
	deletedBy *attribution
}

// attribution says who did it; Vault 1.21 keeps it in the metadata.
type attribution struct {
	Actor     string `json:"actor,omitempty"`
	EntityID  string `json:"entity_id,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	Operation string `json:"operation,omitempty"`
}

// planKV2 is KV version 2.
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
func (c *call) planKV2(m *mount, rel string) (answer, *change) {
	if c.op == opHead {
		return unsupported(), nil
	}
	area, key, ok := strings.Cut(rel, "/")
	if !ok {
		if area == "config" {
			return c.planKV2Config(m)
		}
		return c.invalidKV2Path(rel), nil
	}
	c.fields = map[string][]string{
		"data":     {"path", "version", "options", "data"},
		"metadata": {"path", "max_versions", "cas_required", "delete_version_after", "custom_metadata", "exclude_deleted"},
		"subkeys":  {"path", "version", "depth"},
	}[area]
	switch area {
	case "data":
		if key == "" || strings.HasSuffix(key, "/") {
			return c.invalidKV2Path(rel), nil
		}
		return c.planData(m, key)
	case "metadata":
		return c.planMetadata(m, key)
	case "detailed-metadata":
		if c.bao && (c.op == opList || c.op == opScan) {
			return c.planDetailed(m, key), nil
		}
		return unsupported(), nil
	case "subkeys":
		if key == "" || strings.HasSuffix(key, "/") {
			return c.invalidKV2Path(rel), nil
		}
		if c.op != opRead {
			return unsupported(), nil
		}
		return c.planSubkeys(m, key), nil
	case "delete", "undelete", "destroy":
		if c.op != opUpdate && c.op != opCreate {
			return unsupported(), nil
		}
		return c.planVersions(m, area, key)
	}
	return c.invalidKV2Path(rel), nil
}

// invalidKV2Path explains a path that would fit version 1.
func (c *call) invalidKV2Path(rel string) answer {
	switch rel {
	case "metadata", "data", "delete", "undelete", "destroy":
		return c.goneWithData(nil, "Non-listing operations on the root of a K/V v2 mount are not supported.")
	}
	verb := map[operation]string{opRead: "get", opList: "list", opDelete: "delete", opPatch: "patch"}[c.op]
	if verb == "" {
		verb = "put"
	}
	return c.goneWithData(nil, fmt.Sprintf("Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. If using the Vault CLI, use 'vault kv %s' for this operation.", verb))
}

func (c *call) planData(m *mount, key string) (answer, *change) {
	sec := m.secrets[key]
	switch c.op {
	case opRead:
		v, n, a := c.versionAsked(sec, "data")
		if a != nil {
			return *a, nil
		}
		return c.ok(m.kind, map[string]any{"data": v.data, "metadata": sec.versionInfo(n)}), nil
	case opCreate, opUpdate:
		data, a := c.dataGiven()
		if a != nil {
			return *a, nil
		}
		if sec == nil {
			sec = &secret{versions: map[uint64]*version{}}
		}
		if a := c.checkCAS(m, sec); a != nil {
			return *a, nil
		}
		return c.addVersion(m, key, sec, data)
	case opPatch:
		patch, a := c.dataGiven()
		if a != nil {
			return *a, nil
		}
		if sec == nil {
			return answer{status: http.StatusNotFound}, nil
		}
		if a := c.checkCAS(m, sec); a != nil {
			return *a, nil
		}
		v := sec.versions[sec.current]
		if v == nil {
			return answer{status: http.StatusNotFound}, nil
		}
		if v.gone(c.now) {
			return c.goneWithData(sec.versionInfo(sec.current)), nil
		}
		if v.data == nil {
			return errorAnswer(http.StatusInternalServerError, "1 error occurred:\n\t* resource does not exist\n\n"), nil
		}
		return c.addVersion(m, key, sec, mergePatch(v.data, patch))
	case opDelete:
		if sec == nil {
			return noContent, nil
		}
		v := sec.versions[sec.current]
		if v == nil || v.gone(c.now) {
			return noContent, nil
		}
		next := sec.clone()
		next.updatedBy = c.by("delete")
		nv := *v
		nv.deletion, nv.deletedBy = c.now, next.updatedBy
		next.versions[sec.current] = &nv
		return noContent, replaceSecret(m, key, next, 1)
	}
	return unsupported(), nil
}

// dataGiven is the body's data: an object, or null, which Vault stores as it is.
func (c *call) dataGiven() (map[string]any, *answer) {
	v, there := c.body["data"]
	data, ok := v.(map[string]any)
	switch {
	case !there:
		return nil, refuse(http.StatusBadRequest, "no data provided")
	case !ok && v != nil:
		return nil, refuse(http.StatusBadRequest, fmt.Sprintf("error converting input for field \"data\": '' expected a map, got '%T'", v))
	}
	return data, nil
}

// versionAsked finds the version a read asks for, or the answer that it is
// not there. Field is the name of what a 404 leaves null.
func (c *call) versionAsked(sec *secret, field string) (*version, uint64, *answer) {
	n, _, err := c.number("version")
	if err != nil {
		return nil, 0, refuse(http.StatusBadRequest, err.Error())
	}
	if sec == nil {
		return nil, 0, refuse(http.StatusNotFound)
	}
	num := sec.current
	if n > 0 {
		num = uint64(n)
	}
	v := sec.versions[num]
	if v == nil {
		return nil, 0, refuse(http.StatusNotFound)
	}
	if v.gone(c.now) {
		a := c.goneWithData(map[string]any{field: nil, "metadata": sec.versionInfo(num)})
		return nil, 0, &a
	}
	return v, num, nil
}

func (c *call) checkCAS(m *mount, sec *secret) *answer {
	options, _ := c.body["options"].(map[string]any)
	cas, there := options["cas"]
	if !there {
		if m.config.casRequired || sec.casRequired {
			return refuse(http.StatusBadRequest, "check-and-set parameter required for this call")
		}
		return nil
	}
	n, err := wholeNumber(cas)
	if err != nil {
		return refuse(http.StatusBadRequest, "error parsing check-and-set parameter")
	}
	if n < 0 || uint64(n) != sec.current {
		return refuse(http.StatusBadRequest, "check-and-set parameter did not match the current version")
	}
	return nil
}

// addVersion stores data as the next version and drops what max_versions
// leaves no room for.
func (c *call) addVersion(m *mount, key string, sec *secret, data map[string]any) (answer, *change) {
	text, err := json.Marshal(data)
	var stored map[string]any // as Vault reads it again: numbers are floats
	if err := cmp.Or(err, json.Unmarshal(text, &stored)); err != nil {
		return errorAnswer(http.StatusInternalServerError, "stand-in: store the secret: "+err.Error()), nil
	}
	verb := string(c.op)
	next := sec.clone()
	next.updatedBy = c.by(verb)
	next.current++
	next.updated = c.now
	if next.created.IsZero() {
		next.created = c.now
	}
	next.versions[next.current] = &version{created: c.now, deletion: m.deletionFor(c.now, sec), data: stored, createdBy: next.updatedBy}
	keep := max(next.maxVersions, m.config.maxVersions)
	if keep == 0 {
		keep = defaultMaxVersions
	}
	if next.current-next.oldest >= keep {
		last := next.current - keep
		for i := next.oldest; i <= last; i++ {
			delete(next.versions, i)
		}
		next.oldest = last + 1
	}
	// Vault stores the version and the metadata apart: two entries.
	return c.ok(m.kind, next.versionInfo(next.current)), replaceSecret(m, key, next, 2)
}

// deletionFor is when a version made now deletes itself; zero for never.
func (m *mount) deletionFor(now time.Time, sec *secret) time.Time {
	if m.config.deleteVersionAfter < 0 {
		return time.Time{}
	}
	after := sec.deleteVersionAfter
	if mine := m.config.deleteVersionAfter; mine != 0 && (after == 0 || mine < after) {
		after = mine
	}
	if after == 0 {
		return time.Time{}
	}
	return now.Add(after)
}

func replaceSecret(m *mount, key string, next *secret, entries uint64) *change {
	return &change{entries: entries, apply: func(*state) { m.secrets[key] = next }}
}

func (c *call) by(operation string) *attribution {
	return &attribution{Actor: c.token.display, EntityID: c.token.entity, ClientID: c.token.accessor, Operation: operation}
}

// gone says that a version cannot be read. At the very instant of its deletion
// it cannot either: on a simulated clock nothing lies between the two.
func (v *version) gone(now time.Time) bool {
	return v.destroyed || !v.deletion.IsZero() && !v.deletion.After(now)
}

func (s *secret) clone() *secret {
	n := *s
	n.versions = maps.Clone(s.versions)
	return &n
}

// versionInfo is the metadata block of one version.
func (s *secret) versionInfo(n uint64) map[string]any {
	v := s.versions[n]
	return map[string]any{
		"version": n, "created_time": stamp(v.created), "deletion_time": stamp(v.deletion),
		"destroyed": v.destroyed, "custom_metadata": s.customOrNil(),
	}
}

func (s *secret) customOrNil() any {
	if len(s.custom) == 0 {
		return nil
	}
	return s.custom
}

// stamp prints a time as Vault does; empty for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// mergePatch applies an RFC 7396 merge patch to target.
func mergePatch(target map[string]any, patch map[string]any) map[string]any {
	out := maps.Clone(target)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			inner, _ := out[k].(map[string]any)
			out[k] = mergePatch(inner, v)
		default:
			out[k] = v
		}
	}
	return out
}
