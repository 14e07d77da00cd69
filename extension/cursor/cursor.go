// Package cursor asks the origin for its raft index: a number that cannot stand still
// while any secret changes.
//
// # The rule
//
// Record A0 = raft_applied_index and active_time from an answer with is_self
// that was received in full before a read is sent. The read is verified if a
// request sent later answers is_self, the same active_time, and
// raft_committed_index == A0.
//
// Both names matter. Vault's raft_committed_index is the last *appended*
// index. Compared with itself it lies:
//
//	writer:  append (committed 7) ───────── apply
//	reader:        leader? 7 ── read: old value ── ... leader? 7: "unchanged"
//
// An applied index can be behind a write that is on its way, an appended one
// cannot: if nothing was appended after what had been applied before the read,
// the read saw all there is.
//
// # Who answers
//
// It proves only what the active node answers. Where every answer names its node,
// all three have to name the same one. Elsewhere community Vault's standbys
// forward every read to it, so there any address will do, and so do OpenBao's
// before 2.5. Enterprise performance standbys and OpenBao from 2.5 serve reads
// themselves: there the cursor proves nothing. See answerers.
package cursor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/vault"
)

// Asker asks the origin about itself, without a token.
type Asker interface {
	Leader(ctx context.Context) (vault.Leader, error)
	Health(ctx context.Context) (vault.Health, error)
}

// Cursor is what one process knows of the index, and of the nodes that tell it. It is safe
// for concurrent use.
type Cursor struct {
	origin  Asker
	log     *slog.Logger
	now     func() time.Time
	instead string // what is done where no index counts, for people

	hearsay  Hearsay                                 // nil: none
	asks     *coalesce.Group[struct{}, vault.Leader] // for the index
	learns   *coalesce.Group[struct{}, struct{}]     // what the origin is
	answered chan struct{}                           // closed when a read was answered
	once     sync.Once                               // closes answered

	// mu guards the fields below.
	mu      sync.Mutex
	index   cache.Index // for reads sent from now on
	epoch   uint64      // in which index was received
	at      time.Time   // when it was received
	tried   uint64      // epoch+1 of the last that needs no further question for an index
	vain    int         // epochs in which reads had one asked for since a poll last had something to verify
	who     answerers
	learnt  *coalesce.Call[struct{}] // what the origin is, asked last; nil: never
	absent  time.Time                // when the origin was last seen without a cursor
	history uint16                   // of the last polls, a bit each: the cursor had moved
	taken   time.Time                // when the last stamp was made that was taken over
	skipped int                      // polls since the cursor was last asked, while it mostly moves
}

// Outcome is what came of a Query.
type Outcome uint8

// Outcomes.
const (
	Nothing  Outcome = iota // not asked
	Useless                 // answered, but it proves nothing
	Verified                // it stands where some read recorded it
	Moved                   // it is elsewhere
)

// mostVain bounds vain: the reads of such a function leave nothing to verify. They are
// of credentials, or of what there is not.
const mostVain = 3

// absentFor is how long an origin without a cursor is not asked again.
const absentFor = 5 * time.Minute

// Hearsay is what the instances of one audience tell each other of the origin.
type Hearsay interface {
	// Forwards reports whether the standbys of the cluster whose leader became
	// active at activeTime forward reads, and when sys/health said so; zero: that is
	// not known.
	Forwards(ctx context.Context, activeTime string) (forwards bool, at time.Time)
	SetForwards(ctx context.Context, activeTime string, forwards bool, at time.Time)
}

// New returns a cursor that knows nothing yet. It takes over what other
// instances learned, if hearsay is not nil. budget bounds the request before a
// first read.
func New(origin Asker, hearsay Hearsay, budget time.Duration, log *slog.Logger, now func() time.Time) *Cursor {
	return &Cursor{
		origin: origin, hearsay: hearsay, log: log, now: now, answered: make(chan struct{}), instead: "polls read each secret again",
		asks:   coalesce.New[struct{}](coalesce.Options[vault.Leader]{Limit: budget, CancelUnwanted: true, Now: now}),
		learns: coalesce.New[struct{}](coalesce.Options[struct{}]{Now: now}),
	}
}

// Answered says that a read was answered and its connection is free.
func (c *Cursor) Answered() { c.once.Do(func() { close(c.answered) }) }

// Seen takes in the headers of the origin's answer to a read.
func (c *Cursor) Seen(h http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.who.saw(h)
}

// Lists reports whether the origin may list folders with metadata, and recursively, if
// that is known. Where there is no index, or no leader answers, only WillList has it asked.
// While others say that standbys forward reads, the index spares more than a list may.
func (c *Cursor) Lists() (lists, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	return c.who.openBao, c.who.openBao || recently(c.who.product, now) || c.who.known && c.who.forwards && recently(c.who.learned, now)
}

// WillList has it learned whether the origin Lists.
func (c *Cursor) WillList() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.who.due = true
	c.learnLocked()
}

// Learn is Answered, and waits until nothing about the origin is being asked, or ctx ends.
func (c *Cursor) Learn(ctx context.Context) {
	c.Answered()
	if call := c.learns.Running(struct{}{}); call != nil {
		_, _ = call.Wait(ctx)
	}
}

// Close ends what runs and waits for it.
func (c *Cursor) Close() {
	_ = c.asks.Close(context.Background())
	_ = c.learns.Close(context.Background())
}

// Index returns the index for a read that is sent after it returns. It waits for
// nothing: the read that is told of an earlier index, or of none, is sent at once
// all the same, and its entry is verified by one more read if the index has moved by the
// next poll. An index of an earlier epoch is asked for anew beside the read, for those that come later.
func (c *Cursor) Index(ctx context.Context, epoch uint64) cache.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.usableLocked() {
		return cache.Index{}
	}
	if c.tried != epoch+1 && c.wantedLocked(epoch) && c.vain < mostVain {
		c.vain++
		c.startLocked(ctx, epoch).Persist(true)
	}
	return c.index
}

// Ask has an index received, and waits for it, unless there is one or that was tried in vain
// in this epoch. The error is the origin's failure, or that of ctx.
func (c *Cursor) Ask(ctx context.Context, epoch uint64) error {
	c.mu.Lock()
	vain := c.tried == epoch+1 && c.asks.Running(struct{}{}) == nil
	if vain || !c.usableLocked() || !c.wantedLocked(epoch) {
		c.mu.Unlock()
		return nil
	}
	call := c.startLocked(ctx, epoch)
	c.mu.Unlock()
	_, err := call.Wait(ctx)
	return err
}

// young is how old an index of an earlier epoch may be to do for the reads of the next.
const young = time.Second

// wantedLocked reports whether reads in the epoch want another index than what there is.
func (c *Cursor) wantedLocked(epoch uint64) bool {
	return c.index.Zero() || c.epoch != epoch && !clock.Within(c.at, c.now(), young)
}

// startLocked asks for the index and takes the answer as the new one, unless that is
// being done.
func (c *Cursor) startLocked(ctx context.Context, epoch uint64) *coalesce.Call[vault.Leader] {
	c.tried = epoch + 1
	call, _ := c.asks.Start(ctx, struct{}{}, func(ctx context.Context) (vault.Leader, error) {
		l, err := c.origin.Leader(ctx)
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.takeLocked(l, epoch)
		}
		return l, err
	})
	return call
}

// usableLocked reports whether a cursor can verify anything at all.
func (c *Cursor) usableLocked() bool {
	return c.who.usable(c.now()) && !clock.Within(c.absent, c.now(), absentFor)
}

// takeLocked takes an answer as the new index.
func (c *Cursor) takeLocked(l vault.Leader, epoch uint64) {
	switch {
	case l.Status != http.StatusOK || l.Cached:
	case l.Committed == 0 || l.Applied == 0:
		if c.absent.IsZero() {
			c.log.Debug("the origin has no cursor: its storage is not integrated; " + c.instead)
		}
		c.absent = c.now()
	case !c.ledLocked(l) || l.Unsure:
	case l.IsSelf:
		a := cache.Index{Applied: l.Applied, ActiveTime: l.ActiveTime, Node: l.Node, FirstSeen: l.ReceivedAt}
		if a.Same(c.index) {
			a.FirstSeen = c.index.FirstSeen
		}
		c.index, c.epoch, c.at, c.absent = a, epoch, c.now(), time.Time{}
		c.learnLocked()
		return
	}
	c.index = cache.Index{}
}

// ledLocked takes in who leads. It reports false, and says so, where two do.
func (c *Cursor) ledLocked(l vault.Leader) bool {
	if !l.IsSelf {
		if l.Node != "" {
			c.who.met(l.Node)
		}
		return true
	}
	alone := c.who.led(l, c.now())
	c.who.heard(l)
	if !alone {
		c.splitLocked("two leaders, or to two clusters")
	}
	return alone
}

// splitLocked ends all proofs for a while, and says so once: the address leads to two of
// something.
func (c *Cursor) splitLocked(two string, attrs ...any) {
	now := c.now()
	if !recently(c.who.split, now) {
		c.log.Warn("the origin's address leads to "+two+": "+c.instead+" until it has led to one for "+learnAgain.String()+"; check the load balancer's nodes", attrs...)
	}
	c.who.split, c.index = now, cache.Index{}
}

// learnLocked finds out whether an answer of the active node can be taken for
// granted. The health of whatever node answers tells the product and its
// version, which all nodes of a cluster share. It is asked after the first read,
// on the same connection. That the configured address is the leader_address is no
// evidence: operators give every node the balancer's URL as its api_addr.
// What another instance learned of the same leader is taken over first.
func (c *Cursor) learnLocked() {
	if c.who.judged(c.index.Node) && !c.who.due {
		return
	}
	c.who.due = false
	leader, node := c.index.ActiveTime, c.index.Node // empty: no index counts, but what it is is asked for
	first, term := c.who.learned.IsZero(), c.who.term
	nodes := slices.Collect(maps.Keys(c.who.nodes))
	another := func() bool { return c.who.term != term && c.who.term != leader }
	c.learnt, _ = c.learns.Start(context.Background(), struct{}{}, func(ctx context.Context) (struct{}, error) {
		if c.hearsay != nil && leader != "" && node == "" && first {
			if forwards, at := c.hearsay.Forwards(ctx, leader); recently(at, c.now()) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if another() {
					return struct{}{}, errAnother
				}
				c.who.learned, c.who.of, c.who.known, c.who.forwards = at, leader, true, forwards
				return struct{}{}, nil
			}
		}
		h, asked, err := c.learn(ctx)
		if err != nil {
			return struct{}{}, err
		}
		counts, err := func() (one bool, err error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if another() {
				return false, errAnother
			}
			if c.who.of, one = leader, c.who.told(h, nodes, c.now()); !one {
				c.splitLocked("two clusters", "cluster_id", c.who.cluster, "other_cluster_id", h.ClusterID)
			}
			return one, nil
		}()
		if counts && leader != "" {
			c.tell(ctx, leader, h, asked)
		}
		return struct{}{}, err
	})
}

// learn asks what the origin is. asked is when that was sent.
func (c *Cursor) learn(ctx context.Context) (h vault.Health, asked time.Time, err error) {
	select {
	case <-c.answered:
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	asked = c.now()
	h, err = c.origin.Health(ctx)
	if err == nil && h.Version == "" {
		err = errNoVersion
	}
	if err != nil {
		c.log.Debug("learn what the origin is", "error", err)
	}
	return h, asked, err
}

// tell tells others what was learned of a leader's cluster, and people what follows.
func (c *Cursor) tell(ctx context.Context, leader string, h vault.Health, asked time.Time) {
	if c.hearsay != nil {
		c.hearsay.SetForwards(ctx, leader, h.ForwardsReads(), asked)
	}
	if !h.ForwardsReads() {
		c.log.Info("this origin's standbys serve reads themselves: "+c.instead+" instead of comparing the raft index, unless its answers name their nodes (enable_response_header_raft_node_id)", "version", h.Version)
	}
}

// errAnother says that another node leads than when the question was sent: the answer may be
// of before an upgrade.
var errAnother = errors.New("another node leads meanwhile")

// errNoVersion says that sys/health did not tell what the origin is.
var errNoVersion = errors.New("sys/health tells no version")

// Query asks where the cursor is and tells the cache what that verifies. The stamp is for
// others; the zero one is none.
func (c *Cursor) Query(ctx context.Context, ledger *cache.Ledger, epoch uint64) (found Outcome, stamp cache.CursorStamp, err error) {
	before, call := c.askAnew(ctx, epoch)
	l, err := call.Wait(ctx)
	if e := new(vault.Error); errors.As(err, &e) && e.Kind == vault.Protocol || errors.Is(err, coalesce.ErrAgain) {
		// Something in between has an answer of its own to sys/leader, or a freeze
		// came between. That says nothing of the secrets: the re-reads will tell.
		return Nothing, stamp, nil
	}
	if err != nil || l.Status != http.StatusOK { // trouble, or a rate limit: the re-reads will tell
		return Nothing, stamp, err
	}
	if !l.Cached {
		ledger.Heard().OfItself(l.SentAt)
	}
	counts, _ := c.judge(ctx, l) // the node did answer, if nobody tells what that is worth
	c.mu.Lock()
	defer c.mu.Unlock()
	if !l.Tells() {
		c.who.hit(l.IsSelf || l.Committed == 0, c.now())
		return Useless, stamp, nil
	}
	at := cache.Index{Applied: l.Committed, ActiveTime: l.ActiveTime, Node: l.Node}
	stands := before.Zero() || at.Same(before)
	c.who.hit(l.Node == "" || c.who.reader == "" || c.who.reader == l.Node, c.now())
	c.foundLocked(!stands)
	if !counts {
		return Useless, stamp, nil
	}
	ledger.Revalidate(at, cache.Revalidation{At: l.SentAt, Epoch: epoch})
	if found = Verified; !stands {
		found = Moved
	}
	return found, stampOf(l), nil
}

// askAnew asks for the index, since what was sent before verifies nothing now. before is
// the index until then.
func (c *Cursor) askAnew(ctx context.Context, epoch uint64) (before cache.Index, call *coalesce.Call[vault.Leader]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asks.Forget(struct{}{})
	return c.index, c.startLocked(ctx, epoch)
}

// judge waits until it is known what an answer is worth: whether it counts. The error is
// that nobody told.
func (c *Cursor) judge(ctx context.Context, l vault.Leader) (counts bool, err error) {
	if !l.Tells() {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if asked := c.learnt; asked != nil && !c.who.judged(l.Node) {
		c.mu.Unlock()
		c.Answered() // or was not, or not yet: this is the time to ask
		_, err = asked.Wait(ctx)
		c.mu.Lock()
	}
	return c.who.trusts(l.Node) && !recently(c.who.split, c.now()), err
}

// stampOf is the stamp of an answer that counts. While something was appended and is not
// applied there is none: whoever takes it over records it with reads, too.
func stampOf(l vault.Leader) cache.CursorStamp {
	if l.Applied != l.Committed {
		return cache.CursorStamp{}
	}
	return cache.CursorStamp{At: l.SentAt, Committed: l.Committed, ActiveTime: l.ActiveTime, Node: l.Node}
}

// Take makes the index of what another instance found: it was received before
// the reads that we send from now on. They need not ask for another in this
// epoch. Where the cursor has moved since, what is read cannot be verified by an index check later
// and is read once more: that costs no more than to ask now. It reports false where the
// stamp proves nothing, since more is known of the origin here.
func (c *Cursor) Take(s cache.CursorStamp, epoch uint64) bool {
	a := s.Index()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.At.IsZero() || a.Zero() || c.who.doubts(a, c.now()) {
		return false
	}
	if !c.index.Zero() && !s.At.Equal(c.taken) {
		c.foundLocked(!a.Same(c.index))
	}
	c.taken = s.At
	switch {
	case c.index.Zero() || c.index.ActiveTime == a.ActiveTime && c.index.Node == a.Node && a.Applied > c.index.Applied:
		a.FirstSeen = c.now()
		c.index = a
	case c.index.ActiveTime != a.ActiveTime || c.index.Node != a.Node:
		return true // which of the two leads is for the origin to say
	}
	c.epoch, c.at = epoch, c.now()
	c.learnLocked()
	return true
}
