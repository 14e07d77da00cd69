package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// asker asks for places, and takes note of who got one and who was refused.
type asker struct {
	t      *testing.T
	p      *Places
	mu     sync.Mutex // guards got, places and errs while a step is under way
	got    []string
	places map[string]*Place
	errs   map[string]error
	leave  map[string]context.CancelFunc
	ticket map[string]*Ticket
}

func newAsker(t *testing.T, n, most int) *asker {
	return &asker{t: t, p: NewPlaces(n, most), places: map[string]*Place{}, errs: map[string]error{}, leave: map[string]context.CancelFunc{}, ticket: map[string]*Ticket{}}
}

// ask asks for a place of a share, or as our own work. In a bubble of synctest nothing
// runs beside it.
func (a *asker) ask(name string, share any, long bool) {
	ctx, cancel := context.WithCancel(a.t.Context())
	if share != (Own{}) {
		ctx, a.ticket[name] = NewTicket(ctx, share)
		a.ticket[name].Long = long
	}
	a.leave[name] = cancel
	go func() {
		place, err := a.p.Take(ctx, func(err error) { a.note(name, nil, err); cancel() })
		a.note(name, place, err)
	}()
	synctest.Wait()
}

// note takes note of what came of name's wait.
func (a *asker) note(name string, place *Place, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.errs[name] = err
		return
	}
	a.places[name] = place
	a.got = append(a.got, name)
}

func (a *asker) free(name string) {
	a.places[name].Free()
	synctest.Wait()
}

func (a *asker) want(names ...string) {
	a.t.Helper()
	if !slices.Equal(a.got, names) {
		a.t.Errorf("got places: %v, want %v", a.got, names)
	}
	a.got = nil
}

func (a *asker) refused(names ...string) {
	a.t.Helper()
	for name, err := range a.errs {
		if !slices.Contains(names, name) || !Limited(err) {
			a.t.Errorf("%s: %v", name, err)
		}
	}
	if len(a.errs) != len(names) {
		a.t.Errorf("refused: %v, want %v", a.errs, names)
	}
}

// empty makes sure that nothing is held and nobody remembered.
func (a *asker) empty() {
	a.t.Helper()
	for _, leave := range a.leave {
		leave()
	}
	synctest.Wait()
	for _, place := range a.places {
		place.Free()
		place.Free()
	}
	for _, p := range []*Pool{a.p.all, a.p.long} {
		if len(p.shares) != 0 || len(p.turns) != 0 || p.queued != 0 {
			a.t.Errorf("left: %d shares, %d turns, %d queued", len(p.shares), len(p.turns), p.queued)
		}
	}
}

// test runs f in a bubble of its own.
func test(t *testing.T, n, most int, f func(*asker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := newAsker(t, n, most)
		free := a.p.all.Free()
		f(a)
		a.empty()
		if a.p.all.Free() != free || a.p.long.Free() != max(1, free/2) {
			t.Errorf("free: %d of %d, %d of the long half", a.p.all.Free(), free, a.p.long.Free())
		}
	})
}

func TestSharesTakeTurns(t *testing.T) {
	t.Parallel()
	test(t, 1, 10, func(a *asker) {
		for _, name := range []string{"a1", "a2", "a3", "a4"} {
			a.ask(name, "a", false)
		}
		a.ask("b1", "b", false)
		a.ask("nobody1", nil, false)
		a.want("a1")
		for i, next := range []string{"a2", "b1", "nobody1", "a3", "a4"} {
			a.free([]string{"a1", "a2", "b1", "nobody1", "a3"}[i])
			a.want(next)
		}
		a.refused()
	})
}

func TestOurOwnWorkGoesFirstAndIsNeverRefused(t *testing.T) {
	t.Parallel()
	test(t, 1, 1, func(a *asker) {
		a.ask("a1", "a", false)
		a.ask("a2", "a", false)
		for i := range 5 {
			a.ask(fmt.Sprint("own", i), Own{}, false)
		}
		a.want("a1")
		a.free("a1")
		a.want("own0")
		a.ticket["a2"].Promote() // our own work waits for it, too
		for i := range 5 {
			a.free(fmt.Sprint("own", i))
		}
		a.want("own1", "own2", "own3", "own4", "a2")
		a.refused()
	})
}

func TestAFullQueueDropsTheNewestOfTheLongestLine(t *testing.T) {
	t.Parallel()
	test(t, 1, 3, func(a *asker) {
		for _, name := range []string{"a1", "a2", "a3", "a4", "a5"} {
			a.ask(name, "a", false)
		}
		a.refused("a5")
		a.ask("b1", "b", false) // pushes a4 out
		a.refused("a5", "a4")
		a.ask("b2", "b", false) // two lines of the same length but for itself
		a.refused("a5", "a4", "b2")
		a.leave["a3"]()
		synctest.Wait()
		delete(a.errs, "a3")
		a.ask("c1", "c", false)
		a.refused("a5", "a4", "b2")
		a.want("a1")
	})
}

// However long a share holds what it has: another one need not wait for it.
func TestAShareLeavesPlacesForOthers(t *testing.T) {
	t.Parallel()
	for n, most := range map[int]int{1: 1, 2: 2, 4: 4, 8: 7, 16: 13, 64: 52} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			for _, long := range []bool{false, true} {
				test(t, n, 1000, func(a *asker) {
					for i := range 2 * n {
						a.ask(fmt.Sprint("a", i), "a", long)
					}
					held := len(a.got)
					if a.got = nil; !long && held != most {
						a.t.Errorf("%d of %d", held, n)
					}
					if long && held > max(1, n/2) {
						a.t.Errorf("long ones hold %d of %d", held, n)
					}
					a.ask("b", "b", long)
					if held < n && !long || held < n/2 {
						a.want("b")
					}
				})
			}
		})
	}
}

func TestABodyCountsForTheLongHalfUntilItIsSent(t *testing.T) {
	t.Parallel()
	test(t, 2, 10, func(a *asker) {
		a.ask("body1", "a", true)
		a.ask("body2", "b", true)
		a.ask("read", "a", false)
		a.want("body1", "read")
		a.free("read")
		a.want()
		a.places["body1"].Sent()
		synctest.Wait()
		a.want("body2")
		a.refused()
	})
}

// What lasts gives way to what begins to last: the oldest of the share that holds
// most.
func TestWhatLastsGivesWay(t *testing.T) {
	t.Parallel()
	test(t, 8, 10, func(a *asker) {
		for _, name := range []string{"b1", "a1", "a2", "a3", "b2"} {
			a.ask(name, name[:1], false)
		}
		for _, name := range []string{"b1", "a1", "a2", "a3"} {
			a.ticket[name].Lasts()
			a.ticket[name].Lasts() // once
		}
		a.refused()
		a.ticket["b2"].Lasts()
		a.refused("a1")
		a.free("b1")
		a.ask("c", "c", true)
		a.want("b1", "a1", "a2", "a3", "b2", "c")
		a.refused("a1")
		a.ticket["b1"].Lasts() // it has no place any more
		a.refused("a1")
	})
}

// Answers that last may do so for months. A body waits for none of them, whoever has it.
func TestABodyWaitsForNoAnswerThatLasts(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 8, 64} {
		for _, whose := range []string{"a", "b"} {
			test(t, n, 10, func(a *asker) {
				for i := range n / 2 {
					a.ask(fmt.Sprint("a", i), "a", false)
					a.ticket[fmt.Sprint("a", i)].Lasts()
				}
				a.got = nil
				a.ask("body", whose, true)
				a.want("body")
				a.refused("a0")
				for i := range n / 2 {
					a.ask(fmt.Sprint("more", i), "c", true) // no more than half of the half, and of the rest
				}
				if held := a.p.long.shares["c"].held; held > max(1, n/4) || n > 2 && held < n/8 {
					a.t.Errorf("%d of %d for who came last", held, n/2)
				}
				if a.errs["body"] != nil {
					a.t.Error("a body gave way to a body:", a.errs)
				}
			})
		}
	}
}

// Who leaves holds nothing, also where the place comes at the same time.
func TestWhoLeavesHoldsNothing(t *testing.T) {
	t.Parallel()
	test(t, 1, 10, func(a *asker) {
		a.ask("a1", "a", false)
		a.ask("a2", "a", false)
		a.ask("a3", "b", false)
		a.leave["a2"]()
		a.free("a1")
		a.want("a1", "a3")
		if !errors.Is(a.errs["a2"], context.Canceled) || !a.ticket["a2"].InLine() || a.ticket["a3"].InLine() {
			a.t.Error(a.errs, "in line:", a.ticket["a2"].InLine(), a.ticket["a3"].InLine())
		}
		var placed []bool
		a.ticket["a1"].Placed = func(on bool) { placed = append(placed, on) }
		ctx, _ := NewTicket(a.t.Context(), "a")
		if _, ok := a.p.Spare(ctx); ok {
			a.t.Error("a spare place where there is none")
		}
		a.free("a3")
		if hold, ok := a.p.Spare(ctx); !ok {
			a.t.Error("no spare place")
		} else {
			hold.Free()
		}
	})
}

// Bytes of bodies: those that are still coming give way, the others don't.
func TestBytesGiveWayUntilTheyAreHere(t *testing.T) {
	t.Parallel()
	p := NewPool(10, 0)
	var cut []string
	push := func(of string, n int) *Hold { return p.Push(of, n, func() { cut = append(cut, of) }) }
	a, b := push("a", 6), push("b", 4)
	if !a.Keep(5) || p.Free() != 1 {
		t.Error("free:", p.Free())
	}
	c := push("c", 5)
	if !slices.Equal(cut, []string{"b"}) || b.Keep(1) || p.Free() != 0 {
		t.Error(cut, "gave way; free:", p.Free())
	}
	if !c.Keep(5) || push("d", 1) != nil {
		t.Error("what is here gave way")
	}
	for _, h := range []*Hold{a, b, c, a} {
		h.Free()
	}
	if p.Free() != 10 || len(p.shares) != 0 {
		t.Error("free:", p.Free(), "shares:", len(p.shares))
	}
}

// Whoever keeps many bytes leaves some for others, and takes none of theirs.
func TestBytesThatOneShareKeepsLeaveSomeForOthers(t *testing.T) {
	t.Parallel()
	p := NewPool(100, 0)
	cut := map[string]int{}
	push := func(of string, n int) *Hold { return p.Push(of, n, func() { cut[of]++ }) }
	other := push("b", 5) // is still coming
	kept := 0
	for range 100 {
		if h := push("a", 2); h != nil && h.Keep(2) {
			kept += 2
		}
	}
	if kept < 50 || kept > 80 || len(cut) > 0 {
		t.Errorf("%d bytes kept, %v gave way", kept, cut)
	}
	if !other.Keep(5) || push("b", 5) == nil || push("c", 5) == nil {
		t.Error("nothing is left for others")
	}
}

// The extension's own work may join a read whose last caller leaves at the same time.
func TestWhoLeftIsPromotedNoMore(t *testing.T) {
	t.Parallel()
	p := NewPool(1, 8)
	held, _ := p.Try(Own{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, ticket := NewTicket(t.Context(), "a")
	if _, err := p.wait(gone, ticket); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	ticket.Promote()
	held.Free()
	if p.Free() != 1 || p.Waiting() != 0 {
		t.Errorf("%d are free, %d wait", p.Free(), p.Waiting())
	}
}
