package cache

import (
	"fmt"
	"testing"
	"time"
)

func TestG7AnIdentitysNamespacesAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Bytes = 16 << 20 })
	in := func(n int, path string) Key { return Key{Namespace: fmt.Sprint("n", n), Path: path} }
	for i := range maxNamespaces + 1 {
		w.origin.put(fmt.Sprintf("n%d/secret/data/a", i), "one")
		w.origin.put(fmt.Sprintf("n%d/secret/data/b", i), "two")
	}
	for i := range maxNamespaces {
		w.load(in(i, "secret/data/a"), "")
		w.load(in(i, "secret/data/b"), "")
		w.clock.add(time.Microsecond)
	}
	w.load(in(1, "secret/data/b"), "bob") // who keeps it from going
	w.load(in(0, "secret/data/a"), "")    // so 1 is the one not confirmed for the longest time
	w.load(in(maxNamespaces, "secret/data/a"), "")
	for n, want := range map[int]State{0: Fresh, 1: Absent, 2: Fresh, maxNamespaces: Fresh} {
		w.expect(in(n, "secret/data/a"), "", want, "")
	}
	w.expect(in(1, "secret/data/b"), "", Absent, "")
	w.Learned(w.Caller("bob"), Token{})
	w.expect(in(1, "secret/data/b"), "bob", Fresh, "two")
	due, _ := w.Due(w.Own(), w.clock.add(time.Hour))
	if len(due) != maxNamespaces {
		t.Errorf("%d namespaces", len(due))
	}
	w.Own().Reset()
	w.Forget("bob")
	if n := w.Counters(); n.Bytes != 0 || n.Entries != 0 || len(w.Own().namespaces) != 0 {
		t.Errorf("%d bytes, %d entries, %d namespaces when all are forgotten", n.Bytes, n.Entries, len(w.Own().namespaces))
	}
}

// A namespace in which nothing is due costs no call.
func TestOnlyNamespacesWithARightThatIsDueAreConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, p := range []string{"early/secret/data/a", "early/secret/data/b", "late/secret/data/a"} {
		w.origin.put(p, "one")
	}
	w.load(Key{Namespace: "early", Path: "secret/data/a"}, "")
	w.clock.add(4 * time.Minute)
	w.load(Key{Namespace: "early", Path: "secret/data/b"}, "")
	w.load(Key{Namespace: "late", Path: "secret/data/a"}, "")
	due, _ := w.Due(w.Own(), w.clock.add(2*time.Minute))
	if len(due) != 1 || len(due["early"]) != 2 || due["early"][0].Path != "secret/data/a" {
		t.Errorf("due: %v; want both rights of the one namespace, the one that is due first", due)
	}
}
