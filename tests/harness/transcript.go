package harness

import (
	"strings"
	"sync"
)

// Transcript keeps all that is written to it. It may be written by several,
// and be read meanwhile. The zero value is ready to use.
type Transcript struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Write implements io.Writer.
func (t *Transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

// String is what was written so far.
func (t *Transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// Tail is the last n bytes, or fewer.
func (t *Transcript) Tail(n int) string {
	s := t.String()
	return s[max(0, len(s)-n):]
}
