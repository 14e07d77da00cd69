// Package events listens to what Vault Enterprise tells of changes, so that
// hosts that do not freeze need not ask for each secret once a second.
//
// It subscribes to sys/events/subscribe/kv* by websocket
// (https://developer.hashicorp.com/vault/docs/concepts/events), where the
// origin offers that. From then on the stream stands for the timed poll, as far
// as it is whole: a ping is sent every so often, and when its pong is here, so
// is everything that the server sent before it. How far that verifies an entry
// is the cache's to judge (cache.Stream): it must have been read after the
// stream began, and after the last change of it.
//
// An event makes what it may change unverified, and has it read again from a
// node that has the change for certain: with the event's own state required
// (Vault 1.21), or from the active node. An event that comes twice does that
// twice. One that was dropped is not missed for ever, since entries are read
// again now and then all the same. A stream that ends verifies nothing more:
// the timed poll takes over at once, and after the next subscription everything
// is read again before the stream counts.
package events

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/extension/wire"
)

// Options configures a Listener.
type Options struct {
	Stream cache.Stream
	// Load reads again what an event may have changed.
	Load func(ctx context.Context, w cache.Want) (cache.Answer, error)
	// Capabilities asks what the extension's own token may do on paths.
	Capabilities func(ctx context.Context, namespace string, paths []string) (map[string][]string, error)
	Namespace    string // to subscribe in
	// Send sends the request under the extension's own identity, with its present
	// token, and gives a 101's body as an io.ReadWriteCloser.
	Send func(req *http.Request) (*http.Response, error)
	// Offered reports whether the origin has events at all.
	Offered func(ctx context.Context) (bool, error)
	Idle    func() bool   // nothing is cached, so there is nothing to listen for
	Ping    time.Duration // between two pings
	Log     *slog.Logger
	Now     func() time.Time
}

// Listener keeps a subscription.
type Listener struct {
	o     Options
	slots chan struct{} // of reads after changes
	wg    sync.WaitGroup
	told  string // what was last warned of

	events    atomic.Uint64
	listening atomic.Bool
	unheard   atomic.Bool // it was said that some are
}

// Events is how many changes were told of so far.
func (l *Listener) Events() uint64 { return l.events.Load() }

// Listening reports whether there is a stream now.
func (l *Listener) Listening() bool { return l.listening.Load() }

// Times of subscribing.
const (
	firstPause   = time.Second
	mostPause    = time.Minute
	notOffered   = 10 * time.Minute       // until an origin without events is asked again
	slack        = 100 * time.Millisecond // an event may come that much later than what was asked after its write
	stall        = 10 * time.Second       // without a pong, the stream is dead
	refetchers   = 4
	refetch      = 5 * time.Second // for one read after a change
	maxRefusal   = 4 << 10
	idleInterval = time.Second
	firstUse     = 5 * time.Second // between the first read and the first question
)

// New returns a Listener that has not begun.
func New(o Options) *Listener {
	return &Listener{o: o, slots: make(chan struct{}, refetchers)}
}

// errForbidden is an answer that is no subscription, since the token may have none.
var errForbidden = errors.New("sys/events/subscribe/kv* answered 403")

// Run listens until ctx ends.
func (l *Listener) Run(ctx context.Context) {
	defer l.wg.Wait()
	pause, used := firstPause, false
	for ctx.Err() == nil {
		if l.o.Idle() {
			wait.For(ctx, idleInterval)
			continue
		}
		if !used { // a process that reads once and ends has no use for events
			used = true
			wait.For(ctx, firstUse)
			continue
		}
		offered, err := l.o.Offered(ctx)
		if err == nil && !offered {
			wait.For(ctx, notOffered)
			continue
		}
		began := l.o.Now()
		if err == nil {
			err = l.listen(ctx)
		}
		l.o.Stream.Whole(time.Time{}, time.Time{})
		if ctx.Err() != nil {
			return
		}
		if clock.Elapsed(began, l.o.Now()) > mostPause {
			pause = firstPause
		}
		l.explain(err)
		wait.For(ctx, pause-pause/4+rand.N(pause/2))
		pause = min(2*pause, mostPause)
	}
}

// explain says once what is wrong.
func (l *Listener) explain(err error) {
	text := fmt.Sprint(err)
	if text == l.told {
		return
	}
	l.told = text
	if errors.Is(err, errForbidden) {
		l.o.Log.Warn(`Vault offers events, but the token may not subscribe, so secrets are polled; its policies lack: path "sys/events/subscribe/kv*" { capabilities = ["read"] }, and "list" and "subscribe" with subscribe_event_types = ["kv*"] on the secrets' paths`)
		return
	}
	l.o.Log.Info("no events from Vault for now: secrets are polled", "reason", text)
}

// listen subscribes once and takes events until the stream ends.
func (l *Listener) listen(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := l.subscribe(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	defer s.close()
	p := &pulse{l: l, since: l.o.Now()}
	p.heard = p.since
	l.listening.Store(true)
	defer l.listening.Store(false)
	l.o.Log.Info("listening to Vault's events")
	l.told = ""
	var beat sync.WaitGroup
	defer beat.Wait()
	defer cancel()
	beside := func(what string, f func()) {
		beat.Go(func() {
			if !rescue.Do(l.o.Log, what, f) {
				cancel() // and subscribe anew
			}
		})
	}
	beside("watch the event stream", func() { p.run(ctx, s) })
	beside("learn what events cover", func() { l.learn(ctx) })
	for {
		message, err := s.read(p.pong)
		if err != nil {
			return err
		}
		c, err := parse(message)
		if err != nil {
			return err
		}
		if c != nil {
			l.events.Add(1)
			l.changed(ctx, c)
		}
	}
}

// subscribe does the handshake.
func (l *Listener) subscribe(ctx context.Context) (*socket, error) {
	// The context must outlive the handshake: it is the stream's.
	req, err := wire.Request(ctx, http.MethodGet, l.o.Namespace, "sys/events/subscribe/kv*?json=true&namespaces=%2A", "", nil)
	if err != nil {
		return nil, err
	}
	accept := offer(req.Header)
	res, err := l.o.Send(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxRefusal)) // so that the connection can be used again
		res.Body.Close()
		if res.StatusCode == http.StatusForbidden {
			return nil, errForbidden
		}
		return nil, fmt.Errorf("sys/events/subscribe/kv* answered %d", res.StatusCode)
	}
	return open(res, accept)
}

// learn finds out, as long as there is a stream, of which secrets it tells.
func (l *Listener) learn(ctx context.Context) {
	for ctx.Err() == nil {
		byNamespace := make(map[string][]cache.Key)
		unheard := l.o.Stream.Uncovered()
		for k := range unheard {
			byNamespace[k.Namespace] = append(byNamespace[k.Namespace], k)
		}
		for namespace, keys := range byNamespace {
			for part := range slices.Chunk(keys, questions) {
				l.ask(ctx, namespace, part, unheard)
			}
		}
		wait.For(ctx, idleInterval)
	}
}

// covers reports whether the subscription notifies of a namespace: the one that is
// subscribed in, and those below
// (https://developer.hashicorp.com/vault/docs/concepts/events#event-notifications).
func (l *Listener) covers(namespace string) bool {
	top := strings.Trim(l.o.Namespace, "/")
	return top == "" || namespace == top || strings.HasPrefix(namespace, top+"/")
}

// questions is how many secrets are asked for in one call; each has five paths, seldom more.
const questions = 200

func (l *Listener) ask(ctx context.Context, namespace string, keys []cache.Key, paths map[cache.Key][]string) {
	var held map[string][]string
	covered := l.covers(namespace)
	if covered {
		var all []string
		for _, k := range keys {
			all = append(all, paths[k]...)
		}
		var err error
		if held, err = l.o.Capabilities(ctx, namespace, all); err != nil {
			return // asked again; until then they are polled
		}
	}
	told := make(map[cache.Key]bool, len(keys))
	for _, k := range keys {
		told[k] = covered && !slices.ContainsFunc(paths[k], func(p string) bool {
			return !slices.Contains(held[p], "subscribe") && !slices.Contains(held[p], "root")
		})
		if covered && !told[k] && l.unheard.CompareAndSwap(false, true) {
			l.o.Log.Warn(`Vault's events leave out secrets on which the token lacks the capability "subscribe"; those are polled. The policy needs it, with "list" and subscribe_event_types = ["kv*"], on the secret's data/, metadata/, delete/, undelete/ and destroy/`, "first", k.Path)
		}
	}
	l.o.Stream.Cover(told)
}

// changed takes in a change and has what it affects read again.
func (l *Listener) changed(ctx context.Context, c *change) {
	for _, w := range c.writes {
		for _, check := range l.o.Stream.Changed(w) {
			select {
			case l.slots <- struct{}{}:
			default:
				continue // its next reader asks
			}
			l.wg.Go(func() {
				defer func() { <-l.slots }()
				ctx, cancel := context.WithTimeout(ctx, refetch)
				defer cancel()
				rescue.Do(l.o.Log, "read again after an event", func() {
					a, err := l.o.Load(ctx, cache.Want{Key: check.Key, ID: check.ID, Alone: true, After: &cache.Change{Index: c.index}})
					a.Close()
					if err != nil {
						l.o.Log.Debug("read again after an event", "error", err)
					}
				})
			})
		}
	}
}

// pulse finds out how far the stream is whole.
type pulse struct {
	l     *Listener
	since time.Time

	mu    sync.Mutex
	first uint64      // guarded by mu; number of the first ping without a pong
	sent  []time.Time // guarded by mu; when such were sent, one after the other
	heard time.Time   // guarded by mu; when the last pong was here
}

// run pings until ctx ends, and ends a stream that is silent.
func (p *pulse) run(ctx context.Context, s *socket) {
	tick := time.NewTicker(p.l.o.Ping)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := p.l.o.Now()
		p.mu.Lock()
		dead := !clock.Within(p.heard, now, stall)
		number := p.first + uint64(len(p.sent))
		p.sent = append(p.sent, now)
		p.mu.Unlock()
		if dead || s.write(opPing, binary.BigEndian.AppendUint64(nil, number)) != nil {
			s.close() // ends the reader, too
			return
		}
	}
}

// pong takes in a pong: what the server had sent before the ping was here is
// here.
func (p *pulse) pong(payload []byte) {
	if len(payload) != 8 {
		return
	}
	number := binary.BigEndian.Uint64(payload)
	p.mu.Lock()
	var at time.Time
	nth := number - p.first
	ok := nth < uint64(len(p.sent)) // else it was never sent, or answered before
	if ok {
		at, p.first, p.sent, p.heard = p.sent[nth], number+1, p.sent[nth+1:], p.l.o.Now()
	}
	p.mu.Unlock()
	if at = at.Add(-slack); ok && at.After(p.since) {
		p.l.o.Stream.Whole(p.since, at)
	}
}
