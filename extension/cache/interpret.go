package cache

import (
	"net/http"
	"strconv"
)

// Interpret makes a record of the origin's answer to key, as a cache that read
// it would store it: for the warm-up, which knows what it asked and keeps no
// cache. mount is the KV mount that key is on; for the mounts preflight it is
// not looked at. ok is false for whatever must not be cached, and for answers
// that something in between gave, since those verify nothing.
func Interpret(key Key, mount Mount, a Answer, anchor Anchor) (r Record, ok bool) {
	if a.Status != http.StatusOK || !isJSON(a.Header) || a.Header.Get("Age") != "" || a.Header.Get("X-Cache") == "HIT" {
		return Record{}, false
	}
	s, ok := parseShape(a.Body)
	if !ok || !isNull(s.WrapInfo) || !isNull(s.Auth) || s.LeaseID != "" {
		return Record{}, false
	}
	e := newEntry(key, &a)
	e.Anchor = anchor
	if mounted, preflight := preflightPath(key.Path); preflight {
		m, ok := ParseMount(key.Namespace, a.Body)
		if !ok || m.Version == 0 || mounted != m.Path && !hasPathPrefix(mounted, m.Path) {
			return Record{}, false
		}
		// Left without an anchor: the mount table is cached after it is stored.
		e.Key.Path, e.Kind, e.Anchor = preflightPrefix+m.Path, Preflight, Anchor{}
	} else if mount.Version > 0 && (key.Path == mount.Path || hasPathPrefix(key.Path, mount.Path)) {
		e.Kind = kindOf(key, mount, true, s)
	}
	switch e.Kind {
	case Other:
		return Record{}, false
	case Data, Subkeys:
		e.Version = s.version
		if !s.deletion.IsZero() {
			if !a.SentAt.Before(s.deletion) {
				return Record{}, false
			}
			e.Expires = s.deletion
		}
	}
	return (&slot{entry: e, mark: Mark{At: a.SentAt}}).record(), true
}

// ResourceKeys lists the keys that can hold something of one secret: what a
// write to apiPath can change, and its versions from 1 to versions. apiPath is
// a path of the API or, without its data/ segment, of the command line: then
// every segment may be the last of the mount's path.
func ResourceKeys(namespace, apiPath string, versions int) []Key {
	seen := make(map[Key]bool)
	var out []Key
	add := func(k Key) {
		if !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	paths := []string{apiPath}
	for i := range len(apiPath) {
		if apiPath[i] == '/' && i > 0 && i < len(apiPath)-1 {
			paths = append(paths, apiPath[:i]+"/data"+apiPath[i:])
		}
	}
	for _, p := range paths {
		w := NewWrite(namespace, p)
		for _, k := range w.sharedKeys(nil) {
			add(k)
			if k.Op == Read && versions > 0 && w.versioned(k) {
				for n := 1; n <= versions; n++ {
					v := k
					v.Query = "version=" + strconv.Itoa(n)
					add(v)
				}
			}
		}
	}
	return out
}

// versioned reports whether k is the data or the subkeys of a KV v2 secret.
func (w *Write) versioned(k Key) bool {
	for _, t := range w.paths {
		if t.prefix != "" && (k.Path == t.prefix+"/data/"+t.rest || k.Path == t.prefix+"/subkeys/"+t.rest) {
			return true
		}
	}
	return false
}
