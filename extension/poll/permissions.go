package poll

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wire"
)

// Authority answers what a token may do.
type Authority interface {
	// Capabilities asks sys/capabilities-self for paths in one namespace. A
	// status other than 200 is no error.
	Capabilities(ctx context.Context, id *cache.Identity, namespace string, paths []string) (status int, capabilities map[string][]string, err error)
	// LookUp asks auth/token/lookup-self of a caller's token. With a status other
	// than 200 nothing of the token is known but when it was asked.
	LookUp(ctx context.Context, id *cache.Identity, namespace string) (status int, token cache.Token, err error)
}

// Permissions confirms capabilities: once in a refresh interval, at the next poll or
// read, one call of sys/capabilities-self asks for all paths of a token in a
// namespace. Those who ask at the same time share a call, but not by package
// coalesce: a call lasts as long as whoever began it may wait, what that tells of
// the origin depends on it, and who comes too late for one shares the next.
type Permissions struct {
	access *cache.Access
	own    *cache.Identity
	origin Authority
	log    *slog.Logger
	now    func() time.Time

	directory Directory // nil: none

	mu      sync.Mutex
	running map[question]chan struct{} // guarded by mu
	known   time.Time                  // guarded by mu; when the directory was last looked at

	size   atomic.Int64 // paths that a call may ask for: from few to batch
	warned sync.Once
}

// Directory knows what other instances of the same identity may read.
type Directory interface {
	// Known returns what is known of the identity's capabilities.
	Known(ctx context.Context) map[cache.Capability]cache.Confirmation
	// Confirming reports whether another instance of the identity is known to confirm
	// them just now; else it keeps others from it for a short while. It excludes nothing.
	Confirming(ctx context.Context) bool
}

// NewPermissions returns a Permissions for the capabilities in c. directory is nil
// where there is no shared tier.
func NewPermissions(c *cache.Cache, origin Authority, directory Directory, log *slog.Logger, now func() time.Time) *Permissions {
	p := &Permissions{access: c.Access(), own: c.Own(), origin: origin, directory: directory, log: log, now: now, running: make(map[question]chan struct{})}
	p.size.Store(batch)
	return p
}

// ask asks for capabilities and says which capabilities they hold and lack.
func (p *Permissions) ask(ctx context.Context, id *cache.Identity, namespace string, needs []cache.Capability) (status int, held, lost []cache.Capability, err error) {
	paths := make([]string, len(needs))
	for i, r := range needs {
		paths[i] = r.Path
		if r.List {
			paths[i] += "/" // Vault checks a list at the path with a slash
		}
	}
	status, capabilities, err := p.origin.Capabilities(ctx, id, namespace, paths)
	if err != nil || status != http.StatusOK {
		return status, nil, nil, err
	}
	for i, r := range needs {
		needed := "read"
		if r.List {
			needed = "list"
		}
		if c := capabilities[paths[i]]; slices.Contains(c, needed) || slices.Contains(c, "root") {
			held = append(held, r)
		} else {
			lost = append(lost, r)
		}
	}
	return status, held, lost, nil
}

// Bounds of one call. A caller can make a call's answer long, by names, and slow,
// by their number: what it may read is told by then, but not in time, and must not
// look like an origin that says nothing.
const (
	batch = 2000      // paths
	few   = 64        // paths that an origin which is well tells of in time, whatever the policies
	names = 512 << 10 // bytes of paths, in JSON: proxies before Vault often allow 1 MiB, and it repeats each path twice
)

// cut returns as many of them as one call may ask for, the first for
// certain.
func cut(needs []cache.Capability, most int64) []cache.Capability {
	size := 0
	for i, r := range needs {
		path, _ := json.Marshal(r.Path)
		size += len(path)
		if i > 0 && (int64(i) >= most || size > names) {
			return needs[:i]
		}
	}
	return needs
}

// question is what one call asks for at a time.
type question struct {
	id        *cache.Identity
	namespace string
}

// beginLocked takes a question; the function it returns gives it back.
func (p *Permissions) beginLocked(q question) func() {
	over := make(chan struct{})
	p.running[q] = over
	return func() {
		p.mu.Lock()
		delete(p.running, q)
		p.mu.Unlock()
		close(over)
	}
}

// Confirm brings the capabilities of id up to date that one hangs on, if that is
// due: by one call, which asks for as many others of its namespace as it may.
// Those who ask at the same time share the call. What the origin says is
// recorded in the cache; where it fails, the cache decides by its behaviour,
// optimistic or pessimistic. Where it only was not told in time, or not
// understood, what is due stays so, and the read itself has to ask.
func (p *Permissions) Confirm(ctx context.Context, id *cache.Identity, need cache.Capability) {
	q := question{id, need.Namespace}
	p.mu.Lock()
	for p.running[q] != nil {
		wait := p.running[q]
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return
		}
		p.mu.Lock() // it may not have been among what was asked for
	}
	due, lifetime := p.access.Due(id, p.now())
	if len(due[q.namespace]) == 0 && !lifetime {
		p.mu.Unlock()
		return
	}
	end := p.beginLocked(q)
	p.mu.Unlock()
	defer end()
	if id.Own() && p.directory != nil {
		p.share(ctx)
		due, _ = p.access.Due(id, p.now())
	}
	if lifetime {
		if !p.lifetime(ctx, id, q.namespace) {
			return
		}
		due, _ = p.access.Due(id, p.now()) // nothing of a token whose uses are counted
	}
	needs := due[q.namespace]
	if len(needs) == 0 {
		return
	}
	if i := slices.IndexFunc(needs, need.HangsOn); i > 0 {
		needs[0], needs[i] = needs[i], needs[0]
	}
	p.confirm(ctx, id, q.namespace, cut(needs, p.size.Load()), lifetime)
}

// share takes in what other instances may read, and lets one go first that confirms it
// just now: of those that start together one logs in and asks.
func (p *Permissions) share(ctx context.Context) {
	p.takeKnown(ctx)
	left := func() bool {
		due, _ := p.access.Due(p.own, p.now())
		return len(due) > 0 && ctx.Err() == nil
	}
	if left() && p.directory.Confirming(ctx) {
		glances(ctx, 2*glanceMost, func(time.Duration) bool {
			p.access.Take(p.directory.Known(ctx))
			return !left()
		})
	}
}

// takeKnown takes in what other instances may read, so that one call confirms all
// of it: once in a while is enough.
func (p *Permissions) takeKnown(ctx context.Context) {
	if p.directory == nil {
		return
	}
	now := p.now()
	p.mu.Lock()
	lately := clock.Within(p.known, now, knownFor)
	if !lately {
		p.known = now
	}
	p.mu.Unlock()
	if !lately {
		p.access.Take(p.directory.Known(ctx))
	}
}

// knownFor is how long the directory is not looked at again.
const knownFor = time.Minute

// ConfirmAll brings all capabilities of id up to date that are due, as far as ctx
// lasts; what others ask for meanwhile it leaves to them.
func (p *Permissions) ConfirmAll(ctx context.Context, id *cache.Identity) {
	due, _ := p.access.Due(id, p.now())
	answered := false
	for namespace, needs := range due {
		q := question{id, namespace}
		p.mu.Lock()
		if p.running[q] != nil {
			p.mu.Unlock()
			continue
		}
		end := p.beginLocked(q)
		p.mu.Unlock()
		for len(needs) > 0 {
			chunk := cut(needs, p.size.Load())
			if !p.confirm(ctx, id, namespace, chunk, answered) {
				end()
				return
			}
			needs, answered = needs[len(chunk):], true
		}
		end()
	}
}

// sized adapts what calls may ask for to how one for n paths went.
func (p *Permissions) sized(n int, well bool) {
	switch size := p.size.Load(); {
	case !well && n > few:
		p.size.Store(few)
	case well && int64(n) >= size:
		p.size.Store(min(2*size, batch))
	}
}

// lifetime learns of a caller's token, and reports whether the origin said.
func (p *Permissions) lifetime(ctx context.Context, id *cache.Identity, namespace string) bool {
	status, token, err := p.origin.LookUp(ctx, id, namespace)
	switch {
	case err != nil && limited(err):
		return false
	case err != nil || wire.Failed(status):
		p.failed(ctx, id, err, status)
		return false
	case status != http.StatusOK: // it may not look at itself: the refresh interval bounds it
		token = cache.Token{Asked: token.Asked, Hidden: true}
	}
	p.access.Learned(id, token)
	return true
}

// failed lets the behaviour setting decide, unless whoever asked left: that says
// nothing of the origin, and a caller whose token was revoked must not be able
// to put off the question by leaving.
func (p *Permissions) failed(ctx context.Context, id *cache.Identity, err error, status int) {
	if err != nil && givenUp(ctx) {
		return
	}
	p.log.Warn("confirm permissions: the origin did not answer; the behaviour setting decides", "error", err, "status", status)
	p.access.ConfirmFailed(id, p.now().Add(time.Second), status)
	if id.Own() {
		p.takeKnown(context.WithoutCancel(ctx)) // what ended meanwhile does not outlast an outage
	}
}

// confirm makes one call, and reports whether another is of use. answered says
// that the origin answered one before it, within the same ctx.
func (p *Permissions) confirm(ctx context.Context, id *cache.Identity, namespace string, needs []cache.Capability, answered bool) bool {
	sentAt := p.now()
	status, held, lost, err := p.ask(ctx, id, namespace, needs)
	switch {
	case err != nil && (limited(err) || (tooLate(err) || status/100 == 4) && (answered || len(needs) > few)):
		// Whoever asks for much can bring this about, and have what stands before the
		// origin refuse a body for its length. A silent origin is told by the next
		// call, which asks for few.
		if !givenUp(ctx) {
			p.sized(len(needs), false)
			p.log.Debug("confirm permissions: no answer within our own limits; reads ask the origin", "error", err, "paths", len(needs))
		}
		return false
	case err != nil || wire.Failed(status):
		p.failed(ctx, id, err, status)
		return false
	case status == http.StatusForbidden:
		id.Reset()
		p.warned.Do(func() {
			p.log.Warn(`the origin refused sys/capabilities-self, so nothing this token read may be served from the cache; its policies lack: path "sys/capabilities-self" { capabilities = ["update"] }`)
		})
		return false
	case status != http.StatusOK:
		p.sized(len(needs), false)
		p.log.Warn("confirm permissions: the origin's answer does not tell; reads ask the origin", "status", status, "paths", len(needs))
		return true
	}
	p.sized(len(needs), true)
	p.access.Confirm(id, sentAt, held, lost)
	return true
}

// limited reports whether a request was not sent for limits of our own.
func limited(err error) bool {
	var e *vault.Error
	return errors.As(err, &e) && e.Kind == vault.Limited
}

// tooLate reports whether there was no answer in time.
func tooLate(err error) bool {
	var e *vault.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &e) && e.Kind == vault.Timeout
}
