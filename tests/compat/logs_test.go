package compat

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// contains fails the test if text lacks one of the parts.
func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

// lacks fails the test if text has one of the parts.
func lacks(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%q in:\n%s", part, text)
		}
	}
}

// logs is what a process writes, line by line.
type logs struct {
	mu      sync.Mutex
	buf     bytes.Buffer  // guarded by mu
	changed chan struct{} // guarded by mu; closed and replaced at each write
}

func newLogs() *logs { return &logs{changed: make(chan struct{})} }

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(b)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(b), nil
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// await waits for a whole line that holds part, and returns it.
func (l *logs) await(t testing.TB, part string, proc *harness.Process) string {
	t.Helper()
	timeout := time.After(patience)
	var ended <-chan struct{}
	if proc != nil {
		ended = proc.Done()
	}
	for last := false; ; {
		l.mu.Lock()
		text, changed := l.buf.String(), l.changed
		l.mu.Unlock()
		for line := range strings.Lines(text) {
			if strings.HasSuffix(line, "\n") && strings.Contains(line, part) {
				return line
			}
		}
		if last {
			t.Fatalf("the process ended without %q:\n%s", part, text)
		}
		select {
		case <-changed:
		case <-ended:
			last = true
		case <-timeout:
			t.Fatalf("waited %v in vain for %q in:\n%s", patience, part, text)
		}
	}
}

// lines is how many lines hold part.
func (l *logs) lines(part string) int {
	n := 0
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
