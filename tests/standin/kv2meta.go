package standin

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// planMetadata is metadata/: settings and history of a secret, and the lists.
func (c *call) planMetadata(m *mount, key string) (answer, *change) {
	if c.op == opRead || c.op == opDelete {
		key = strings.TrimSuffix(key, "/") // Vault finds it with a slash behind it too
	}
	sec := m.secrets[key]
	switch c.op {
	case opList:
		keys := listKeys(m.secrets, key)
		if skip, _ := strconv.ParseBool(c.text("exclude_deleted")); skip {
			var live []string
			for _, k := range keys {
				if s := m.secrets[key+k]; s != nil {
					if v := s.versions[s.current]; v != nil && !v.deletion.IsZero() {
						continue
					}
				}
				live = append(live, k)
			}
			keys = live
		}
		return c.list(m.kind, keys), nil
	case opScan:
		return c.list(m.kind, c.keysBelow(m, key)), nil
	case opRead:
		if sec == nil {
			return notFound(), nil
		}
		return c.ok(m.kind, sec.metadata()), nil
	case opCreate, opUpdate:
		if key == "" {
			return invalid("missing path"), nil
		}
		if sec == nil {
			sec = &secret{created: c.now, updated: c.now, versions: map[uint64]*version{}}
		}
		return c.setMetadata(m, key, sec)
	case opPatch:
		if sec == nil {
			return answer{status: http.StatusNotFound}, nil
		}
		return c.setMetadata(m, key, sec)
	case opDelete:
		if sec == nil {
			return noContent, nil
		}
		entries := uint64(len(sec.versions) + 1)
		return noContent, &change{entries: entries, apply: func(*state) { delete(m.secrets, key) }}
	}
	return unsupported(), nil
}

// planDetailed is a list, or a recursive one, of detailed-metadata: the keys, and of
// each secret what a read of its metadata answers
// (https://openbao.org/api-docs/secret/kv/kv-v2/#list-secrets).
func (c *call) planDetailed(m *mount, folder string) answer {
	keys := c.keysBelow(m, folder)
	if len(keys) == 0 {
		return notFound()
	}
	info := map[string]any{}
	for _, k := range keys {
		if sec := m.secrets[folder+k]; sec != nil {
			info[k] = sec.metadata()
		}
	}
	return c.ok(m.kind, map[string]any{"keys": keys, "key_info": info})
}

// keysBelow is what a list or a recursive one gives of a folder.
func (c *call) keysBelow(m *mount, folder string) []string {
	if c.op == opList {
		return listKeys(m.secrets, folder)
	}
	var keys []string
	for name := range m.secrets {
		if below, ok := strings.CutPrefix(name, folder); ok {
			keys = append(keys, below)
		}
	}
	slices.Sort(keys)
	return keys
}

// metadata is the body of a metadata read.
func (s *secret) metadata() map[string]any {
	versions := map[string]any{}
	for n, v := range s.versions {
		versions[strconv.FormatUint(n, 10)] = map[string]any{
			"created_time": stamp(v.created), "deletion_time": stamp(v.deletion), "destroyed": v.destroyed,
			"created_by": v.createdBy, "deleted_by": v.deletedBy,
		}
	}
	return map[string]any{
		"versions": versions, "current_version": s.current, "oldest_version": s.oldest,
		"created_time": stamp(s.created), "updated_time": stamp(s.updated), "max_versions": s.maxVersions,
		"cas_required": s.casRequired, "delete_version_after": s.deleteVersionAfter.String(),
		"custom_metadata": s.customOrNil(), "last_updated_by": s.updatedBy,
	}
}

// setMetadata changes the settings the body names; a patch merges
// custom_metadata, a write replaces it.
func (c *call) setMetadata(m *mount, key string, sec *secret) (answer, *change) {
	next := sec.clone()
	if n, ok, err := c.number("max_versions"); err != nil {
		return invalid(err.Error()), nil
	} else if ok {
		next.maxVersions = uint64(max(n, 0))
	}
	if v, ok := c.body["cas_required"].(bool); ok {
		next.casRequired = v
	}
	if d, ok, err := c.seconds("delete_version_after"); err != nil {
		return invalid(err.Error()), nil
	} else if ok {
		next.deleteVersionAfter = d
	}
	if v, ok := c.body["custom_metadata"]; ok {
		given, isMap := v.(map[string]any)
		if !isMap && v != nil {
			return invalid(fmt.Sprintf("error converting input for field \"custom_metadata\": '' expected a map, got '%T'", v)), nil
		}
		custom := map[string]string{}
		if c.op == opPatch && v != nil {
			maps.Copy(custom, sec.custom)
		}
		for k, v := range given {
			if v == nil && c.op == opPatch {
				delete(custom, k)
				continue
			}
			s, problem := customValue(k, v)
			if problem != "" {
				return invalid(problem), nil
			}
			custom[k] = s
		}
		next.custom = custom
	} else if len(c.body) == 0 {
		return noContent, nil
	}
	return noContent, replaceSecret(m, key, next, 1)
}

// customValue checks one entry of custom_metadata by Vault's limits, and says
// what is wrong with it in Vault's words; empty: nothing.
func customValue(key string, v any) (value, problem string) {
	s, ok := v.(string)
	if !ok {
		s, ok = plainText(v)
	}
	if b, isBool := v.(bool); isBool {
		s, ok = map[bool]string{true: "1", false: "0"}[b], true
	}
	const one = "1 error occurred:\n\t* custom_metadata validation failed: %s\n\n"
	switch {
	case !ok:
		return "", fmt.Sprintf("custom_metadata validation failed: '[%s]' expected type 'string', got unconvertible type '%T'", key, v)
	case len(key) == 0 || len(key) > 128:
		return "", fmt.Sprintf(one, fmt.Sprintf("length of key %q is %d but must be 0 < len(key) <= 128", key, len(key)))
	case len(s) == 0 || len(s) > 512:
		return "", fmt.Sprintf(one, fmt.Sprintf("length of value for key %q is %d but must be 0 < len(value) <= 512", key, len(s)))
	}
	return s, ""
}

// planSubkeys is subkeys/: the structure of a secret with null for values.
func (c *call) planSubkeys(m *mount, key string) answer {
	depth, _, err := c.number("depth")
	if err != nil {
		return invalid(err.Error())
	}
	sec := m.secrets[key]
	v, n, a := c.versionAsked(sec, "subkeys")
	if a != nil {
		return *a
	}
	if v.data == nil {
		return c.ok(m.kind, map[string]any{"subkeys": nil, "metadata": sec.versionInfo(n)})
	}
	return c.ok(m.kind, map[string]any{"subkeys": blank(v.data, int(depth), 1), "metadata": sec.versionInfo(n)})
}

// blank keeps the keys and drops the values; depth 0 is no limit.
func blank(in map[string]any, depth, level int) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		if inner, ok := v.(map[string]any); ok && len(inner) > 0 && (depth == 0 || level < depth) {
			out[k] = blank(inner, depth, level+1)
		} else {
			out[k] = nil
		}
	}
	return out
}

// planVersions is delete/, undelete/ and destroy/: one of them for a list of versions.
func (c *call) planVersions(m *mount, area, key string) (answer, *change) {
	numbers, err := c.numbers("versions")
	if err != nil {
		return invalid(err.Error()), nil
	}
	if len(numbers) == 0 {
		if area == "destroy" {
			return invalid("no version number provided"), nil
		}
		return invalid("No version number provided"), nil
	}
	sec := m.secrets[key]
	if sec == nil {
		return noContent, nil
	}
	next := sec.clone()
	who := c.by(string(c.op))
	entries := uint64(1)
	for _, n := range numbers {
		v := next.versions[n]
		if v == nil || v.destroyed {
			continue
		}
		nv := *v
		switch area {
		case "delete":
			if v.gone(c.now) {
				continue
			}
			nv.deletion, nv.deletedBy = c.now, who
		case "undelete":
			nv.deletion, nv.deletedBy = m.deletionFor(c.now, sec), nil
		case "destroy":
			nv.destroyed, nv.data = true, nil
			entries++
		}
		next.versions[n] = &nv
	}
	switch area {
	case "delete":
		next.updatedBy = who
	case "undelete":
		next.updatedBy = c.by("undelete")
	}
	return noContent, replaceSecret(m, key, next, entries)
}

// planKV2Config is config: the settings of the mount.
func (c *call) planKV2Config(m *mount) (answer, *change) {
	switch c.op {
	case opRead:
		return c.ok(m.kind, map[string]any{
			"max_versions": m.config.maxVersions, "cas_required": m.config.casRequired,
			"delete_version_after": m.config.deleteVersionAfter.String(),
		}), nil
	case opCreate, opUpdate:
		next := m.config
		if n, ok, err := c.number("max_versions"); err != nil {
			return invalid(err.Error()), nil
		} else if ok {
			next.maxVersions = uint64(max(n, 0))
		}
		if v, ok := c.body["cas_required"].(bool); ok {
			next.casRequired = v
		}
		if d, ok, err := c.seconds("delete_version_after"); err != nil {
			return invalid(err.Error()), nil
		} else if ok {
			next.deleteVersionAfter = d
			if d < 0 {
				next.deleteVersionAfter = -1e9
			}
		}
		return noContent, &change{entries: 1, apply: func(*state) { m.config = next }}
	}
	return unsupported(), nil
}

// kvVersion is the version that a mount's options ask for.
func kvVersion(options map[string]any) (int, bool) {
	s, _ := plainText(options["version"])
	switch strings.TrimSpace(s) {
	case "", "1":
		return 1, true
	case "2":
		return 2, true
	}
	return 0, false
}
