// Package azurefn is the custom handler that the Azure Functions host starts:
// it starts the user's own handler, hands every invocation on to it, and tells
// thaw of each one before it does.
//
//	host --POST /fn--> Handler --POST /fn--> the user's handler
//	                     |                        |
//	                     | Invoked                | GET /v1/...
//	                     v                        v
//	                   a poll begins            the proxy: waits for the poll
//
// # Life
//
// The host takes any answer on its port as "ready", so the port is bound only
// when the child accepts connections on a port of its own, which it finds in
// the same variable (FUNCTIONS_CUSTOMHANDLER_PORT). The host ends a handler
// with SIGKILL, so nothing depends on a signal: the kernel kills the child when
// its parent dies. A child that ends takes the handler with it, and the host
// starts both again. Where somebody does send SIGTERM (a container that stops),
// what is in flight is waited for, then the child gets the signal too.
//
// # Invocations
//
// A request is handed on as it came: method, path, query, headers, body, with
// streams, trailers and upgrades. Only `GET /` without an invocation id, by
// which the host looks whether the handler lives, is answered here. The poll
// that an invocation starts does not delay it: the child's reads wait, see
// Rounds.
//
// Facts about the host are from its source,
// https://github.com/Azure/azure-functions-host (src/WebJobs.Script/Workers).
package azurefn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Variables by which the host tells a handler its port; both hold the same one
// (HttpWorkerProcess.cs).
const (
	PortVariable       = "FUNCTIONS_CUSTOMHANDLER_PORT"
	LegacyPortVariable = "FUNCTIONS_HTTPWORKER_PORT"
)

// InvocationHeader is set by the host on every invocation, over whatever a
// client sent (DefaultHttpWorkerService.cs).
const InvocationHeader = "X-Azure-Functions-InvocationId"

// Function runs a function of thaw's own. Of its trigger it learns whether that is a
// timer that fires later than its schedule says. Its lines go to the host's log.
type Function func(ctx context.Context, pastDue bool) []string

// Options configure a Handler.
type Options struct {
	Port      int                 // to serve the host on, on 127.0.0.1; required
	Command   []string            // the user's handler; empty: there is none
	Environ   []string            // the child's environment; its port is put in
	Functions map[string]Function // what is run here instead of handed on, by function name

	Invoked func(at time.Time) // called before an invocation is handed on; must not block; required with a command

	StartTimeout time.Duration // until the child accepts connections; required with a command

	Stdout, Stderr io.Writer // get the child's output too; required
	Log            *slog.Logger
}

const (
	drainTimeout = 5 * time.Second // for what is in flight after SIGTERM
	stopTimeout  = 3 * time.Second // for the child after its SIGTERM
)

// Handler is one custom handler.
type Handler struct {
	o       Options
	forward *forwarder      // nil without a command
	serving sync.WaitGroup  // requests, upgraded ones too
	base    context.Context // of functions of thaw's own; ends when the drain is over
}

// errStopped says that the handler ended because it was asked to.
var errStopped = errors.New("asked to stop")

// Run serves until ctx ends or the child does. Its error says why it ended, and
// ExitStatus what to tell the host; nil: ctx ended and everything is drained.
func Run(ctx context.Context, o Options) error {
	if o.Port < 1 || o.Port > 65535 {
		return fmt.Errorf("there is no port to serve on: the Azure Functions host sets %s; this program is started by the host (host.json, customHandler)", PortVariable)
	}
	base, cancel := context.WithCancel(context.Background())
	h := &Handler{o: o, base: base}
	kid := new(child)      // stays empty without a command
	defer h.serving.Wait() // whatever ends it: nobody is left behind
	defer cancel()
	if len(o.Command) > 0 {
		free, err := listen(0)
		if err != nil {
			return fmt.Errorf("find a port for %s: %w", o.Command[0], err)
		}
		free.Close()
		if kid, err = startChild(o, free.Addr().(*net.TCPAddr).Port); err != nil {
			return err
		}
		defer kid.kill()
		if err := kid.awaitReady(ctx, o.StartTimeout); errors.Is(err, errStopped) {
			kid.stop()
			return nil
		} else if err != nil {
			return err
		}
		h.forward = newForwarder(kid.addr, o.Log)
		defer h.forward.close()
	}
	l, err := listen(o.Port) // after a restart the host gives the same one
	if err != nil {
		return fmt.Errorf("bind the port that the host gave in %s: %w", PortVariable, err)
	}
	server := &http.Server{
		Handler: h, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug), DisableGeneralOptionsHandler: true,
		MaxHeaderBytes: 1 << 20,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	o.Log.Info("serving the Azure Functions host", "port", o.Port, "command", len(o.Command) > 0)
	defer server.Close()
	select {
	case <-kid.done:
		return kid.ended(true)
	case err := <-served:
		return fmt.Errorf("serve the host: %w", err)
	case <-ctx.Done():
	}
	h.drain(server)
	cancel() // what a run of the warm-up does then, it does while the child ends
	if len(o.Command) > 0 {
		kid.stop()
	}
	return nil
}

// drain lets what is in flight come to its end.
func (h *Handler) drain(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	h.o.Log.Info("asked to stop: waiting for invocations in flight", "at_most_seconds", drainTimeout.Seconds())
	if err := server.Shutdown(ctx); err != nil {
		h.o.Log.Warn("invocations were cut off", "error", err)
		return
	}
	over := make(chan struct{})
	go func() {
		h.serving.Wait()
		close(over)
	}()
	select { // upgraded connections, which Shutdown does not know
	case <-over:
	case <-ctx.Done():
		h.o.Log.Warn("connections were cut off", "error", ctx.Err())
	}
}

// listen binds a port of loopback; 0: one that nobody uses now.
func listen(port int) (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// ServeHTTP answers the host.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.serving.Add(1)
	defer h.serving.Done()
	if isPing(r) {
		w.WriteHeader(http.StatusOK)
		return
	}
	if f, ok := h.o.Functions[functionOf(r)]; ok {
		h.run(w, r, f)
		return
	}
	if h.forward == nil {
		h.o.Log.Warn("the host invoked a function that is not here: host.json gives thaw-azure no command to start", "path", r.URL.Path)
		refuse(w, http.StatusNotFound, "there is no such function here, and host.json gives thaw-azure no command that would have it")
		return
	}
	h.o.Invoked(time.Now())
	h.forward.ServeHTTP(w, r)
}

// isPing reports whether r is the host's look whether the handler lives: GET /
// without an invocation id (DefaultHttpWorkerService.PingAsync).
func isPing(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get(InvocationHeader) == ""
}

// functionOf is the name of the function in a request that may be an envelope:
// those are POST /<FunctionName>.
func functionOf(r *http.Request) string {
	if r.Method != http.MethodPost || r.Header.Get(InvocationHeader) == "" || len(r.URL.Path) < 2 {
		return ""
	}
	return r.URL.Path[1:]
}
