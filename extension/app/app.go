// Package app is the process that serves secrets: every part, wired as the
// settings say. Programs add what their platform knows: when an invocation
// begins, and when the process ends.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/answers"
	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/consistency"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/events"
	"github.com/thaw-project/thaw/extension/files"
	"github.com/thaw-project/thaw/extension/material"
	"github.com/thaw-project/thaw/extension/meter"
	"github.com/thaw-project/thaw/extension/origin"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/proxy"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wait"
)

// App is the process: every part, wired. Build makes them in this order.
type App struct {
	cfg    config.Config
	log    *slog.Logger
	stdout io.Writer
	hooks  Hooks
	now    func() time.Time

	client      *vault.Client
	tier        *tier.Tier          // nil without a shared tier
	keeper      *consistency.Keeper // nil where reads need not wait for writes
	tokens      *auth.Manager
	cursor      *cursor.Cursor
	own         *cache.Identity // the extension's own
	session     *origin.Session
	cache       *cache.Cache
	permissions *poll.Permissions
	files       *files.Keeper // nil without file mode
	poller      *poll.Poller
	waiting     *poll.Waiting
	reads       *poll.Reads
	events      *events.Listener                        // nil where polls are all there is
	emf         *meter.EMF                              // nil without
	proxy       *proxy.Server                           // without a listener in file mode
	status      *coalesce.Group[struct{}, vault.Status] // the origin's, asked for once for all who ask at a time
	answers     *answers.Account
	credentials *material.Kept[struct{}]
	prepared    atomic.Bool // for the first read
	loginDue    atomic.Bool // of new credentials, since Vault was away
	reloads     atomic.Uint64
	started     time.Time

	mu     sync.Mutex // guards the fields below
	summed Tally      // what lines of activity have told of
	told   time.Time  // when the last of them was written
}

// Hooks are what the platform adds.
type Hooks struct {
	Gate    func(r *http.Request) error // before each request to /v1/; nil: none
	Frozen  bool                        // the host freezes between invocations
	Version string                      // of the program, for what is shown
	Unwrap  tier.Unwrap                 // decrypts the shared tier's key; nil: it is in the settings

	Login auth.Platform // by what only the platform has; nil: none

	// Clock and network are the machine's, unless a simulation has its own.
	Now    func() time.Time                                                  // wall clock, with a monotonic reading; nil: time.Now
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error) // to the origin and to memcached; nil: net.Dialer
	Listen proxy.Listen                                                      // nil: the system's
}

// statusFor maps an error of the origin or the login to an HTTP status.
func statusFor(err error) int {
	if _, panicked := errors.AsType[*rescue.Error](err); panicked {
		return http.StatusInternalServerError
	}
	if login := new(auth.LoginError); errors.As(err, &login) {
		if login.Status >= 400 && login.Status < 500 && login.Status != http.StatusTooManyRequests {
			return http.StatusForbidden
		}
		if login.Status != 0 {
			return http.StatusServiceUnavailable
		}
	}
	if errors.Is(err, auth.ErrRecently) || errors.Is(err, coalesce.ErrClosed) {
		return http.StatusServiceUnavailable
	}
	return vault.StatusFor(err)
}

// Listen binds the proxy's addresses and serves them.
func (a *App) Listen() error {
	err := a.proxy.Listen()
	if err == nil {
		a.proxy.Serve()
	}
	return err
}

// Start begins what a process does that no platform starts in steps: it listens, writes
// file mode's files, and has work hold what goes on until ctx ends.
func (a *App) Start(ctx context.Context, work *sync.WaitGroup) error {
	if err := a.Listen(); err != nil {
		return err
	}
	if err := a.WriteFiles(ctx); err != nil {
		return fmt.Errorf("write secret files; THAW_FILE_OPTIONAL lets the function start without: %w", err)
	}
	if len(a.Addrs()) > 0 {
		a.Started()
	}
	if !a.hooks.Frozen {
		work.Go(func() { a.Watch(ctx) })
	}
	if a.cfg.EMF { // by the minute, since requests overlap
		work.Go(func() { a.Reports(ctx) })
	}
	return nil
}

// WriteFiles writes file mode's files, within its budget. Under THAW_FILE_OPTIONAL what
// fails is a line of the log, and no error.
func (a *App) WriteFiles(ctx context.Context) error {
	if a.files == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.cfg.FileTimeout, errors.New("THAW_FILE_TIMEOUT ("+a.cfg.FileTimeout.String()+") is over"))
	defer cancel()
	// The first in need of a login and of an index to record; what fails is told by the files.
	_ = a.connect(ctx)
	err := a.files.Write(ctx)
	if err != nil && a.cfg.FileOptional {
		a.log.Warn("write secret files; THAW_FILE_OPTIONAL lets the function start without", "error", err)
		return nil
	}
	return err
}

// Invoke begins an epoch: an invocation, until deadline (zero: unknown), of
// which came at the time at. Nothing here waits.
func (a *App) Invoke(at, deadline time.Time) {
	a.client.Thawed(at)
	a.tier.Thawed()
	a.tokens.Thawed()
	a.waiting.Invoke(at, deadline)
	a.poller.Invoke(at)
}

// Overlap begins an epoch as Invoke does, of an invocation that comes while
// others run or right after them: nothing can have slept meanwhile.
func (a *App) Overlap(at time.Time) { a.poller.Invoke(at) }

// Verified waits until the poll that runs, if there is one, is over.
func (a *App) Verified(ctx context.Context) { a.poller.Over(ctx) }

// Looked waits until the poll of this epoch has looked at what others verified.
func (a *App) Looked(ctx context.Context) { a.poller.Looked(ctx) }

// Addrs are where the proxy listens.
func (a *App) Addrs() []string { return a.proxy.Addrs() }

// Watch does, until ctx ends, what no INVOKE does on hosts that don't freeze:
// it gets the shared tier's key, renews the token, looks at files that may have
// changed, listens to the origin's events, and polls for file mode, since no read comes through the proxy that
// would.
func (a *App) Watch(ctx context.Context) {
	var work sync.WaitGroup
	keep := func(what string, f func(context.Context)) { work.Go(func() { rescue.Keep(ctx, a.log, what, f) }) }
	keep("wait for the shared cache's key", a.tier.AwaitKey)
	keep("keep the login alive", a.tokens.Watch)
	keep("look at files", func(ctx context.Context) {
		for wait.For(ctx, reloadEvery) == nil {
			a.Reload(ctx)
		}
	})
	if a.events != nil {
		keep("listen to events", a.events.Run)
	}
	if a.files != nil && a.polls() {
		keep("poll ahead", func(ctx context.Context) {
			for wait.For(ctx, a.cfg.Recheck) == nil {
				a.poller.Ahead()
			}
		})
	}
	work.Wait()
}

// tierTime is how long a shutdown waits at most for what is on its way to the
// shared tier: calls of memcached that hang would take their own time, each.
const tierTime = 600 * time.Millisecond

// Shutdown ends everything within ctx: what is in flight first, the login last.
func (a *App) Shutdown(ctx context.Context) {
	a.waiting.End(a.now())
	shared, done := context.WithTimeout(ctx, tierTime)
	defer done()
	defer context.AfterFunc(shared, a.tier.Close)()
	drain, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	a.proxy.Shutdown(drain)
	cancel()
	_ = a.status.Close(ctx)
	a.poller.Close()
	a.cursor.Close()
	a.cache.Close()
	a.session.Close()
	revoke, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	a.tokens.Shutdown(revoke)
	cancel()
	a.client.Close()
	a.tier.Close()
}
