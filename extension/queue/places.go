package queue

import (
	"cmp"
	"context"
	"sync"
)

// Places are those at the origin: a request has one while it is under way. Half
// of them, the long half, may be held by what lasts: the bodies of requests that
// are sent as they come, and answers that are taken as their callers please.
type Places struct{ all, long *Pool }

// NewPlaces returns n places for which most may wait.
func NewPlaces(n, most int) *Places {
	return &Places{NewPool(n, most), NewPool(max(1, n/2), most)}
}

// Waiting is how many callers' requests wait for a place.
func (p *Places) Waiting() int { return p.all.Waiting() + p.long.Waiting() }

// Free is how many places nobody holds.
func (p *Places) Free() int { return p.all.Free() }

// Place is held by one request that is under way.
type Place struct {
	p   *Places
	t   *Ticket
	cut func(error)

	mu   sync.Mutex
	hold *Hold // guarded by mu; nil: not yet, or given back
	long *Hold // guarded by mu; nil: none
}

// Ticket is a caller's request, or a read that several callers wait for, on its way
// to the origin. It goes in the request's context.
type Ticket struct {
	// Placed is called when the request gets a place, before anything is sent, and
	// when it gives it back. Nil: nobody wants to know.
	Placed func(bool)
	// Long says that the request has a body that is sent as it comes.
	Long bool

	mu     sync.Mutex
	share  any    // guarded by mu
	inLine bool   // guarded by mu; it came in line, and had no place since
	waits  *Hold  // guarded by mu; that it waits for, or waited for last; nil: it never did
	place  *Place // guarded by mu; nil: it has none
}

type ticketKey struct{}

// NewTicket returns a ticket of a share, under a context that has it.
func NewTicket(ctx context.Context, share any) (context.Context, *Ticket) {
	t := &Ticket{share: share}
	return context.WithValue(ctx, ticketKey{}, t), t
}

// TicketOf returns the ticket in a context; nil: what is done there is the
// extension's own work.
func TicketOf(ctx context.Context) *Ticket {
	t, _ := ctx.Value(ticketKey{}).(*Ticket)
	return t
}

// Ours is ctx for work of the extension's own, whoever has it done.
func Ours(ctx context.Context) context.Context {
	if TicketOf(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, ticketKey{}, (*Ticket)(nil))
}

// Share is the ticket's share. Without a ticket it is the extension's own work's.
func (t *Ticket) Share() any {
	if t == nil {
		return Own{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.share
}

// Promote says that the extension's own work waits for the same.
func (t *Ticket) Promote() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.share = Own{}
	if t.waits != nil {
		t.waits.promote()
	}
}

// InLine reports whether the request waits for a place, or left while it did.
func (t *Ticket) InLine() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inLine
}

// Lasts says that the answer is here and is taken as the caller pleases from now
// on, so that its place counts for the long half.
func (t *Ticket) Lasts() {
	t.mu.Lock()
	place := t.place
	t.mu.Unlock()
	if place == nil {
		return
	}
	place.mu.Lock()
	defer place.mu.Unlock()
	if place.hold != nil && place.long == nil {
		place.long = place.p.long.Push(place.hold.share.of, 1, place.giveWay)
	}
}

// Take waits for a place for the request under ctx. cut is to end the request, with
// what it says as the cause. The error is a Limit, or ctx's cause.
func (p *Places) Take(ctx context.Context, cut func(error)) (*Place, error) {
	t := cmp.Or(TicketOf(ctx), &Ticket{share: Own{}})
	place := &Place{p: p, t: t, cut: cut}
	if t.Long {
		var err error
		if place.long, err = p.long.wait(ctx, t); err != nil {
			return nil, err
		}
		p.long.mu.Lock()
		place.long.yieldLocked(place.giveWay)
		p.long.mu.Unlock()
	}
	hold, err := p.all.wait(ctx, t)
	if err != nil {
		place.Sent()
		return nil, err
	}
	place.mu.Lock()
	place.hold = hold
	place.mu.Unlock()
	t.mu.Lock()
	t.place, t.inLine = place, false
	t.mu.Unlock()
	if t.Placed != nil {
		t.Placed(true)
	}
	return place, nil
}

// Spare takes a place for a second copy of the request under ctx, if there is one
// that nobody waits for.
func (p *Places) Spare(ctx context.Context) (*Hold, bool) {
	return p.all.Try(TicketOf(ctx).Share())
}

// wait waits in the line of the ticket's share.
func (p *Pool) wait(ctx context.Context, t *Ticket) (*Hold, error) {
	t.mu.Lock()
	t.waits, t.inLine = p.enqueue(t.share), true
	w := t.waits
	t.mu.Unlock()
	if w.made != nil {
		w.made()
	}
	select {
	case <-w.over:
	case <-ctx.Done():
		w.Free()
		return nil, context.Cause(ctx)
	}
	return w, w.err
}

// giveWay ends the request. It may notice late, where its caller takes nothing.
func (p *Place) giveWay() {
	p.cut(errWay)
	p.Free()
}

// Sent says that the request's body was sent.
func (p *Place) Sent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.long != nil {
		p.long.Free()
		p.long = nil
	}
}

// Free gives the place back, once.
func (p *Place) Free() {
	p.mu.Lock()
	hold := p.hold
	p.hold = nil
	p.mu.Unlock()
	if hold == nil {
		return
	}
	p.Sent()
	hold.Free()
	p.t.mu.Lock()
	p.t.place = nil
	p.t.mu.Unlock()
	if p.t.Placed != nil {
		p.t.Placed(false)
	}
}
