package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// world is a Vault with objects that many write and read at once.
type world struct {
	*site
	checker *Checker
	objects []*object
	tokens  []string // of callers who may read; "" is the extension's own
	denied  string   // token of a caller who may read nothing
	began   time.Time

	mu      sync.Mutex
	current map[*object]int // guarded by mu; the latest version

	// Counts, for the report.
	writes, ownWrites                               atomic.Int64
	invocations, freezes, frozenFor                 atomic.Int64 // frozenFor in nanoseconds
	midway, cuts, resets                            atomic.Int64
	reads, hits, proven, stale, refused, nonePassed atomic.Int64
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{site: newSite(t), checker: NewChecker(), current: map[*object]int{}, began: time.Now()}
	for _, folder := range []string{"a", "b/c"} {
		for n := range 4 {
			w.objects = append(w.objects, &object{mount: "secret", folder: folder, name: fmt.Sprint("s", n)})
		}
		for n := range 3 {
			w.objects = append(w.objects, &object{mount: "kv", folder: folder, name: fmt.Sprint("s", n)})
		}
	}
	for n := range 2 {
		w.objects = append(w.objects,
			&object{mount: "secret", folder: "race", name: fmt.Sprint("r", n), race: true},
			&object{mount: "kv", folder: "race", name: fmt.Sprint("r", n), race: true})
	}
	w.tokens = []string{"", "",
		w.token(harness.TokenSpec{Policies: []string{"app"}, TTL: time.Hour}),
		w.token(harness.TokenSpec{Policies: []string{"app"}, TTL: time.Hour, Batch: true})}
	w.denied = w.token(harness.TokenSpec{Policies: []string{"default"}, TTL: time.Hour})
	random := rand.New(rand.NewPCG(1, 1))
	for _, o := range w.objects {
		harness.Must(t, w.first(t.Context(), o, random))
	}
	return w
}

// first gives an object its first value.
func (w *world) first(ctx context.Context, o *object, random *rand.Rand) error {
	if o.race {
		_, _, err := w.change(ctx, o, random, w.root)
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	data := map[string]any{"password": secret()}
	body := any(data)
	if o.v2() {
		body = map[string]any{"data": data}
	}
	begin := time.Now()
	if err := submit(ctx, write{http.MethodPost, o.data(), body}, w.root); err != nil {
		return err
	}
	return w.look(ctx, o, begin, time.Now())
}

// root asks Vault itself, as root.
func (w *world) root(ctx context.Context, c harness.Call) (*harness.Response, error) {
	c.Token = w.vault.RootToken()
	return w.vault.Do(ctx, c)
}

// calm reports whether it is one of the times in which nobody writes: there the
// cursor stands still and proves what is cached.
func (w *world) calm() bool {
	cycle := 3 * time.Second
	if *long {
		cycle = 20 * time.Second // some freezes fit in
	}
	return time.Since(w.began)%cycle > cycle/2
}

// rotate writes at Vault in bursts with pauses between, until stop ends.
func (w *world) rotate(ctx context.Context, stop <-chan struct{}, random *rand.Rand) error {
	for {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
		for range random.IntN(6) {
			if w.calm() {
				break
			}
			if _, _, err := w.change(ctx, pick(random, w.objects), random, w.root); err != nil {
				return err
			}
		}
		harness.Pause(ctx, time.Duration(random.ExpFloat64()*float64(60*time.Millisecond)))
	}
}

// soaker is one environment of the soak test.
type soaker struct {
	*environment
	w       *world
	counter *harness.Counter
	index   int
	random  *rand.Rand
	outages bool          // cut the origin off now and then, crash the function
	maxAge  time.Duration // THAW_MAX_AGE

	mu    sync.Mutex
	wrote map[*object]time.Time // guarded by mu; when the last write of its own ended
}

// kinds are the settings of the soak's environments, by turns.
func kinds() []harness.Settings {
	return []harness.Settings{
		{},
		{"THAW_POLL": "read"},
		{"THAW_MAX_AGE": "300ms"},
		{"THAW_CACHE_BYTES": "16KiB", "THAW_POLL_CONCURRENCY": "2"}, // less than is read
		{"THAW_KV_MOUNTS": "secret=2,kv=1", "VAULT_LOG_LEVEL": "INFO"},
	}
}

// freezeTime draws how long a freeze lasts: up to 3s, evenly in the long run;
// else mostly short.
func (s *soaker) freezeTime() time.Duration {
	if *long || s.random.IntN(14) == 0 {
		return time.Duration(s.random.Int64N(int64(3 * time.Second)))
	}
	return time.Duration(s.random.Int64N(int64(50 * time.Millisecond)))
}

// phase is an invocation as its reads are judged by it.
type phase struct {
	invoked time.Time // what was written before this must not be served old
	cut     bool      // the origin cannot be reached
	midway  time.Duration
}

// excused reports whether answers may be marked stale: the origin is away, or
// the process was away for longer than a poll may take.
func (p phase) excused() bool { return p.cut || p.midway > time.Second }

// cycle is a freeze and an invocation, and what befalls them.
func (s *soaker) cycle(ctx context.Context) error {
	if s.random.IntN(8) > 0 { // Lambda does not always freeze
		d := s.freezeTime()
		if err := s.Freeze(); err != nil {
			return err
		}
		s.w.freezes.Add(1)
		s.w.frozenFor.Add(int64(d))
		harness.Pause(ctx, d)
	}
	p := phase{cut: s.outages && s.random.IntN(25) == 0}
	if s.random.IntN(15) == 0 {
		p.midway = s.freezeTime()
	}
	if p.cut {
		s.counter.Cut()
		s.w.cuts.Add(1)
	}
	p.invoked = time.Now()
	err := s.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error { return s.body(ctx, p) })
	s.w.invocations.Add(1)
	if p.cut {
		err = errors.Join(err, s.counter.Mend())
	}
	if err == nil && s.outages && s.random.IntN(60) == 0 {
		s.w.resets.Add(1)
		if s.random.IntN(2) == 0 {
			_, err = s.Crash(ctx)
		} else {
			_, err = s.Timeout(ctx)
		}
	}
	return err
}

// body is what the function does: some goroutines that read, write through the
// proxy, and read what they wrote.
func (s *soaker) body(ctx context.Context, p phase) error {
	if s.random.IntN(12) == 0 {
		return nil // the poll is frozen with the process
	}
	workers := 1 + s.random.IntN(3)
	errs, steps := make([]error, 3), make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		random := rand.New(rand.NewPCG(s.random.Uint64(), 0))
		wg.Go(func() {
			for range 1 + random.IntN(6) {
				if steps[i] = s.step(ctx, random, p); steps[i] != nil {
					return
				}
			}
		})
	}
	if p.midway > 0 { // wherever its requests are
		s.w.midway.Add(1)
		errs[0] = s.FreezeNow()
		harness.Pause(ctx, p.midway)
		errs[1] = s.Thaw()
	}
	wg.Wait()
	if s.random.IntN(30) == 0 { // longer than THAW_RECHECK
		harness.Pause(ctx, recheck+recheck/10)
		errs[2] = s.step(ctx, s.random, p)
	}
	return errors.Join(append(errs, steps...)...)
}

// recheck is THAW_RECHECK's default.
const recheck = time.Second

// step is one read, or a write and then a read.
func (s *soaker) step(ctx context.Context, random *rand.Rand, p phase) error {
	o := pick(random, s.w.objects)
	if odds := 9; !p.cut && (random.IntN(odds) == 0 && !s.w.calm() || random.IntN(20*odds) == 0) {
		if err := s.writeThrough(ctx, o, random); err != nil {
			return fmt.Errorf("write through the proxy: %w", err)
		}
	}
	if random.IntN(20) == 0 {
		return s.readDenied(ctx, o, p)
	}
	return s.read(ctx, o, random, p)
}

// writeThrough changes an object through the proxy, and notes when: from then
// on this environment must not serve what was before.
func (s *soaker) writeThrough(ctx context.Context, o *object, random *rand.Rand) error {
	token := pick(random, s.w.tokens)
	_, end, err := s.w.change(ctx, o, random, func(ctx context.Context, c harness.Call) (*harness.Response, error) {
		c.Token = token
		a := s.send(ctx, c)
		return a.Response, a.Err
	})
	if err != nil {
		return err
	}
	s.w.ownWrites.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrote[o].Before(end) {
		s.wrote[o] = end
	}
	return nil
}

// readDenied reads with a token that may not: no cached answer of others is
// for it, whatever became of the origin.
func (s *soaker) readDenied(ctx context.Context, o *object, p phase) error {
	a := s.getAs(ctx, o.data(), s.w.denied)
	if a.Err != nil || a.Status == http.StatusOK || !p.cut && a.Status != http.StatusForbidden {
		return fmt.Errorf("a caller without permission got %d %.200s for %s: %w", a.Status, a.Body, o.data(), a.Err)
	}
	s.w.nonePassed.Add(1)
	return nil
}

// read reads one resource of an object, and records what was answered.
func (s *soaker) read(ctx context.Context, o *object, random *rand.Rand, p phase) error {
	c := harness.Call{Method: http.MethodGet, Path: o.data(), Token: pick(random, s.w.tokens)}
	list := !o.race && random.IntN(6) == 0
	switch {
	case list && random.IntN(2) == 0:
		c.Method, c.Path = "LIST", o.listing()
	case list:
		c.Path = o.listing() + "?list=true"
	case !o.race && random.IntN(2) == 0: // the secret itself as often as all else together
		c.Path = pick(random, o.views())
	}
	s.mu.Lock()
	wrote := maps.Clone(s.wrote)
	s.mu.Unlock()
	a := s.send(ctx, c)
	s.count(a)
	if a.Err != nil || a.own() != "" || a.Status >= 500 {
		s.w.refused.Add(1)
		if p.cut {
			return nil // nothing cached to fall back to
		}
		return fmt.Errorf("%s %s: %d %.300s: %w", c.Method, c.Path, a.Status, a.Body, a.Err)
	}
	record := func(o *object, resource, got string) {
		// THAW_RECHECK bounds the age of a verification within an invocation.
		from := slices.MaxFunc([]time.Time{p.invoked.Add(-s.maxAge), wrote[o], a.Begun.Add(-recheck - s.maxAge)}, time.Time.Compare)
		s.w.checker.Read(Read{
			Resource: resource, Answer: got, From: from, To: a.Ended, Marked: a.stale(), CutOff: p.excused(),
			Note: fmt.Sprintf("environment %d, %s %s, %s, Age %s", s.index, c.Method, c.Path, a.cacheStatus(), a.Header.Get("Age")),
		})
	}
	switch {
	case list:
		names, err := members(a.Response)
		if err != nil {
			return err
		}
		for _, other := range s.w.folderOf(o) {
			record(other, other.member(), fmt.Sprint(names[other.name]))
		}
	case o.race:
		record(o, o.resource(), valueOf(a.Response))
	default:
		record(o, c.Path, canonical(a.Status, a.Body))
	}
	return nil
}

func (s *soaker) count(a answer) {
	s.w.reads.Add(1)
	switch status := a.cacheStatus(); {
	case a.stale():
		s.w.stale.Add(1)
	case strings.Contains(status, "verified=cursor"):
		s.w.hits.Add(1)
		s.w.proven.Add(1)
	case strings.Contains(status, "; hit"):
		s.w.hits.Add(1)
	}
}
