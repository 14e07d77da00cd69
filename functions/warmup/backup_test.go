package warmup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
	"github.com/thaw-project/thaw/extension/queue"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

func sealerOf(t testing.TB, b byte) Sealer {
	t.Helper()
	ring, err := envelope.NewKeyring([envelope.KeySize]byte(bytes.Repeat([]byte{b}, envelope.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	return ring.Audience("prod")
}

// backUp has the audiences of o backed up.
func backUp(t testing.TB, o *Options, file string, key byte) {
	for i := range o.Audiences {
		o.Audiences[i].Sealer = sealerOf(t, key)
	}
	o.Backup = &Backup{Place: Files{}, Name: file, Every: time.Minute}
}

// TestABackupIsRestoredIntoAnEmptyTierWhileTheOriginIsAway is the promise of
// PROACTIVE_CACHE_DUMP_INTERVAL.
func TestABackupIsRestoredIntoAnEmptyTierWhileTheOriginIsAway(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const n = 150
	for i := range n {
		s.put(fmt.Sprintf("app/%03d", i), "hunter2")
	}
	file := filepath.Join(t.TempDir(), "a", "dump")
	with := func(key byte) func(*Options) {
		return func(o *Options) {
			o.Backoff = nil
			backUp(t, o, file, key)
		}
	}
	s.run(s.warmer(with(1), "secret/"), Order{})
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, text := range []string{"hunter2", "app/", "secret"} {
		if bytes.Contains(raw, []byte(text)) {
			t.Errorf("the backup shows %q", text)
		}
	}
	before := s.tier.Entries(t.Context(), []cache.Key{{Path: "secret/data/app/007"}})
	s.server.Close()
	away := func(tier *memory, key byte) Summary {
		s.tier = tier
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(spare+300*time.Millisecond))
		defer cancel()
		return s.warmer(with(key), "secret/").Run(ctx, Order{})
	}
	// Another key opens nothing.
	if sum := away(newMemory(t), 2); sum.Complete || len(s.tier.records) != 0 {
		t.Errorf("%d records by another key, %+v", len(s.tier.records), sum)
	}
	sum := away(newMemory(t), 1)
	if sum.Complete || s.tier.secrets() != n {
		t.Fatalf("%d secrets, %+v", s.tier.secrets(), sum)
	}
	for k, was := range before {
		r := s.tier.records[k]
		if !r.SentAt.Equal(was.SentAt) || !r.FetchedAt.Equal(was.FetchedAt) || string(r.Body) != string(was.Body) || r.Index.Applied != was.Index.Applied {
			t.Errorf("%+v came back as %+v", was, r)
		}
	}
	// A tier that is not empty is left alone.
	full := newMemory(t)
	full.PutState(t.Context(), stateName, record{Full: time.Now().Add(-2 * time.Hour)}, time.Hour)
	if away(full, 1); len(full.records) != 0 {
		t.Errorf("%d records restored over a tier that has a state", len(full.records))
	}
}

// counted is an Origin that says which request is under way.
type counted struct {
	Origin
	n      int
	before func(n int)
}

func (c *counted) Ask(ctx context.Context, method, namespace, path string) (*http.Response, error) {
	c.n++
	c.before(c.n)
	return c.Origin.Ask(ctx, method, namespace, path)
}

// TestABackupIsRestoredBeforeTheWaitForTheOrigin: functions need it now, and the
// wait may last as long as the run, for every audience.
func TestABackupIsRestoredBeforeTheWaitForTheOrigin(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const n = 3
	for i := range n {
		s.put(fmt.Sprintf("app/%d", i), "v")
	}
	file := filepath.Join(t.TempDir(), "dump")
	second := newMemory(t)
	with := func(o *Options) {
		o.Backoff, o.Workers = nil, 1
		o.Audiences = append(o.Audiences, second.audience("test", "secret/"))
		backUp(t, o, file, 1)
	}
	s.run(s.warmer(with, "secret/"), Order{})
	s.server.Close()
	s.tier, second = newMemory(t), newMemory(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looked := false
	w := s.warmer(func(o *Options) {
		with(o)
		o.Asker, o.Origin = well{}, &counted{Origin: o.Origin, before: func(request int) {
			if request == 1 {
				return
			}
			looked = true
			if s.tier.secrets() != n || second.secrets() != n {
				t.Errorf("request %d: %d and %d secrets are restored", request, s.tier.secrets(), second.secrets())
			}
			cancel()
		}}
	}, "secret/")
	if sum := w.Run(ctx, Order{}); sum.Complete || !looked {
		t.Errorf("asked again: %v, %+v", looked, sum)
	}
}

// well says at once that the origin answers again.
type well struct{ reticent }

func (well) Health(context.Context) (vault.Health, error) {
	return vault.Health{Initialized: true, Status: http.StatusOK}, nil
}

// slowPlace is a Place that reads nothing until its time is over.
type slowPlace struct {
	Place
	begun   chan struct{}
	once    sync.Once
	running atomic.Int64
}

func (p *slowPlace) Read(ctx context.Context, _ string) (io.ReadCloser, error) {
	p.running.Add(1)
	defer p.running.Add(-1)
	p.once.Do(func() { close(p.begun) })
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestNoPassEndsBeforeItsRestoring: that is of the audiences whose turn comes next, too.
func TestNoPassEndsBeforeItsRestoring(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.put("app/a", "v")
	s.put("app/b", "v")
	place := &slowPlace{begun: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), spare+time.Second)
	defer cancel()
	w := s.warmer(func(o *Options) {
		o.Backoff, o.Workers = nil, 2
		o.Audiences = append(o.Audiences, newMemory(t).audience("test", "secret/"))
		backUp(t, o, "", 1)
		o.Backup.Place = place
		o.Origin = &answering{Origin: o.Origin, answer: func(path string) (*http.Response, error) {
			switch path {
			case "secret/data/app/a":
				return nil, &vault.Error{Op: path, Err: errors.New("no answer"), Kind: vault.Unreachable}
			case "secret/data/app/b":
				<-place.begun
				return nil, backoff.ErrGivenUp
			}
			if place.running.Load() > 0 {
				t.Errorf("%s is asked for while the restoring runs", path)
			}
			return nil, nil
		}}
	}, "secret/")
	w.Run(ctx, Order{})
	select {
	case <-place.begun:
	default:
		t.Error("nothing was restored")
	}
}

// answering is an Origin that answers some paths itself.
type answering struct {
	Origin
	answer func(path string) (*http.Response, error)
}

func (a *answering) Ask(ctx context.Context, method, namespace, path string) (*http.Response, error) {
	if res, err := a.answer(path); res != nil || err != nil {
		return res, err
	}
	return a.Origin.Ask(ctx, method, namespace, path)
}

// limited is an Origin whose first request of a kind our own limits end.
type limited struct {
	Origin
	what string
	once sync.Once
}

func (l *limited) limit(what string) (err error) {
	if what == l.what {
		l.once.Do(func() { err = &vault.Error{Op: what, Err: queue.Limit("used up"), Kind: vault.Limited} })
	}
	return err
}

func (l *limited) Ready(ctx context.Context) error {
	if err := l.limit("login"); err != nil {
		return err
	}
	return l.Origin.Ready(ctx)
}

func (l *limited) Ask(ctx context.Context, method, namespace, path string) (*http.Response, error) {
	if err := l.limit(method); err != nil {
		return nil, err
	}
	return l.Origin.Ask(ctx, method, namespace, path)
}

// TestOurOwnLimitsAreNoOutage: a backup, which may be hours old, is not restored, the
// log speaks of no outage, and the run is complete.
func TestOurOwnLimitsAreNoOutage(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"login", "LIST", http.MethodGet} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.put("app/a", "old")
			file := filepath.Join(t.TempDir(), "dump")
			s.run(s.warmer(func(o *Options) { backUp(t, o, file, 1) }, "secret/"), Order{})
			s.tier = newMemory(t)
			var said bytes.Buffer
			l := &limited{what: what}
			sum := s.run(s.warmer(func(o *Options) {
				l.Origin = o.Origin
				backUp(t, o, file, 1)
				o.Origin, o.Log = l, slog.New(slog.NewTextHandler(&said, nil))
			}, "secret/"), Order{})
			met := true
			l.once.Do(func() { met = false })
			if !sum.Complete || !met || strings.Contains(said.String(), "restored") || strings.Contains(said.String(), "does not answer") {
				t.Errorf("%+v, met %v; the log:\n%s", sum, met, said.String())
			}
		})
	}
}

func TestABackupThatWasTamperedWithIsNotRestored(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 130 {
		s.put(fmt.Sprintf("app/%03d", i), "v")
	}
	file := filepath.Join(t.TempDir(), "dump")
	s.run(s.warmer(func(o *Options) { backUp(t, o, file, 1) }, "secret/"), Order{})
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	a := s.tier.audience("prod", "secret/")
	a.Sealer = sealerOf(t, 1)
	read := func(raw []byte) (keys map[cache.Key]bool, err error) {
		keys = map[cache.Key]bool{}
		err = readBackup(bytes.NewReader(raw), &a, func(rs []element) bool {
			for _, r := range rs {
				keys[r.Key] = true
			}
			return true
		})
		return keys, err
	}
	whole, err := read(raw)
	if err != nil || len(whole) < 130 {
		t.Fatalf("%d, %v", len(whole), err)
	}
	for i := 0; i < len(raw); i += 1 + len(raw)/997 {
		bad := bytes.Clone(raw)
		bad[i] ^= 0x41
		if got, err := read(bad); err == nil {
			t.Fatalf("byte %d changed: %d records, no error", i, len(got))
		}
		if got, _ := read(raw[:i]); len(got) >= len(whole) {
			t.Fatalf("cut at %d: %d records", i, len(got))
		}
	}
	other := s.tier.audience("test", "secret/")
	other.Sealer = a.Sealer
	if err := readBackup(bytes.NewReader(raw), &other, func([]element) bool { return true }); !errors.Is(err, errNotBackup) {
		t.Errorf("another audience: %v", err)
	}
}

func FuzzReadBackup(f *testing.F) {
	a := &Audience{Sealer: sealerOf(f, 1)}
	f.Add([]byte(backupMagic + strings.Repeat("i", backupID)))
	f.Add([]byte(backupMagic + strings.Repeat("i", backupID) + "\x00\x00\x00\x01x"))
	f.Add([]byte(backupMagic + strings.Repeat("i", backupID) + "\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := 0
		_ = readBackup(bytes.NewReader(raw), a, func(part []element) bool {
			n += len(part)
			t.Error("a part that nobody sealed")
			return true
		})
		if n != 0 {
			t.Errorf("%d entries", n)
		}
	})
}
