// Package journal is the handler of thaw's log. It writes JSON, or text to a
// person at a terminal, and keeps to three rules:
//
//   - A duration is a number of seconds, under a name that ends in _seconds.
//   - Of WARN lines with the same message, path and status one is written in a
//     minute, and of all together twenty. How many were left out stands in the next
//     one, as not_logged.
//   - The last lines from WARN up are remembered, for `thaw status`.
package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/rescue"
)

const (
	linesAMinute = 20
	troublesKept = 8
)

// Trouble is a line from WARN up, as it was last logged or left out.
type Trouble struct {
	At    time.Time `json:"at"` // the last time
	What  string    `json:"what"`
	Count uint64    `json:"count"` // how often
	key   string
}

// Handler is the handler. All that With makes of one share its limits.
type Handler struct {
	slog.Handler
	*memory
	attrs []slog.Attr // of With
}

// memory is what the handlers of one log share.
type memory struct {
	now   func() time.Time
	level slog.LevelVar

	mu       sync.Mutex           // guards the fields below
	troubles []Trouble            // the last one last
	logged   map[string]time.Time // when each WARN line of the last minute was, by its key
	left     uint64               // WARN lines left out since the last one
}

// New returns a log that writes to w what has the level or a graver one. text says
// that a person reads it; now is the wall clock.
func New(w io.Writer, text bool, level slog.Level, now func() time.Time) *slog.Logger {
	m := &memory{now: now, logged: make(map[string]time.Time)}
	m.level.Set(level)
	o := &slog.HandlerOptions{Level: &m.level, ReplaceAttr: replace}
	h := &Handler{Handler: slog.NewJSONHandler(w, o), memory: m}
	if text {
		h.Handler = slog.NewTextHandler(w, o)
	}
	return slog.New(h)
}

// SetLevel changes the least level that a log writes, where it has this handler.
func SetLevel(log *slog.Logger, level slog.Level) {
	if h, ok := log.Handler().(*Handler); ok {
		h.level.Set(level)
	}
}

// Of returns the last lines from WARN up that a log had, the latest first; none
// where its handler is another.
func Of(log *slog.Logger) []Trouble {
	h, ok := log.Handler().(*Handler)
	if !ok {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Clone(h.troubles)
	slices.Reverse(out)
	return out
}

// replace names config's own level, and makes durations seconds.
func replace(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Resolve(); {
	case a.Key == slog.LevelKey:
		if l, ok := v.Any().(slog.Level); ok && l == config.LevelTrace {
			a.Value = slog.StringValue("TRACE")
		}
	case v.Kind() == slog.KindAny:
		if err, ok := v.Any().(error); ok {
			if panicked, ok := errors.AsType[*rescue.Error](err); ok {
				return slog.Group("", slog.String(a.Key, err.Error()), slog.String("stack", string(panicked.Stack)))
			}
		}
	case v.Kind() == slog.KindDuration:
		return slog.Float64(strings.TrimSuffix(a.Key, "_seconds")+"_seconds", v.Duration().Seconds())
	}
	return a
}

// Enabled implements slog.Handler: what is not written may be remembered.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.Handler.Handle(ctx, r)
	}
	left, ok := h.note(&r, h.attrs, h.Handler.Enabled(ctx, r.Level))
	if !ok {
		return nil
	}
	if left > 0 {
		r.AddAttrs(slog.Uint64("not_logged", left))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.Handler.WithAttrs(attrs), h.memory, append(slices.Clip(h.attrs), attrs...)}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.Handler.WithGroup(name), h.memory, h.attrs}
}

// note remembers a line, and reports whether it is to be written, which enabled
// says of its level, and how many were not since the last one.
func (m *memory) note(r *slog.Record, attrs []slog.Attr, enabled bool) (left uint64, ok bool) {
	t := Trouble{What: r.Message, key: r.Message}
	each := func(a slog.Attr) bool {
		if a.Key == "path" || a.Key == "status" {
			t.key += "\x00" + a.Value.String()
		}
		t.What += fmt.Sprintf(", %s: %v", a.Key, a.Value)
		return true
	}
	for _, a := range attrs {
		each(a)
	}
	r.Attrs(each)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if i := slices.IndexFunc(m.troubles, func(o Trouble) bool { return o.key == t.key }); i >= 0 {
		t.Count = m.troubles[i].Count
		m.troubles = slices.Delete(m.troubles, i, i+1)
	}
	t.At, t.Count = now.UTC(), t.Count+1
	m.troubles = append(m.troubles[max(0, len(m.troubles)-troublesKept+1):], t)
	if r.Level > slog.LevelWarn || !enabled {
		return 0, enabled
	}
	maps.DeleteFunc(m.logged, func(_ string, at time.Time) bool { return !clock.Within(at, now, time.Minute) })
	if _, said := m.logged[t.key]; said || len(m.logged) >= linesAMinute {
		m.left++
		return 0, false
	}
	m.logged[t.key] = now
	left, m.left = m.left, 0
	return left, true
}
