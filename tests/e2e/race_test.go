package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/origin"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestG1CursorProvesNothingFalseInAnAimedRace aims at the gap in Vault between
// the append of a write to the raft log and its application:
//
//	writer:  request ── append ─────────── apply ── answer
//	reader:                    anchor, read             poll: "nothing changed"?
//
// Each round writes once or several times at once, now and then a large value,
// which takes long to apply. Meanwhile readers, each an instance of its own made
// of the product's parts, take an anchor and read: half of them at random
// moments, half as soon as they see the gap. When the writes have been answered
// they poll. What a poll proves must be what was written.
//
// The control judges the same answers by the rule that looks right and is not:
// raft_committed_index compared with itself. It shows that the race is hit.
func TestG1CursorProvesNothingFalseInAnAimedRace(t *testing.T) {
	t.Parallel()
	aim(t, "", 1000)
}

// TestG1NodeIDsProveNothingFalseInAnAimedRace is the same where answers name their
// node.
func TestG1NodeIDsProveNothingFalseInAnAimedRace(t *testing.T) {
	t.Parallel()
	aim(t, "enable_response_header_raft_node_id = true", 300)
}

// aim runs the race at a Vault with more in its configuration.
func aim(t *testing.T, extra string, want int) {
	if *long {
		want *= 20
	}
	r := newRace(t, extra)
	deadline := time.Now().Add(time.Duration(want) * 200 * time.Millisecond)
	rounds := 0
	for time.Now().Before(deadline) && (r.right.proofs < want || len(r.control.judge()) == 0) {
		harness.Must(t, r.round(t.Context(), rounds))
		rounds++
	}
	right, control := r.right.judge(), r.control.judge()
	t.Logf("%d rounds of %v each, %d reads, %d of them in a gap between append and apply: the product's rule gave %d proofs, %d of them false; the control %d, %d of them false",
		rounds, r.took.Round(100*time.Microsecond), r.reads, r.gaps.Load(), r.right.proofs, len(right), r.control.proofs, len(control))
	for _, v := range right[:min(len(right), 5)] {
		t.Errorf("false proof: %v", v)
	}
	if l, err := r.client.Leader(t.Context()); err != nil || (l.Node == "") != (extra == "") {
		t.Errorf("sys/leader names the node %q: %v", l.Node, err)
	}
	if r.right.proofs < want {
		t.Errorf("only %d proofs: the promise is about %d", r.right.proofs, want)
	}
	if len(control) == 0 {
		t.Error("the control gave no false proof: this run did not hit the gap between append and apply")
	}
}

// rule is a way to compare cursors, with what it proved.
type rule struct {
	checker *Checker
	proofs  int // guarded by race.mu while readers run
}

func (u *rule) judge() []Verdict { return u.checker.Judge().Failures() }

// asked hands the cursor's questions on and keeps the answers.
type asked struct {
	cursor.Asker
	answers []vault.Leader // of one instance, which asks one after the other
}

// Leader implements cursor.Asker.
func (a *asked) Leader(ctx context.Context) (vault.Leader, error) {
	l, err := a.Asker.Leader(ctx)
	a.answers = append(a.answers, l)
	return l, err
}

// committedWithCommitted is the wrong rule: nothing was appended between the
// anchor and the poll, so nothing changed.
func (a *asked) committedWithCommitted() bool {
	first, last := a.answers[0], a.answers[len(a.answers)-1]
	return len(a.answers) > 1 && first.IsSelf && last.IsSelf && first.ActiveTime == last.ActiveTime && first.Committed == last.Committed
}

// race is a Vault with some secrets that are written and read at once.
type race struct {
	*site
	client *vault.Client
	tokens *auth.Manager
	random *rand.Rand
	pad    string
	took   time.Duration // of a round's writes, smoothed
	gaps   atomic.Int64

	mu             sync.Mutex
	right, control rule // proofs guarded by mu
	reads          int  // guarded by mu
}

// Sizes of a round.
const (
	raceTargets = 4
	raceReaders = 6
)

func newRace(t *testing.T, extra string) *race {
	t.Helper()
	r := &race{site: uncachedSite(t, extra), random: rand.New(rand.NewPCG(7, 7)), took: 5 * time.Millisecond}
	r.pad = strings.Repeat("x", 400<<10)
	r.right.checker, r.control.checker = NewChecker(), NewChecker()
	var err error
	// The leader's own address: who answers is not what this test is about.
	r.client, err = vault.New(vault.Options{Config: config.Config{Addrs: []string{r.vault.Addr()}, MaxInFlight: 256}})
	harness.Must(t, err)
	t.Cleanup(r.client.Close)
	r.tokens, err = auth.New(auth.Options{Config: config.Config{Auth: config.Auth{Method: config.AuthToken, Token: config.Secret(r.vault.RootToken())}}, Origin: r.client})
	harness.Must(t, err)
	for n := range raceTargets {
		harness.Must(t, r.write(t.Context(), target(n), ""))
	}
	return r
}

// target is the API path of a secret: KV v1 and v2 in turn.
func target(n int) string {
	n %= raceTargets
	if n%2 == 0 {
		return fmt.Sprintf("kv/race/%d", n)
	}
	return fmt.Sprintf("secret/data/race/%d", n)
}

// write writes a new value and tells both checkers.
func (r *race) write(ctx context.Context, path, pad string) error {
	value := secret()
	body := any(map[string]any{"password": value, "pad": pad})
	if strings.HasPrefix(path, "secret/") {
		body = map[string]any{"data": body}
	}
	begin := time.Now()
	if _, err := r.vault.Root(ctx, http.MethodPost, path, body); err != nil {
		return err
	}
	end := time.Now()
	r.right.checker.Wrote(path, value, begin, end)
	r.control.checker.Wrote(path, value, begin, end)
	return nil
}

// round is one burst of writes with readers in its midst.
func (r *race) round(ctx context.Context, n int) error {
	var writers, readers sync.WaitGroup
	errs := make([]error, raceTargets+raceReaders)
	over := make(chan struct{})
	began := time.Now()
	writes, pad := 1+r.random.IntN(raceTargets-1), ""
	if n%raceTargets == 0 { // one entry of KV v1 that takes long to apply
		writes, pad = 1, r.pad
	}
	for i := range writes {
		writers.Go(func() { errs[i] = r.write(ctx, target(n+i), pad) })
	}
	for i := range raceReaders {
		wait := time.Duration(r.random.Float64() * 1.2 * float64(r.took))
		path := target(n + r.random.IntN(writes))
		aimed := i%2 == 0
		readers.Go(func() {
			harness.Pause(ctx, wait)
			if aimed {
				r.gaps.Add(r.awaitGap(ctx, over))
			}
			errs[raceTargets+i] = r.prove(ctx, path, over)
		})
	}
	writers.Wait()
	r.took = (7*r.took + time.Since(began)) / 8
	close(over)
	readers.Wait()
	return errors.Join(errs...)
}

// awaitGap returns when something is appended and not yet applied, or when the
// writes are over. It counts gaps seen.
func (r *race) awaitGap(ctx context.Context, over <-chan struct{}) int64 {
	for {
		select {
		case <-over:
			return 0
		default:
		}
		if l, err := r.client.Leader(ctx); err != nil || l.Committed > l.Applied {
			return 1
		}
	}
}

// prove reads with an instance of the product's parts, and polls when the
// writes are over.
func (r *race) prove(ctx context.Context, path string, over <-chan struct{}) error {
	log := slog.New(slog.DiscardHandler)
	asker := &asked{Asker: r.client}
	cursor := cursor.New(asker, nil, 5*time.Second, log, time.Now)
	defer cursor.Close()
	own := cache.NewOwn()
	session := origin.New(origin.Options{Client: r.client, Tokens: r.tokens, Cursor: cursor, Own: own, Shared: true}) // the read waits for an index
	store := cache.New(cache.Options{
		Origin: session, Own: own, Bytes: 1 << 20, Recheck: time.Minute, StaleIfError: time.Hour, RefreshInterval: time.Hour,
		Mounts: []cache.Mount{{Path: "kv", Version: 1}, {Path: "secret", Version: 2}},
	})
	defer store.Close()
	poller := poll.New(poll.Options{
		Cache: store, Cursor: cursor, Permissions: poll.NewPermissions(store, session, nil, log, time.Now),
		Timeout: 10 * time.Second, Connect: time.Second, Recheck: time.Minute, Concurrency: 1, Log: log, Now: time.Now,
	})
	defer poller.Close()

	key := cache.Key{Path: path}
	first, err := store.Load(ctx, cache.Want{Key: key, ID: own})
	if err != nil {
		return err
	}
	<-over
	invoked := time.Now()
	poller.Invoke(invoked)
	poller.Over(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	polled := time.Now()
	hit := store.Lookup(key, own, false, polled)
	if hit.State != cache.Fresh {
		return fmt.Errorf("%s is in state %d after a poll, want it fresh: %w", path, hit.State, hit.Err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	note := func(u *rule, how string, body []byte) {
		value := answer{Response: &harness.Response{Body: body}}.value()
		u.checker.Read(Read{Resource: path, Answer: value, From: invoked, To: polled, Note: how})
	}
	if hit.ByIndex {
		r.right.proofs++
		note(&r.right, "proven by the cursor", hit.Entry.Body)
	} else {
		note(&r.right, "read again by the poll", hit.Entry.Body)
	}
	if asker.committedWithCommitted() {
		r.control.proofs++
		note(&r.control, "committed compared with committed", first.Body)
	}
	return nil
}
