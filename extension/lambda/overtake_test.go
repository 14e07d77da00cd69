package lambda

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"
)

func ofInvocation(id string) http.Header { return http.Header{headerRequest: {id}} }

func ofTrace(root string) http.Header {
	return http.Header{headerTrace: {"Self=x;Root=" + root + ";Parent=53995c3f42cd8ad8"}}
}

// TestWhatAReadWaitsFor is the table of overtake.go's comment. Invocation "b" runs, after "a"; its
// trace has the root "tb".
func TestWhatAReadWaitsFor(t *testing.T) {
	t.Parallel()
	const quiet = 5 * time.Millisecond
	for name, c := range map[string]struct {
		head   http.Header
		quiet  time.Duration // since the last read or INVOKE
		waited bool          // a read of b waited in vain
		traced bool          // and one because of its trace
		want   plan
	}{
		"names the next one":                        {head: ofInvocation("c"), want: plan{named: "c"}},
		"names the next one, after others waited":   {head: ofInvocation("c"), quiet: quiet, waited: true, want: plan{named: "c"}},
		"names an earlier one":                      {head: ofInvocation("a"), quiet: quiet},
		"names this one, in a row":                  {head: ofInvocation("b")},
		"names this one, out of silence":            {head: ofInvocation("b"), quiet: quiet, want: plan{wait: silentWait}},
		"names this one, after others waited":       {head: ofInvocation("b"), quiet: quiet, waited: true},
		"names two":                                 {head: http.Header{headerRequest: {"c", "d"}}},
		"names none":                                {head: ofInvocation("")},
		"has a new trace":                           {head: ofTrace("tc"), quiet: quiet, want: plan{wait: tracedWait}},
		"has a new trace, in a row":                 {head: ofTrace("tc")},
		"has a new trace, after one that had, too":  {head: ofTrace("tc"), quiet: quiet, traced: true, want: plan{wait: silentWait}},
		"has an earlier trace":                      {head: ofTrace("ta"), quiet: quiet, want: plan{wait: silentWait}},
		"has this trace":                            {head: ofTrace("tb"), quiet: quiet, want: plan{wait: silentWait}},
		"has this trace, after others waited":       {head: ofTrace("tb"), quiet: quiet, waited: true},
		"says nothing, in a row":                    {},
		"says nothing, at the end of a row":         {quiet: silence},
		"says nothing, out of silence":              {quiet: quiet, want: plan{wait: silentWait}},
		"says nothing, after others waited":         {quiet: quiet, waited: true, want: plan{wait: quiet / 50}},
		"says nothing, long after others waited":    {quiet: time.Minute, waited: true, want: plan{wait: silentWait}},
		"says nothing, and the clock was set back":  {quiet: -time.Hour},
		"has a trace without a root":                {head: http.Header{headerTrace: {"Parent=1"}}, quiet: quiet, want: plan{wait: silentWait}},
		"names one by more bytes than any id needs": {head: ofInvocation(string(make([]byte, maxName+1)))},
	} {
		now := time.Unix(1e9, 0)
		var a arrivals
		a.begin(Event{RequestID: "a", TraceID: "Root=ta", ReceivedAt: now})
		a.begin(Event{RequestID: "b", TraceID: "Root=tb", ReceivedAt: now})
		a.waited, a.traced = c.waited, c.traced
		got := a.plan(now.Add(c.quiet), c.head)
		if mine := got.mine != nil; mine != (c.want.wait > 0) {
			t.Errorf("a read that %s: has a wait to end: %v", name, mine)
		}
		if got.mine = nil; got != c.want {
			t.Errorf("a read that %s waits for %+v, want %+v", name, got, c.want)
		}
	}
}

func TestReadsAtTheSameTimeShareOneWait(t *testing.T) {
	t.Parallel()
	var a arrivals
	now := time.Now()
	first := a.plan(now, nil)
	second := a.plan(now, nil)
	if first.wait != silentWait || second.join == nil || second.join != first.mine {
		t.Fatalf("%+v, %+v", first, second)
	}
	a.over(first, false)
	<-second.join
	if third := a.plan(now.Add(time.Second), ofInvocation("")); third.join != nil || third.wait != silentWait {
		t.Errorf("a second later: %+v", third)
	}
}

func TestLateReadsOfManyInvocationsAreKnown(t *testing.T) {
	t.Parallel()
	var a arrivals
	for n := range 2 * remembered {
		a.begin(Event{RequestID: strconv.Itoa(n)})
		a.expired("vain " + strconv.Itoa(n))
	}
	if len(a.ids) > remembered || len(a.roots) > remembered {
		t.Errorf("%d ids and %d roots are kept", len(a.ids), len(a.roots))
	}
	for _, id := range []string{strconv.Itoa(2*remembered - 1), strconv.Itoa(2*remembered - 2), "vain " + strconv.Itoa(2*remembered-1)} {
		if p := a.plan(time.Now(), ofInvocation(id)); p.named != "" {
			t.Errorf("%s is not known any more", id)
		}
	}
}

func TestAnIdThatManyReadsWaitForInVainIsKnownOnce(t *testing.T) {
	t.Parallel()
	var a arrivals
	a.begin(Event{RequestID: "earlier"})
	a.begin(Event{RequestID: "current"})
	for range 2 * remembered {
		a.expired("vain")
	}
	for _, id := range []string{"earlier", "vain", "current"} {
		if p := a.plan(time.Now(), ofInvocation(id)); p.named != "" {
			t.Errorf("%s is not known any more", id)
		}
	}
	a.expired("current") // it came after all
	if last(a.ids) != "current" || len(a.ids) != 3 {
		t.Errorf("known are %v", a.ids)
	}
}

func TestG1AReadThatOvertakesItsInvokeWaitsForIt(t *testing.T) {
	t.Parallel()
	s, h := newStub(t), &counter{}
	c, _ := startLoop(t, s, h)
	for n := range int64(100) {
		epoch := make(chan int64)
		go func() {
			if !c.Await(t.Context(), ofInvocation(strconv.FormatInt(n+1, 10))) {
				t.Error("the read is told to verify by itself")
			}
			epoch <- h.epoch.Load()
		}()
		runtime.Gosched() // the read is first, or not
		s.write(invokeOf(n + 1))
		if e := <-epoch; e != n+1 {
			t.Errorf("a read of invocation %d went on in epoch %d", n+1, e)
		}
		s.next()
	}
}

func TestG1AReadWhoseInvokeNeverComesIsVerifiedByItself(t *testing.T) {
	t.Parallel()
	c, _ := startLoop(t, newStub(t), &counter{})
	begun := time.Now()
	if c.Await(t.Context(), ofInvocation("7")) {
		t.Error("the read may go on as one of an invocation")
	}
	if took := time.Since(begun); took < namedWait {
		t.Errorf("it waited only %v", took)
	}
	begun = time.Now()
	if !c.Await(t.Context(), ofInvocation("7")) || time.Since(begun) >= namedWait {
		t.Errorf("the next read of it waited again, %v", time.Since(begun))
	}
}

func TestAReadThatIsGivenUpStopsWaiting(t *testing.T) {
	t.Parallel()
	c, _ := startLoop(t, newStub(t), &counter{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begun := time.Now()
	c.Await(ctx, ofInvocation("7"))
	if took := time.Since(begun); took >= namedWait {
		t.Errorf("it waited %v for a caller who had left", took)
	}
}

func TestReadsWaitForNoInvokeWhereNoneComes(t *testing.T) {
	t.Parallel()
	c := New(Options{API: "127.0.0.1:1", Name: "thaw"})
	begun := time.Now()
	if !c.Await(t.Context(), ofInvocation("7")) || c.arrivals.last != (time.Time{}) {
		t.Errorf("a read waited %v under Managed Instances", time.Since(begun))
	}
}
