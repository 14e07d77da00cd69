package faults

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"time"
)

// Bounds that are measured (G7).
const (
	goroutines = 120                              // of an instance at rest, with its connections
	longest    = 3*clientTimeout + 10*time.Second // that a function waits
)

// check7Now measures what is under way. It is called when all that can run has
// come to rest.
func (w *world) check7Now() {
	for _, x := range w.slots[:w.setup.Instances] {
		if n := int(x.flying.Load()); n > maxInFlight {
			w.h.broke(fmt.Sprintf("G7: %d requests at the origin at a time", n))
		}
	}
}

// watcher takes what an instance writes and looks for secrets in it.
type watcher struct {
	w    *world
	what string
}

func (o watcher) Write(p []byte) (int, error) {
	o.w.check5(o.what, p)
	if bytes.Contains(p, []byte("memcached node is out")) { // an answer was too slow for this instance
		o.w.missed()
	}
	return len(p), nil
}

// check5 looks for secrets and tokens (G5).
func (w *world) check5(where string, text []byte) {
	if bytes.Contains(text, []byte("hvs.")) || bytes.Contains(text, []byte("hvb.")) {
		w.h.broke(fmt.Sprintf("G5: a token in %s: %.300q", where, text))
	}
	w.check5Secret(where, text)
}

// check5Sent looks at what an instance sends to memcached. A token's prefix is
// too short to tell it from chance there.
func (w *world) check5Sent(sent []byte) { w.check5Secret("what goes to memcached", sent) }

func (w *world) check5Secret(where string, text []byte) {
	for _, s := range append(disguises(mark), w.secretID[:]...) {
		if bytes.Contains(text, []byte(s)) {
			w.h.broke(fmt.Sprintf("G5: a secret in %s: %.300q", where, text))
			return
		}
	}
}

// check5Memcached looks at all that memcached holds.
func (w *world) check5Memcached() {
	for _, s := range append(disguises(mark), w.secretID[:]...) {
		if w.cache.Holds(s) {
			w.h.broke("G5: memcached holds a secret")
		}
	}
}

// disguises are how a text looks as it is and within base64, wherever it
// begins.
func disguises(s string) []string {
	out := []string{s}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), s...))
		out = append(out, text[(shift*8+5)/6:len(text)-4])
	}
	return out
}
