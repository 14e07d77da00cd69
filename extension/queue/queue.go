// Package queue shares out what there is not enough of: the places at the origin,
// and the memory for what callers send. One bad caller costs nobody else anything.
//
// # Who holds what, and how it ends
//
//	who asks                     what it holds                      how that ends
//	a read, before it is sent    its turn in the queue              with the last who waits for it; a full queue; its deadline
//	a read that was sent         a place, until its answer is here  with the answer, or VAULT_CLIENT_TIMEOUT
//	the same, between attempts   nothing                            with the last who waits for it
//	a request passed through     a place, until its answer is taken with its caller, or as above
//	a body of up to 64 KiB       its bytes, until its answer comes  arrives too slowly; while it arrives, gives way
//	a longer body                a place, and one of the long half, arrives too slowly; gives way
//	                             until it is there
//	an answer that lasts         a place, and one of the long half  taken too slowly; gives way
//	(sys/monitor, a snapshot,
//	events, a slow reader)
//	polls, prefetch, files,      a place; they are first in line    with the answer, or their own deadline
//	logins, confirmations,
//	thaw's own subscription
//
// # Whose turn it is
//
// Whoever is in line belongs to a share: one for each token that the origin has
// accepted here, one for the extension's own identity, and one for all others. The
// shares take turns, and in each the first comes first. A connection has one
// request at a time, so that is fair between connections, too.
//
// A share may take a place while it holds fewer than four times as many as are
// free: one that floods leaves some for others, who need not wait until it lets go.
// So it may keep bytes of bodies that are here. A queue that is full drops the newest
// of the longest line. What gives way is the oldest of the share that holds most, and
// never that of another that holds no more than the one who comes. A body that would
// have to wait takes the place of an answer that lasts, but not of another body, which
// has an end.
//
// Work of the extension's own belongs to no share. It is bounded elsewhere, goes
// first and is never refused.
package queue

import (
	"container/list"
	"errors"
	"slices"
	"sync"
)

// Limit is what ends when a bound of ours is reached. That says nothing of the
// origin, and is no outage.
type Limit string

// Error implements error.
func (l Limit) Error() string { return string(l) }

// Limited reports whether err is a Limit.
func Limited(err error) bool { return errors.As(err, new(Limit)) }

// Why requests end.
const (
	errFull = Limit("too many requests wait for Vault already (THAW_MAX_QUEUED)")
	errWay  = Limit("it gave way to another: half of the places at Vault (THAW_MAX_IN_FLIGHT) are for what lasts")
)

// Pool is a number of units that are held for a while. It is safe for concurrent
// use.
type Pool struct {
	most int // that wait

	mu     sync.Mutex
	free   int            // guarded by mu, as all below
	shares map[any]*share // that hold something or wait
	turns  []*share       // those that wait, in the order of their turns
	queued int            // who waits and may be refused
}

// share is one share's part of a pool. Guarded by the pool's mu.
type share struct {
	of    any
	held  int
	loose int // of held: what gives way
	line  []*Hold
	yield list.List // of *Hold: what gives way, the oldest first
}

// Own is the share of the extension's own work.
type Own struct{}

// Hold is what somebody holds of a pool, or waits for in line.
type Hold struct {
	p     *Pool
	share *share // guarded by mu, as all below
	n     int
	lasts bool          // it was pushed in
	held  bool          // else it waits, or was freed
	cut   func()        // has the holder let go
	place *list.Element // in share.yield; nil: gives way to nobody

	over chan struct{} // of one that waits: closed when it is held, or refused for err
	err  error
	made func() // has who made room for it let go; nil: nobody did
}

// NewPool returns a pool of size units for which most may wait.
func NewPool(size, most int) *Pool {
	return &Pool{most: most, free: size, shares: make(map[any]*share)}
}

// Waiting is how many wait, the extension's own work left out.
func (p *Pool) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

// Free is how many units nobody holds.
func (p *Pool) Free() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.free
}

// Try takes a unit for a share if there is one that nobody waits for.
func (p *Pool) Try(of any) (*Hold, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free < 1 || len(p.turns) > 0 {
		return nil, false
	}
	return p.takeLocked(&Hold{p: p, share: p.shareLocked(of), n: 1}), true
}

// Push takes n units for a share at once. Where there are too few, what gives way
// has to; nil: nothing does. cut has this one let go when it is its turn to.
func (p *Pool) Push(of any, n int, cut func()) *Hold {
	p.mu.Lock()
	var ended []func()
	defer func() {
		p.mu.Unlock()
		for _, end := range ended {
			end()
		}
	}()
	mine := p.shareLocked(of)
	for p.free < n || mine.held-mine.loose >= 4*p.free {
		victim := p.victimLocked(mine, false)
		if victim == nil {
			p.tidyLocked(mine)
			return nil
		}
		ended = append(ended, victim.cut)
		victim.dropLocked()
	}
	h := p.takeLocked(&Hold{p: p, share: p.shareLocked(of), n: n, lasts: true})
	h.yieldLocked(cut)
	return h
}

// victimLocked returns what gives way to a share, or to a body of it that would have
// to wait; nil: nothing does.
func (p *Pool) victimLocked(mine *share, body bool) (victim *Hold) {
	for _, s := range p.shares {
		if s != mine && s.held <= mine.held || victim != nil && s.held <= victim.share.held {
			continue
		}
		for e := s.yield.Front(); e != nil; e = e.Next() {
			if h := e.Value.(*Hold); h.lasts || !body {
				victim = h
				break
			}
		}
	}
	return victim
}

// enqueue waits for a unit in the line of a share.
func (p *Pool) enqueue(of any) *Hold {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &Hold{p: p, n: 1, over: make(chan struct{})}
	p.joinLocked(w, of)
	p.dispatchLocked()
	if victim := p.victimLocked(w.share, true); !w.held && victim != nil {
		victim.dropLocked()
		w.made = victim.cut
		p.endLocked(p.takeLocked(w), nil)
	}
	if p.queued > p.most { // then w waits
		longest := w.share
		for _, s := range p.turns {
			if s.of != (Own{}) && len(s.line) > len(longest.line) {
				longest = s
			}
		}
		p.endLocked(longest.line[len(longest.line)-1], errFull)
	}
	return w
}

// promote has w, if it waits, wait in the line of the extension's own work.
func (w *Hold) promote() {
	p := w.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(w.share.line, w) && w.share.of != (Own{}) {
		p.outLocked(w)
		p.joinLocked(w, Own{})
		p.dispatchLocked()
	}
}

func (p *Pool) joinLocked(w *Hold, of any) {
	s := p.shareLocked(of)
	if of != (Own{}) {
		p.queued++
	}
	if s.line = append(s.line, w); len(s.line) == 1 {
		p.turns = append(p.turns, s)
	}
	w.share = s
}

// endLocked ends w's wait.
func (p *Pool) endLocked(w *Hold, err error) {
	p.outLocked(w)
	w.err = err
	close(w.over)
}

// outLocked takes w out of its line.
func (p *Pool) outLocked(w *Hold) {
	s := w.share
	s.line = slices.DeleteFunc(s.line, func(h *Hold) bool { return h == w })
	if len(s.line) == 0 {
		p.turns = slices.DeleteFunc(p.turns, func(t *share) bool { return t == s })
	}
	if s.of != (Own{}) {
		p.queued--
	}
	p.tidyLocked(s)
}

// dispatchLocked gives what is free to those whose turn it is.
func (p *Pool) dispatchLocked() {
	for p.free > 0 {
		i := slices.IndexFunc(p.turns, func(s *share) bool { return s.of == Own{} })
		if i < 0 {
			i = slices.IndexFunc(p.turns, func(s *share) bool { return s.held < 4*p.free })
		}
		if i < 0 {
			return
		}
		s := p.turns[i]
		p.turns = append(slices.Delete(p.turns, i, i+1), s)
		p.endLocked(p.takeLocked(s.line[0]), nil)
	}
}

func (p *Pool) shareLocked(of any) *share {
	s := p.shares[of]
	if s == nil {
		s = &share{of: of}
		p.shares[of] = s
	}
	return s
}

func (p *Pool) takeLocked(h *Hold) *Hold {
	p.free -= h.n
	h.share.held += h.n
	h.held = true
	return h
}

// tidyLocked forgets a share that neither holds anything nor waits.
func (p *Pool) tidyLocked(s *share) {
	if s.held == 0 && len(s.line) == 0 {
		delete(p.shares, s.of)
	}
}

// yieldLocked has h give way from now on.
func (h *Hold) yieldLocked(cut func()) {
	h.cut, h.place = cut, h.share.yield.PushBack(h)
	h.share.loose += h.n
}

// keepLocked has h give way no more, and hold n units.
func (h *Hold) keepLocked(n int) {
	if h.place != nil {
		h.share.yield.Remove(h.place)
		h.share.loose -= h.n
		h.place = nil
	}
	back := h.n - n
	h.n, h.share.held, h.p.free = n, h.share.held-back, h.p.free+back
}

// Keep has h give way to nobody any more, and hold n units, which are no more than
// before. False: it gave way already.
func (h *Hold) Keep(n int) bool {
	h.p.mu.Lock()
	defer h.p.mu.Unlock()
	if h.held {
		h.keepLocked(n)
	}
	return h.held
}

// Free gives back what is held, once; of one that waits it ends the wait.
func (h *Hold) Free() {
	h.p.mu.Lock()
	defer h.p.mu.Unlock()
	if !h.held && slices.Contains(h.share.line, h) {
		h.p.endLocked(h, nil)
	}
	h.dropLocked()
	h.p.dispatchLocked()
}

func (h *Hold) dropLocked() {
	if h.held {
		h.held = false
		h.keepLocked(0)
		h.p.tidyLocked(h.share)
	}
}
