package coalesce

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/rescue"
)

const limit = 10 * time.Second

// freezer is a clock that freezes add to.
type freezer struct{ frozen atomic.Int64 }

func (f *freezer) now() time.Time         { return time.Now().Add(time.Duration(f.frozen.Load())) }
func (f *freezer) freeze(d time.Duration) { f.frozen.Add(int64(d)) }

// result is what a caller got.
type result struct {
	v    int
	mine bool
	err  error
}

// ask has a caller ask, and gives its result once it is back.
func ask(ctx context.Context, g *Group[string, int], key string, work func(context.Context) (int, error)) <-chan result {
	c := make(chan result, 1)
	go func() {
		v, mine, err := g.Do(ctx, key, work)
		c <- result{v, mine, err}
	}()
	synctest.Wait()
	return c
}

// blocked is work that ends when it is told to, or its context ends.
type blocked struct {
	calls atomic.Int32
	end   chan result
}

func newBlocked() *blocked { return &blocked{end: make(chan result)} }

func (b *blocked) work(ctx context.Context) (int, error) {
	b.calls.Add(1)
	select {
	case r := <-b.end:
		return r.v, r.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func want(t *testing.T, who string, got <-chan result, v int, mine bool, err error) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-got:
		if r.v != v || r.mine != mine || !errors.Is(r.err, err) {
			t.Errorf("%s got %+v, wanted %d, %v, %v", who, r, v, mine, err)
		}
	default:
		t.Errorf("%s still waits", who)
	}
}

func waits(t *testing.T, who string, got <-chan result) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-got:
		t.Errorf("%s did not wait: %+v", who, r)
	default:
	}
}

// run is a test with a group of its own, in a bubble, after which nothing is
// left running or held.
func run(t *testing.T, name string, o Options[int], f func(t *testing.T, g *Group[string, int])) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := New[string](o)
			f(t, g)
			if err := g.Close(t.Context()); err != nil {
				t.Error(err)
			}
			for key, c := range g.calls {
				if !c.over {
					t.Errorf("the call of %s is held", key)
				}
			}
		})
	})
}

func TestOneAsksAndTheOthersWait(t *testing.T) {
	t.Parallel()
	failure := errors.New("no")
	for name, r := range map[string]result{"a value": {v: 7}, "an error": {err: failure}, "both": {7, false, failure}} {
		run(t, name, Options[int]{Limit: limit}, func(t *testing.T, g *Group[string, int]) {
			b, other := newBlocked(), newBlocked()
			first, second := ask(t.Context(), g, "a", b.work), ask(t.Context(), g, "a", b.work)
			third := ask(t.Context(), g, "b", other.work)
			b.end <- r
			want(t, "the first", first, r.v, true, r.err)
			want(t, "the second", second, r.v, false, r.err)
			waits(t, "who asks for something else", third)
			other.end <- result{v: 8}
			want(t, "the third", third, 8, true, nil)
			if n := b.calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
			again := ask(t.Context(), g, "a", func(context.Context) (int, error) { return 9, nil })
			want(t, "who comes afterwards", again, 9, true, nil)
		})
	}
}

func TestACallerWhoLeavesFailsNobody(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	run(t, "the first", Options[int]{Limit: limit}, func(t *testing.T, g *Group[string, int]) {
		type key struct{}
		ctx, leave := context.WithCancelCause(context.WithValue(t.Context(), key{}, "kept"))
		b := newBlocked()
		first := ask(ctx, g, "a", func(ctx context.Context) (int, error) {
			if ctx.Value(key{}) != "kept" {
				t.Error("the context's values are lost")
			}
			return b.work(ctx)
		})
		second := ask(t.Context(), g, "a", b.work)
		leave(gone)
		want(t, "who left", first, 0, true, gone)
		waits(t, "who stayed", second)
		b.end <- result{v: 7}
		want(t, "who stayed", second, 7, false, nil)
	})
	run(t, "all", Options[int]{Limit: limit}, func(t *testing.T, g *Group[string, int]) {
		ctx, leave := context.WithCancel(t.Context())
		b := newBlocked()
		first := ask(ctx, g, "a", b.work)
		leave()
		want(t, "who left", first, 0, true, context.Canceled)
		second := ask(t.Context(), g, "a", b.work)
		b.end <- result{v: 7}
		want(t, "who came", second, 7, false, nil)
	})
}

func TestACallNobodyWaitsForIsCancelled(t *testing.T) {
	t.Parallel()
	o := Options[int]{Limit: limit, CancelUnwanted: true}
	run(t, "with the last caller", o, func(t *testing.T, g *Group[string, int]) {
		ctx, leave := context.WithCancel(t.Context())
		b, next := newBlocked(), newBlocked()
		first, second := ask(ctx, g, "a", b.work), ask(ctx, g, "a", b.work)
		third, leaveLast := context.WithCancel(t.Context())
		last := ask(third, g, "a", b.work)
		leave()
		want(t, "the first", first, 0, true, context.Canceled)
		want(t, "the second", second, 0, false, context.Canceled)
		call := g.Running("a")
		if call == nil {
			t.Fatal("it ended although one waits")
		}
		leaveLast()
		want(t, "the last", last, 0, false, context.Canceled)
		<-call.Done()
		again := ask(t.Context(), g, "a", next.work)
		next.end <- result{v: 7}
		want(t, "who comes then", again, 7, true, nil)
	})
	run(t, "unless it is to go on", o, func(t *testing.T, g *Group[string, int]) {
		ctx, leave := context.WithCancel(t.Context())
		b := newBlocked()
		call, mine := g.Start(ctx, "a", b.work)
		if !mine {
			t.Error("who started it joined")
		}
		call.Persist(true)
		leave()
		if _, err := call.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		b.end <- result{v: 7}
		if v, err := call.Wait(ctx); v != 7 || err != nil { // what is there is given
			t.Error(v, err)
		}
	})
}

func TestAHangingCallEndsAtItsLimit(t *testing.T) {
	t.Parallel()
	run(t, "", Options[int]{Limit: limit}, func(t *testing.T, g *Group[string, int]) {
		b := newBlocked()
		first := ask(t.Context(), g, "a", b.work)
		time.Sleep(limit - 1)
		waits(t, "the first", first)
		second := ask(t.Context(), g, "a", b.work)
		time.Sleep(time.Nanosecond)
		want(t, "the first", first, 0, true, context.DeadlineExceeded)
		want(t, "the second", second, 0, false, context.DeadlineExceeded)
	})
}

// A freeze stops the timers; only the wall clock goes on.
func TestFreezes(t *testing.T) {
	t.Parallel()
	frozen := func(name string, f func(t *testing.T, g *Group[string, int], z *freezer)) {
		z := &freezer{}
		run(t, name, Options[int]{Limit: limit, Now: z.now}, func(t *testing.T, g *Group[string, int]) { f(t, g, z) })
	}
	frozen("who comes next abandons the call, and all go on with the new one", func(t *testing.T, g *Group[string, int], z *freezer) {
		b, next := newBlocked(), newBlocked()
		work := func(ctx context.Context) (int, error) {
			if b.calls.Load() > 0 {
				return next.work(ctx)
			}
			return b.work(ctx)
		}
		var cause error
		first := ask(t.Context(), g, "a", func(ctx context.Context) (int, error) {
			if b.calls.Load() > 0 {
				return next.work(ctx)
			}
			b.calls.Add(1)
			<-ctx.Done()
			cause = context.Cause(ctx)
			return 6, nil // what it still brings is thrown away
		})
		second := ask(t.Context(), g, "a", work)
		z.freeze(limit + clock.Slack + 1)
		third := ask(t.Context(), g, "a", work)
		next.end <- result{v: 7}
		if !errors.Is(cause, ErrAgain) {
			t.Errorf("the abandoned call ended by %v", cause)
		}
		want(t, "the third", third, 7, true, nil)
		want(t, "the second", second, 7, false, nil)
		want(t, "the first", first, 7, false, nil)
		if n := next.calls.Load(); n != 1 {
			t.Errorf("%d successors", n)
		}
	})
	frozen("a call whose timer fires just now is not abandoned", func(t *testing.T, g *Group[string, int], z *freezer) {
		b := newBlocked()
		first := ask(t.Context(), g, "a", b.work)
		z.freeze(limit + clock.Slack)
		second := ask(t.Context(), g, "a", b.work)
		b.end <- result{v: 7}
		want(t, "the first", first, 7, true, nil)
		want(t, "the second", second, 7, false, nil)
	})
	frozen("a short one abandons nothing", func(t *testing.T, g *Group[string, int], z *freezer) {
		b := newBlocked()
		first := ask(t.Context(), g, "a", b.work)
		z.freeze(limit)
		second := ask(t.Context(), g, "a", b.work)
		b.end <- result{v: 7}
		want(t, "the first", first, 7, true, nil)
		want(t, "the second", second, 7, false, nil)
	})
	frozen("a failure long after the limit is none", func(t *testing.T, g *Group[string, int], z *freezer) {
		b := newBlocked()
		first := ask(t.Context(), g, "a", b.work)
		z.freeze(limit + time.Second)
		b.end <- result{err: errors.New("connection reset")}
		b.end <- result{v: 7}
		want(t, "the first", first, 7, true, nil)
	})
	frozen("a success is one", func(t *testing.T, g *Group[string, int], z *freezer) {
		b := newBlocked()
		first := ask(t.Context(), g, "a", b.work)
		z.freeze(time.Hour)
		b.end <- result{v: 7}
		want(t, "the first", first, 7, true, nil)
	})
	frozen("the call under way is none after it", func(t *testing.T, g *Group[string, int], z *freezer) {
		b := newBlocked()
		c, _ := g.Start(t.Context(), "a", b.work)
		if g.Running("a") != c {
			t.Error("it is not found")
		}
		z.freeze(time.Hour)
		if g.Running("a") != nil {
			t.Error("it is found")
		}
		if _, err := c.Wait(t.Context()); !errors.Is(err, ErrAgain) {
			t.Error(err)
		}
	})
	frozen("who left does not ask again", func(t *testing.T, g *Group[string, int], z *freezer) {
		ctx, leave := context.WithCancel(t.Context())
		var calls int
		first := ask(ctx, g, "a", func(context.Context) (int, error) {
			if calls++; calls == 3 {
				leave()
			}
			return 0, ErrAgain
		})
		want(t, "the first", first, 0, true, context.Canceled)
	})
}

func TestResultsAreKept(t *testing.T) {
	t.Parallel()
	z := &freezer{}
	failure := errors.New("no")
	keep := func(_ int, err error) time.Duration {
		if err != nil {
			return time.Second
		}
		return time.Minute
	}
	run(t, "", Options[int]{Now: z.now, Keep: keep}, func(t *testing.T, g *Group[string, int]) {
		var calls int
		var err error
		get := func() result {
			return <-ask(t.Context(), g, "a", func(context.Context) (int, error) {
				calls++
				return calls, err
			})
		}
		expect := func(when string, v int, mine bool, err error) {
			t.Helper()
			if r := get(); r.v != v || r.mine != mine || !errors.Is(r.err, err) {
				t.Errorf("%s: %+v", when, r)
			}
		}
		expect("first", 1, true, nil)
		time.Sleep(time.Minute - 1)
		expect("kept", 1, false, nil)
		if g.Running("a") != nil {
			t.Error("what is kept runs")
		}
		time.Sleep(time.Nanosecond)
		err = failure
		expect("too old", 2, true, failure)
		expect("an error, kept", 2, false, failure)
		err = nil
		z.freeze(time.Hour)
		expect("after a freeze", 3, true, nil)
		g.Forget("a")
		expect("forgotten", 4, true, nil)
		z.freeze(-time.Hour)
		expect("before it was asked", 4, false, nil)
	})
}

func TestAForgottenCallIsSharedWithNobodyNew(t *testing.T) {
	t.Parallel()
	run(t, "", Options[int]{Limit: limit, Keep: func(int, error) time.Duration { return time.Hour }}, func(t *testing.T, g *Group[string, int]) {
		b, next := newBlocked(), newBlocked()
		first, second := ask(t.Context(), g, "a", b.work), ask(t.Context(), g, "a", b.work)
		g.Forget("a")
		third := ask(t.Context(), g, "a", next.work)
		next.end <- result{v: 8}
		want(t, "the third", third, 8, true, nil)
		b.end <- result{v: 7}
		want(t, "the first", first, 7, true, nil)
		want(t, "the second", second, 7, false, nil)
		want(t, "who comes then", ask(t.Context(), g, "a", b.work), 8, false, nil)
	})
}

func TestAPanicIsAnErrorToAllAndHoldsNothing(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(){
		"panic": func() { panic("boom") }, "nil": func() { panic(nil) }, "Goexit": runtime.Goexit,
	} {
		run(t, name, Options[int]{Limit: limit}, func(t *testing.T, g *Group[string, int]) {
			b := newBlocked()
			work := func(ctx context.Context) (int, error) {
				b.work(ctx)
				fail()
				return 1, nil
			}
			first, second := ask(t.Context(), g, "a", work), ask(t.Context(), g, "a", work)
			b.end <- result{}
			synctest.Wait()
			for who, c := range map[string]<-chan result{"first": first, "second": second} {
				r := <-c
				if p := new(rescue.Error); r.v != 0 || r.err == nil || errors.As(r.err, &p) != (name != "Goexit") {
					t.Errorf("the %s got %+v", who, r)
				} else if name == "panic" && (p.Value != "boom" || len(p.Stack) == 0 || p.Error() != "an internal error: a panic with a string") {
					t.Errorf("the panic is %+v", p)
				}
			}
			want(t, "who comes then", ask(t.Context(), g, "a", func(context.Context) (int, error) { return 7, nil }), 7, true, nil)
		})
	}
}

func TestCloseEndsAllCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := New[string](Options[int]{Limit: limit})
		b := newBlocked()
		first := ask(t.Context(), g, "a", b.work)
		stubborn := make(chan struct{})
		second := ask(t.Context(), g, "b", func(context.Context) (int, error) { <-stubborn; return 7, nil })
		hurry, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Close(hurry); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it waited for what does not end: %v", err)
		}
		want(t, "the first", first, 0, true, ErrClosed)
		want(t, "who comes then", ask(t.Context(), g, "c", b.work), 0, true, ErrClosed)
		close(stubborn)
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
		want(t, "the second", second, 7, true, nil)
	})
}
