package poll

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// Authority answers what a token may do.
type Authority interface {
	// Capabilities asks sys/capabilities-self for paths in one namespace. A
	// status other than 200 is no error.
	Capabilities(ctx context.Context, id *cache.Identity, namespace string, paths []string) (status int, capabilities map[string][]string, err error)
	// Lifetime asks auth/token/lookup-self how long a caller's token lasts; 0
	// means for ever.
	Lifetime(ctx context.Context, id *cache.Identity, namespace string) (status int, ttl time.Duration, err error)
}

// Permissions confirms grants: once in a refresh interval, at the next poll or
// read, one call of sys/capabilities-self asks for all paths of a token.
type Permissions struct {
	cache  *cache.Cache
	origin Authority
	log    *slog.Logger
	now    func() time.Time

	directory Directory // nil: none

	mu      sync.Mutex
	running map[*cache.Identity]chan struct{} // guarded by mu
	wanted  map[cache.Right]bool              // guarded by mu; callers of Acquire wait to ask for them
	asked   map[cache.Right]bool              // guarded by mu; what the running call of Acquire asks for
	warned  bool                              // guarded by mu
}

// Directory knows what else instances like this one read.
type Directory interface {
	// Known returns rights that are worth asking for along with others.
	Known(ctx context.Context) []cache.Right
}

// NewPermissions returns a Permissions for the grants in c. directory is nil
// where there is no shared tier.
func NewPermissions(c *cache.Cache, origin Authority, directory Directory, log *slog.Logger, now func() time.Time) *Permissions {
	return &Permissions{
		cache: c, origin: origin, directory: directory, log: log, now: now,
		running: make(map[*cache.Identity]chan struct{}), wanted: make(map[cache.Right]bool), asked: make(map[cache.Right]bool),
	}
}

// Acquire asks whether the extension's own identity has a right that nothing
// was read with yet, and with the same call for all others that instances like
// this one use: one login and one call, and no read. Those who ask at the same
// time share it, or the next. A right to read with a query cannot be asked for.
func (p *Permissions) Acquire(ctx context.Context, right cache.Right) {
	if right.Query != "" {
		return
	}
	id := p.cache.OwnIdentity()
	p.mu.Lock()
	if !p.asked[right] {
		p.wanted[right] = true
	}
	for p.running[id] != nil {
		wait := p.running[id]
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		if !p.wanted[right] {
			p.mu.Unlock()
			return // it was among what was asked for
		}
	}
	over := make(chan struct{})
	p.running[id] = over
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.running, id)
		clear(p.asked)
		p.mu.Unlock()
		close(over)
	}()
	var known []cache.Right
	if p.directory != nil {
		known = p.directory.Known(ctx)
	}
	rights := p.take(right, known)
	sentAt := p.now()
	status, held, _, err := p.ask(ctx, id, right.Namespace, rights)
	switch {
	case err != nil || status != http.StatusOK && status != http.StatusForbidden:
		p.log.Warn("ask for permissions: the secret is read instead", "error", err, "status", status)
	case status == http.StatusForbidden:
		p.warnPolicy()
	default:
		p.cache.Granted(held, sentAt)
	}
}

// take chooses what to ask for in one call: right, what others want at the
// moment, and what is known to be of use, all in one namespace.
func (p *Permissions) take(right cache.Right, known []cache.Right) []cache.Right {
	p.mu.Lock()
	defer p.mu.Unlock()
	rights := []cache.Right{right}
	p.asked[right] = true
	add := func(r cache.Right) {
		if r.Namespace == right.Namespace && r.Query == "" && !p.asked[r] && len(rights) < batch {
			p.asked[r] = true
			rights = append(rights, r)
		}
	}
	for r := range p.wanted {
		add(r)
	}
	for _, r := range known {
		add(r)
	}
	for r := range p.asked {
		delete(p.wanted, r)
	}
	return rights
}

// ask asks for capabilities and says which rights they hold and lack.
func (p *Permissions) ask(ctx context.Context, id *cache.Identity, namespace string, rights []cache.Right) (status int, held, lost []cache.Right, err error) {
	paths := make([]string, len(rights))
	for i, r := range rights {
		paths[i] = r.Path
		if r.List {
			paths[i] += "/" // Vault checks a list at the path with a slash
		}
	}
	status, capabilities, err := p.origin.Capabilities(ctx, id, namespace, paths)
	if err != nil || status != http.StatusOK {
		return status, nil, nil, err
	}
	for i, r := range rights {
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

// batch bounds the paths of one call: Vault's default request limit is 32 MiB,
// proxies before it often allow 1.
const batch = 2000

// Confirm brings the grants of id up to date if that is due. Those who ask at
// the same time share the call. What the origin says is recorded in the cache;
// where it fails, the cache decides by its behaviour, optimistic or
// pessimistic.
func (p *Permissions) Confirm(ctx context.Context, id *cache.Identity) {
	p.mu.Lock()
	if wait := p.running[id]; wait != nil {
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
		}
		return
	}
	now := p.now()
	due, lifetime := p.cache.Due(id, now)
	if len(due) == 0 && !lifetime {
		p.mu.Unlock()
		return
	}
	over := make(chan struct{})
	p.running[id] = over
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.running, id)
		p.mu.Unlock()
		close(over)
	}()
	if lifetime {
		answered, refused := p.lifetime(ctx, id, p.cache.Home(id))
		if !answered {
			return
		}
		if refused {
			// It may not look at itself, or is no token any more: what it may
			// read tells which.
			p.cache.DoubtGrants(id)
			due, _ = p.cache.Due(id, p.now())
		}
	}
	for namespace, rights := range due {
		for chunk := range slices.Chunk(rights, batch) {
			if !p.confirm(ctx, id, namespace, chunk) {
				return
			}
		}
	}
}

// lifetime learns when a caller's token ends. answered is false where the
// origin did not say; refused, where it said 403.
func (p *Permissions) lifetime(ctx context.Context, id *cache.Identity, namespace string) (answered, refused bool) {
	asked := p.now()
	status, ttl, err := p.origin.Lifetime(ctx, id, namespace)
	switch {
	case err != nil || cache.OriginFailure(status):
		p.failed(ctx, id, err, status)
		return false, false
	case status == http.StatusOK && ttl > 0:
		p.cache.Learned(id, asked.Add(ttl))
	default:
		// Never ends, or may not look at itself: the refresh interval bounds it.
		p.cache.Learned(id, time.Time{})
	}
	return true, status == http.StatusForbidden
}

// failed lets the behaviour setting decide, unless whoever asked left: that says
// nothing of the origin, and a caller whose token was revoked must not be able
// to put off the question by leaving.
func (p *Permissions) failed(ctx context.Context, id *cache.Identity, err error, status int) {
	if err != nil && givenUp(ctx) {
		return
	}
	p.log.Warn("confirm permissions: the origin did not answer; the behaviour setting decides", "error", err, "status", status)
	p.cache.ConfirmFailed(id, p.now().Add(time.Second))
}

func (p *Permissions) confirm(ctx context.Context, id *cache.Identity, namespace string, rights []cache.Right) bool {
	sentAt := p.now()
	status, held, lost, err := p.ask(ctx, id, namespace, rights)
	switch {
	case err != nil || cache.OriginFailure(status):
		p.failed(ctx, id, err, status)
		return false
	case status == http.StatusForbidden:
		p.cache.FlushGrants(id)
		p.warnPolicy()
		return false
	case status != http.StatusOK:
		p.failed(ctx, id, nil, status)
		return false
	}
	p.cache.Confirm(id, sentAt, held, lost)
	return true
}

// warnPolicy says once what is missing.
func (p *Permissions) warnPolicy() {
	p.mu.Lock()
	warned := p.warned
	p.warned = true
	p.mu.Unlock()
	if !warned {
		p.log.Warn(`the origin refused sys/capabilities-self, so nothing this token read may be served from the cache; its policies lack: path "sys/capabilities-self" { capabilities = ["update"] }`)
	}
}
