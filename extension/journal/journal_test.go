package journal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/journal"
	"github.com/thaw-project/thaw/extension/rescue"
)

// book is a log, what it wrote, and its clock.
type book struct {
	*slog.Logger
	text strings.Builder
	now  time.Time
}

func open(level slog.Level) *book {
	b := &book{now: time.Unix(1_795_248_117, 0)}
	b.Logger = journal.New(&b.text, false, level, func() time.Time { return b.now })
	return b
}

// lines are what was written since the last call.
func (b *book) lines(t *testing.T) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(b.text.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	b.text.Reset()
	return all
}

func TestDurationsAreSeconds(t *testing.T) {
	t.Parallel()
	b := open(config.LevelTrace)
	b.Info("a", "ttl", time.Hour, "retry_after_seconds", 1500*time.Millisecond)
	b.With("limit", 20*time.Millisecond).Log(t.Context(), config.LevelTrace, "b", slog.Group("of", "took", time.Second))
	got := fmt.Sprint(b.lines(t))
	for _, want := range []string{"ttl_seconds:3600", "retry_after_seconds:1.5", "limit_seconds:0.02", "took_seconds:1", "level:TRACE"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in %s", want, got)
		}
	}
}

// TestWarningsAreBounded: one a minute for a message, path and status, twenty in
// all, and the number of those left out is told.
func TestWarningsAreBounded(t *testing.T) {
	t.Parallel()
	b := open(slog.LevelInfo)
	for range 100 {
		b.Warn("refused", "path", "a", "status", 403, "vault", "x")
		b.With("path", "b").Warn("refused", "status", 403)
		b.Warn("refused", "path", "a", "status", 429)
	}
	if got := b.lines(t); len(got) != 3 {
		t.Errorf("%d lines, want 3: %v", len(got), got)
	}
	for i := range 100 {
		b.Warn("refused", "path", i, "status", 403)
	}
	if got := b.lines(t); len(got) != 17 || got[0]["not_logged"] != 297.0 {
		t.Errorf("%d more lines, want 17: %v", len(got), got)
	}
	b.Error("grave")
	b.Info("usual")
	if got := b.lines(t); len(got) != 2 {
		t.Errorf("other levels are bounded, too: %v", got)
	}
	b.now = b.now.Add(time.Minute + time.Second)
	b.Warn("refused", "path", "a", "status", 403)
	if got := b.lines(t); len(got) != 1 || got[0]["not_logged"] != 83.0 {
		t.Errorf("%v, want one line that tells of 83", got)
	}
}

// TestTheLastTroublesAreKept, those that were left out as well.
func TestTheLastTroublesAreKept(t *testing.T) {
	t.Parallel()
	b := open(slog.LevelError)
	for i := range 12 {
		b.Warn("w", "path", i, "error", errors.New("why"))
	}
	b.now = b.now.Add(time.Second)
	for range 3 {
		b.With("path", 5).Warn("w")
	}
	got := journal.Of(b.Logger)
	if len(got) != 8 || got[0].What != "w, path: 5" || got[0].Count != 4 || !got[0].At.Equal(b.now) || got[1].What != "w, path: 11, error: why" || got[1].Count != 1 {
		t.Errorf("%+v", got)
	}
	if journal.Of(slog.New(slog.DiscardHandler)) != nil {
		t.Error("another handler has some")
	}
}

// TestAPanicHasItsStack, and not its value.
func TestAPanicHasItsStack(t *testing.T) {
	t.Parallel()
	b := open(slog.LevelInfo)
	if rescue.Do(b.Logger, "work", func() { panic("planted-value") }) || !rescue.Do(b.Logger, "work", func() {}) {
		t.Error("told wrong")
	}
	b.Warn("later", "error", fmt.Errorf("read: %w", rescue.Recovered(errors.New("planted-value"))))
	for _, l := range b.lines(t) {
		stack, _ := l["stack"].(string)
		if text := fmt.Sprint(l); !strings.Contains(stack, "journal_test.go") || strings.Contains(text, "planted") || !strings.Contains(text, "an internal error") {
			t.Errorf("%v", l)
		}
	}
}

func TestTheLevelCanChange(t *testing.T) {
	t.Parallel()
	b := open(slog.LevelInfo)
	with := b.With("a", 1)
	journal.SetLevel(b.Logger, slog.LevelDebug)
	with.Debug("x")
	journal.SetLevel(b.Logger, config.LevelOff)
	with.Error("y")
	journal.SetLevel(slog.New(slog.DiscardHandler), slog.LevelDebug)
	if got := b.lines(t); len(got) != 1 || got[0]["msg"] != "x" {
		t.Errorf("%v", got)
	}
}
