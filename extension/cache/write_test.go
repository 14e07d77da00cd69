package cache

import (
	"context"
	"strings"
	"testing"
)

func TestWritesEvictWhatTheyCanChange(t *testing.T) {
	t.Parallel()
	keys := []Key{
		{Path: "secret/data/a/b"}, {Path: "secret/data/a/b", Query: "version=1"}, {Path: "secret/metadata/a/b"}, {Path: "secret/subkeys/a/b"},
		{Path: "secret/metadata", Op: List}, {Path: "secret/metadata/a", Op: List}, {Path: "secret/data/other"}, {Path: "secret/metadata/other"},
		{Path: "kv/a/b"}, {Path: "kv/a", Op: List}, {Path: "kv", Op: List}, {Path: "kv/c"}, {Namespace: "ns", Path: "secret/data/a/b"},
	}
	// The same path in a namespace goes too: community servers ignore the header.
	v2all := "ns/secret/data/a/b secret/data/a/b secret/data/a/b?version=1 secret/metadata/a/b secret/subkeys/a/b secret/metadata/ secret/metadata/a/"
	cases := []struct {
		namespace, path string
		evicts          string
	}{
		{"", "secret/data/a/b", v2all},
		{"", "secret/metadata/a/b", v2all},
		{"", "secret/delete/a/b", v2all},
		{"", "secret/undelete/a/b", v2all},
		{"", "secret/destroy/a/b", v2all},
		{"", "secret/data/a/b/", v2all},
		{"", "secret/data/x/../a/b", v2all},
		{"", "secret//data/a/b", v2all},
		{"ns", "secret/data/a/b", v2all},
		{"", "ns/secret/data/a/b", "ns/secret/data/a/b"},
		{"", "kv/a/b", "kv/a/b kv/a/ kv/"},
		{"", "transit/encrypt/a", ""},
		{"", "sys/mounts/secret", "all"},
		{"", "sys/remount", "all"},
	}
	for _, c := range cases {
		w := newWorld(t)
		for _, k := range keys {
			p := joined(k.Namespace, k.Path)
			if k.Op == List {
				p += "/"
			}
			if k.Query != "" {
				p += "?" + k.Query
			}
			w.origin.put(p, v2("x", 1, ""))
			w.load(k, "")
		}
		write := NewWrite(c.namespace, c.path)
		w.BeginWrite(write)
		w.EndWrite(write)
		var gone []string
		for _, k := range keys {
			if w.state(k, "") == Absent {
				p := joined(k.Namespace, k.Path)
				if k.Op == List {
					p += "/"
				}
				if k.Query != "" {
					p += "?" + k.Query
				}
				gone = append(gone, p)
			}
		}
		want := strings.Fields(c.evicts)
		if c.evicts == "all" {
			if len(gone) != len(keys) {
				t.Errorf("write %s: evicted only %v", c.path, gone)
			}
			continue
		}
		left := map[string]bool{}
		for _, g := range gone {
			left[g] = true
		}
		for _, p := range want {
			if !left[p] {
				t.Errorf("write %q %s: %s stays", c.namespace, c.path, p)
			}
			delete(left, p)
		}
		if len(left) > 0 {
			t.Errorf("write %q %s: evicted %v besides", c.namespace, c.path, left)
		}
	}
}

func TestAFillDuringAWriteIsNotStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("old", 1, ""))
	hold := make(chan struct{})
	w.origin.hold["secret/data/a"] = hold
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.Own()})
	}()
	<-w.origin.arrived
	write := NewWrite("", "secret/data/a")
	w.BeginWrite(write)
	w.EndWrite(write)
	close(hold)
	<-done
	w.expect(key("secret/data/a"), "", Absent, "")
}

func TestAReadAfterAWriteSharesNoReadFromBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.origin.put("secret/data/a", v2("old", 1, ""))
	hold := make(chan struct{})
	w.origin.hold["secret/data/a"] = hold
	go w.Load(context.Background(), Want{Key: key("secret/data/a"), ID: w.Own()})
	<-w.origin.arrived
	write := NewWrite("", "secret/data/a")
	w.BeginWrite(write)
	w.origin.put("secret/data/a", v2("new", 2, ""))
	w.EndWrite(write)
	w.origin.mu.Lock()
	delete(w.origin.hold, "secret/data/a")
	w.origin.mu.Unlock()
	a := w.load(key("secret/data/a"), "")
	close(hold)
	if !strings.Contains(string(a.Body), "new") || a.Shared {
		t.Fatalf("got %s, shared %v", a.Body, a.Shared)
	}
}

// TestAMountThatChangesIsNotLearnedAsItWas: the question which mount a path is on
// was on its way when the mount was replaced.
func TestAMountThatChangesIsNotLearnedAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	preflight := key(preflightPrefix + "secret/data/a")
	w.origin.put(preflight.Path, `{"data":{"path":"secret/","type":"kv","options":{"version":"1"}}}`)
	hold := make(chan struct{})
	w.origin.mu.Lock()
	w.origin.hold[preflight.Path] = hold
	w.origin.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.load(preflight, "")
	}()
	<-w.origin.arrived
	change := NewWrite("", "sys/mounts/secret")
	w.BeginWrite(change)
	w.EndWrite(change)
	close(hold)
	<-done
	if m, known := w.Knows("", "secret/data/a"); known {
		t.Errorf("learned %+v", m)
	}
}
