// Package proxy serves Vault's API on localhost: reads of KV from the cache,
// everything else from the origin.
//
// A request goes through the guard (guard.go), which refuses what no honest
// client of a local proxy sends. /proxy/v1/ is answered here (local.go). A
// plain read is looked up (serve.go); all else, and what the cache does not
// know to be KV, is passed through as it came (pass.go), writes in brackets
// that evict what they change.
package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/material"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/queue"
)

// Sender sends a request to the origin under an identity.
type Sender interface {
	Send(req *http.Request, id *cache.Identity, retry bool) (*http.Response, error)
}

// Listen binds an address.
type Listen func(ctx context.Context, network, address string) (net.Listener, error)

// Options configures a Server.
type Options struct {
	config.Config      // its listeners, and how they and the cache treat callers
	HasToken      bool // the extension has a login of its own

	Cache  *cache.Cache
	Sender Sender
	Reads  *poll.Reads
	// Requested returns the state that the values of X-Vault-Index require. ok is false
	// where only the origin can judge them, as always where it is nil.
	Requested func(header []string) (state string, ok bool)

	Gate    func(r *http.Request) error            // called before each request to /v1/; its error refuses it
	Relogin func(ctx context.Context) error        // X-Vault-Token-Options: revoke
	Revoked func()                                 // the extension's token was revoked through the proxy
	Status  func(error) int                        // maps an error of the origin to an HTTP status
	Metrics func(io.Writer)                        // GET /proxy/v1/metrics
	State   func(context.Context, io.Writer) error // GET /proxy/v1/status: what `thaw status` shows, as JSON
	Access  *slog.Logger                           // gets a line for each request to /v1/; nil: none
	Log     *slog.Logger                           //
	Now     func() time.Time                       //
	Waiting *poll.Waiting                          // how long requests may wait; nil: as long as they like
	Listen  Listen                                 // nil: the system's
}

// Server serves the proxy.
type Server struct {
	o         Options
	pass      *httputil.ReverseProxy
	listeners []net.Listener
	servers   []*http.Server
	pairs     []*material.Kept[*tls.Certificate] // of listeners with TLS
	wg        sync.WaitGroup
	times     times
	host      atomic.Pointer[string] // the last Host header that was allowed
	room      *room
	bodies    *queue.Pool // bytes of bodies on their way
	counts    counters
	waits     waits
}

type counters struct {
	requests, hits, shared, misses, stale, bypass, writes, refused, failed atomic.Uint64
}

// Counts are totals since the start.
type Counts struct {
	Requests uint64 // requests to /v1/ let in
	Hits     uint64 // answered from the cache, verified
	Shared   uint64 // of them: taken over from the shared tier
	Stale    uint64 // answered from the cache, marked stale
	Misses   uint64 // reads that the origin answered
	Bypass   uint64 // reads that the cache has no part in
	Writes   uint64
	Refused  uint64 // by the guard
	Failed   uint64 // answered with an error of thaw's own
}

// New returns a server that listens on nothing yet.
func New(o Options) *Server {
	s := &Server{o: o}
	s.pass, s.room = s.reverseProxy(), newRoom(o.MaxConns, descriptors())
	s.bodies = queue.NewPool(cmp.Or(o.BodyBytes, 16<<20), 0)
	return s
}

// Counts returns the totals.
func (s *Server) Counts() Counts {
	c := &s.counts
	return Counts{c.requests.Load(), c.hits.Load(), c.shared.Load(), c.stale.Load(), c.misses.Load(), c.bypass.Load(), c.writes.Load(), c.refused.Load(), c.failed.Load()}
}

// Listen binds every address. Requests wait in the backlog until Serve.
func (s *Server) Listen() error {
	var errs []error
	for _, l := range s.o.Listeners {
		if err := s.listen(l); err != nil && !l.Optional {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		s.closeListeners()
		return errors.Join(errs...)
	}
	return nil
}

func (s *Server) listen(l config.Listener) error {
	var tlsConfig *tls.Config
	if l.CertFile != "" {
		pair := material.Keep(func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(l.CertFile, l.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("certificate %s with key %s: %w", l.CertFile, l.KeyFile, err)
			}
			return &cert, nil
		}, l.CertFile, l.KeyFile)
		if _, err := pair.Get(); err != nil {
			return fmt.Errorf("listen on %s: %w", l.Address, err)
		}
		s.pairs = append(s.pairs, pair)
		tlsConfig = &tls.Config{MinVersion: cmp.Or(l.MinTLS, tls.VersionTLS12), MaxVersion: l.MaxTLS, CipherSuites: l.CipherSuites}
		// Each handshake looks at the files: a client that refuses the certificate says
		// so when it is too late, and a look costs less than the handshake.
		tlsConfig.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.Reload()
			return pair.Get()
		}
	}
	bind := s.o.Listen
	if bind == nil {
		plain := net.ListenConfig{Control: ownersOnly}
		plain.SetMultipathTCP(false) // Go's default; of no use on loopback, and dear
		bind = plain.Listen
	}
	var ln net.Listener
	var err error
	if l.Network == "unix" {
		err = removeSocket(l.Address)
	}
	if err == nil {
		ln, err = bind(context.Background(), l.Network, l.Address)
	}
	if of, ok := errors.AsType[*net.OpError](err); ok {
		err = of.Err // the address stands before it
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w: set THAW_LISTEN to a free address of this host, or to a path in a folder that thaw may write to; thaw doctor says who listens there", l.Address, err)
	}
	if l.Network == "unix" {
		if err := os.Chmod(l.Address, cmp.Or(l.SocketMode, 0o600)); err != nil {
			ln.Close()
			return fmt.Errorf("listen on %s: %w", l.Address, err)
		}
	}
	if tlsConfig != nil {
		ln = tls.NewListener(ln, tlsConfig)
	}
	s.listeners = append(s.listeners, &roomyListener{Listener: ln, room: s.room, slack: s.o.BodyTimeout / 16, done: make(chan struct{})})
	s.servers = append(s.servers, &http.Server{
		Handler:           s.handler(&l),
		ReadHeaderTimeout: s.o.HeaderTimeout,
		WriteTimeout:      s.o.BodyTimeout,
		MaxHeaderBytes:    s.o.MaxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // a client's garbage is no event, and may hold a token
		Protocols:         http1(),
		ConnState:         noteState,
	})
	return nil
}

// Reload reads the listeners' certificates again. New files that cannot be used
// leave the old in use; the log tells.
func (s *Server) Reload() (changed bool) {
	for _, pair := range s.pairs {
		one, err := pair.Look()
		if err != nil {
			s.o.Log.Warn("the listener's new certificate cannot be used, and the old stays in use; correct it", "error", err)
		}
		changed = changed || one
	}
	return changed
}

// Reloads counts how often a listener's certificate changed and was taken in.
func (s *Server) Reloads() (n uint64) {
	for _, pair := range s.pairs {
		n += pair.Changes()
	}
	return n
}

// http1 keeps HTTP/2 and its cleartext upgrade out: a local client has no use
// for them, and each is a second parser of the same request.
func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// removeSocket removes a socket that a process before us left. Anything else
// at that path is not ours to remove.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file that is no socket, which may be removed")
	}
	conn, err := net.DialTimeout("unix", path, 100*time.Millisecond)
	if err == nil {
		conn.Close()
		return errors.New("another process serves there")
	}
	return os.Remove(path)
}

// Serve serves on what Listen bound, until Shutdown.
func (s *Server) Serve() {
	for i, ln := range s.listeners {
		s.wg.Go(func() {
			if err := s.servers[i].Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
				s.o.Log.Error("serve", "address", ln.Addr().String(), "error", err)
			}
		})
	}
}

// Addrs returns the addresses bound.
func (s *Server) Addrs() []string {
	var out []string
	for _, l := range s.listeners {
		out = append(out, l.Addr().String())
	}
	return out
}

// Shutdown stops listening, lets what is in flight end until ctx does, and
// then cuts it off.
func (s *Server) Shutdown(ctx context.Context) {
	var wg sync.WaitGroup
	for _, srv := range s.servers {
		wg.Go(func() {
			if srv.Shutdown(ctx) != nil {
				srv.Close()
			}
		})
	}
	wg.Wait()
	s.closeListeners()
	s.wg.Wait()
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		l.Close()
	}
}
