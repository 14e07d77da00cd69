package cache

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// Write is a change of what is at a path: a write through the proxy, or one of
// which the origin notified us.
type Write struct {
	namespace string
	path      string   // cleaned, without slashes at either end
	all       bool     // what it can change cannot be told from its path
	paths     []target // what it can change
}

// target is one KV resource: a path as it stands, or a KV v2 key of a mount.
type target struct {
	prefix string // mount of a KV v2 key; empty for a plain path
	rest   string
}

// NewWrite describes a write to an API path (decoded, without /v1/).
func NewWrite(namespace, apiPath string) *Write {
	w := &Write{namespace: namespace, path: strings.Trim(path.Clean("/"+apiPath), "/")}
	// A mount table or storage that changes may change anything.
	for _, p := range [...]string{"sys/mounts", "sys/remount", "sys/namespaces", "sys/raw", "sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force", "sys/replication"} {
		if w.path == p || hasPathPrefix(w.path, p) || strings.Contains("/"+w.path+"/", "/"+p+"/") {
			w.all = true
		}
	}
	w.paths = targets(joined(namespace, w.path))
	if namespace != "" {
		// Community servers ignore the namespace header.
		w.paths = append(w.paths, targets(w.path)...)
	}
	return w
}

// targets are what a path may name. No mount's path is longer than a namespace and a path
// that are cached.
func targets(p string) []target {
	out := []target{{rest: p}}
	for i := 1; i < min(len(p), 2*maxPath+1); i++ {
		if p[i] != '/' {
			continue
		}
		kind, rest, _ := strings.Cut(p[i+1:], "/")
		switch kind {
		case "data", "metadata", "subkeys", "delete", "undelete", "destroy", "detailed-metadata":
			out = append(out, target{prefix: p[:i], rest: rest})
		}
	}
	return out
}

// affects reports whether the write can change what key answers: the path
// itself, the lists above it, and for KV v2 the data, versions, metadata and
// subkeys of the key and the lists above it.
func (w *Write) affects(k Key) bool {
	if w.all {
		return true
	}
	if w.affectsPath(k, k.Path) {
		return true
	}
	return k.Namespace != "" && w.affectsPath(k, joined(k.Namespace, k.Path))
}

func (w *Write) affectsPath(k Key, p string) bool {
	for _, t := range w.paths {
		if t.prefix == "" {
			if p == t.rest || k.Op == List && hasPathPrefix(t.rest, p) {
				return true
			}
			continue
		}
		if !hasPathPrefix(p, t.prefix) {
			continue
		}
		kind, rest, _ := strings.Cut(p[len(t.prefix)+1:], "/")
		switch kind {
		case "data", "metadata", "subkeys", "detailed-metadata":
			if rest == t.rest || k.Op == List && (rest == "" || hasPathPrefix(t.rest, rest)) {
				return true
			}
		}
	}
	return false
}

// names are the last segments that the paths may have of what w affects, unless that is
// all: what is on w's path, and what KV v2 puts before a key, or without one in its place.
func (w *Write) names() []string {
	path := joined(w.namespace, w.path)
	names := append(strings.Split(path[:min(len(path), 3*maxPath)], "/"), "data", "metadata", "subkeys", "detailed-metadata")
	slices.Sort(names)
	return slices.Compact(names)
}

// hasPathPrefix reports whether p lies below prefix.
func hasPathPrefix(p, prefix string) bool {
	return len(p) > len(prefix) && p[:len(prefix)] == prefix && p[len(prefix)] == '/'
}

// keys adds the keys whose answers w can change to those there are, as far as its path
// tells them, with so many versions of each, until there are most.
func (w *Write) keys(all map[Key]bool, versions, most int) {
	add := func(path string, op Op) {
		if path != "" && len(path) <= maxPath && len(all) < most {
			all[Key{Namespace: w.namespace, Path: path, Op: op}] = true
		}
	}
	for _, t := range w.paths {
		above := ""
		if t.prefix == "" {
			add(t.rest, Read)
		} else {
			above = t.prefix + "/metadata/"
			add(t.prefix+"/metadata", List)
			for kind := Data; kind <= Subkeys; kind++ {
				path := t.prefix + "/" + kind.segment() + "/" + t.rest
				add(path, Read)
				for n := 1; n <= versions && kind != Metadata; n++ {
					all[Key{Namespace: w.namespace, Path: path, Query: "version=" + strconv.Itoa(n)}] = true
				}
			}
		}
		for p := parent(t.rest); p != "" && len(all) < most; p = parent(p) {
			if len(above)+len(p) <= maxPath {
				add(above+p, List)
			}
		}
	}
}

// parent is the path above p; empty: there is none.
func parent(p string) string { return p[:max(0, strings.LastIndexByte(p, '/'))] }
