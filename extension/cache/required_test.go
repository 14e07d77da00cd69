package cache

import (
	"context"
	"sync"
	"testing"
)

// counted requires states that are single digits.
type counted struct {
	mu       sync.Mutex
	required string // guarded by mu; of the extension's own identity
}

func (c *counted) require(state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.required = state
}

func (c *counted) Required(id *Identity) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id.Own() {
		return c.required
	}
	return ""
}

func (c *counted) options(o *Options) {
	o.Required, o.Covers = c.Required, func(readAt, required string) bool { return readAt >= required }
}

func TestAnEntryAnswersOnlyWhoRequiresNoMoreThanItsReadDid(t *testing.T) {
	t.Parallel()
	state := &counted{}
	w := newWorld(t, state.options)
	w.origin.put("secret/data/a", "x")
	key := Key{Path: "secret/data/a"}
	state.require("1")
	if _, err := w.Load(t.Context(), Want{Key: key, ID: w.Own()}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		required string
		want     State
	}{{"", Fresh}, {"1", Fresh}, {"2", Absent}, {"1", Fresh}} {
		state.require(tt.required)
		if got := w.look(key, "", w.clock.now()).State; got != tt.want {
			t.Errorf("read at 1, required %q: %v, want %v", tt.required, got, tt.want)
		}
	}
	// The same answer, read at less, is still what was read at more.
	state.require("2")
	if _, err := w.Load(t.Context(), Want{Key: key, ID: w.Own()}); err != nil {
		t.Fatal(err)
	}
	w.clock.add(1)
	state.require("")
	if _, err := w.Load(t.Context(), Want{Key: key, ID: w.Own()}); err != nil {
		t.Fatal(err)
	}
	state.require("2")
	if got := w.look(key, "", w.clock.now()).State; got != Fresh {
		t.Errorf("read at 2 and then, the same, at nothing: %v", got)
	}
}

func TestAReadThatRequiresLessIsNotShared(t *testing.T) {
	t.Parallel()
	state := &counted{}
	w := newWorld(t, state.options)
	w.origin.put("secret/data/a", "x")
	hold := make(chan struct{})
	w.origin.hold["secret/data/a"] = hold
	load := func() chan Answer {
		done := make(chan Answer, 1)
		go func() {
			a, _ := w.Load(context.WithoutCancel(t.Context()), Want{Key: Key{Path: "secret/data/a"}, ID: w.Own()})
			done <- a
		}()
		return done
	}
	state.require("1")
	one := load()
	<-w.origin.arrived
	state.require("2") // another instance wrote
	two := load()
	<-w.origin.arrived // it asks by itself
	close(hold)
	if a := <-one; a.Shared {
		t.Error("the first read is not its own")
	}
	if a := <-two; a.Shared {
		t.Error("a read that requires 2 shared one that required 1")
	}
}

// A node that lags answers 412 also where it is asked which mount a path is on.
func TestA412SaysNothingOfAMount(t *testing.T) {
	t.Parallel()
	w := baoWorld(t, new(counted).options)
	w.origin.put("kv/a", "x")
	w.origin.answer("sys/internal/ui/mounts/kv/a", trouble(412))
	if a := w.load(key("kv/a"), ""); a.Stored {
		t.Fatal("stored without knowing the mount")
	}
	w.origin.answer("sys/internal/ui/mounts/kv/a", nil)
	if a := w.load(key("kv/a"), ""); !a.Stored {
		t.Error("a 412 was taken for the answer that this is no KV mount")
	}
}
