// Package azurehost stands in for the Azure Functions host as a custom handler
// meets it: it starts the handler as a real process, gives it a port, waits for
// any answer there, invokes functions in each of the host's three ways, and
// acts on the handler's exit as the host does. What the host would take for a
// failed invocation is an error here.
//
// Every fact is from the host's source, https://github.com/Azure/azure-functions-host,
// src/WebJobs.Script/Workers: Http/HttpWorkerProcess.cs (environment),
// Http/DefaultHttpWorkerService.cs (readiness, requests, answers),
// Http/HttpFunctionInvocationDispatcher.cs (restarts),
// Http/HttpProxyService (proxying), ProcessManagement/WorkerProcess.cs (exit
// statuses, hard kill).
package azurehost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// Mode is how HTTP triggers reach the handler. Other triggers come as
// envelopes in every mode.
type Mode int

// Modes, by the setting in host.json that turns them on.
const (
	Envelope Mode = iota // neither: POST /<function> with the request in JSON
	Forward              // enableForwardingHttpRequest: the request is built again
	Proxy                // enableProxyingHttpRequest: the request is passed through
)

// Version is the host's version as it tells handlers.
const Version = "4.1045.200.25556"

// Constants of WorkerConstants.cs and HttpFunctionInvocationDispatcher.cs.
const (
	pingEvery        = 25 * time.Millisecond
	initTimeout      = 30 * time.Second
	errorThreshold   = 3
	errorWindow      = 30 * time.Minute
	statusSuccess    = 0
	statusRestart    = 200
	proxyTries       = 10
	proxyFirstDelay  = 50 * time.Millisecond
	proxyLongestWait = 250 * time.Millisecond
)

// Config says what to start.
type Config struct {
	Path        string        // defaultExecutablePath
	Args        []string      // arguments
	Env         []string      // app settings and what the platform adds
	Dir         string        // the function app's root
	Mode        Mode          //
	InitTimeout time.Duration // initializationTimeout; 0: 30s
	Output      io.Writer     // also gets what the handler writes; nil: captured only
}

// State is the dispatcher's.
type State string

// States of FunctionInvocationDispatcherState, and Gone for a handler that
// ended with status 0, which the host never starts again.
const (
	Initializing State = "initializing"
	Initialized  State = "initialized"
	Restarting   State = "restarting"
	Gone         State = "gone"
	Stopped      State = "the host stopped itself"
	Disposed     State = "disposed"
)

// Host is one host with one handler.
type Host struct {
	cfg    Config
	port   int
	client *http.Client
	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	state   State            // guarded by mu
	changed chan struct{}    // guarded by mu; closed at the next change of state
	handler *harness.Process // guarded by mu
	failed  []time.Time      // guarded by mu; errors that count
	starts  int              // guarded by mu
	why     error            // guarded by mu; of the last failure
	past    []string         // guarded by mu; what handlers that are no more wrote
}

// New starts the host and its first handler. Dispose ends both.
func New(cfg Config) (*Host, error) {
	if cfg.InitTimeout <= 0 {
		cfg.InitTimeout = initTimeout
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // WorkerUtilities.GetUnusedTcpPort
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	h := &Host{cfg: cfg, port: l.Addr().(*net.TCPAddr).Port, changed: make(chan struct{})}
	l.Close()
	h.client = &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.start()
	return h, nil
}

// start starts a handler and waits for it beside.
func (h *Host) start() {
	id := rand.Text()
	port := strconv.Itoa(h.port)
	p, err := harness.Start(harness.Command{
		Path: h.cfg.Path, Args: h.cfg.Args, Dir: h.cfg.Dir, Stdout: h.cfg.Output, Stderr: h.cfg.Output,
		Env: append(append([]string(nil), h.cfg.Env...),
			"FUNCTIONS_HTTPWORKER_PORT="+port, "FUNCTIONS_HTTPWORKER_ID="+id,
			"FUNCTIONS_CUSTOMHANDLER_PORT="+port, "FUNCTIONS_CUSTOMHANDLER_WORKER_ID="+id,
			"FUNCTIONS_APP_ROOT_PATH="+h.cfg.Dir),
	})
	h.mu.Lock()
	h.starts++
	h.handler = p
	h.mu.Unlock()
	if err != nil {
		h.fail(nil, err)
		return
	}
	h.become(Initializing)
	h.wg.Go(func() { h.watch(p) })
	h.wg.Go(func() {
		if h.awaitReady(p) {
			h.becomeIf(p, Initialized)
		} else if h.ctx.Err() == nil {
			h.fail(p, errors.New("the handler did not listen in time"))
		}
	})
}

// awaitReady asks GET / until anything at all is answered (IsWorkerReady).
func (h *Host) awaitReady(p *harness.Process) bool {
	end := time.NewTimer(h.cfg.InitTimeout)
	defer end.Stop()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		err := h.Ping(h.ctx)
		if err == nil {
			return true
		}
		// Only an error of the socket keeps the host waiting.
		if !errors.As(err, new(*net.OpError)) {
			return true
		}
		select {
		case <-p.Done():
			return true // watch sees to it
		case <-h.ctx.Done():
			return false
		case <-end.C:
			return false
		case <-tick.C:
		}
	}
}

// Ping asks GET / as the host does now and then (PingAsync). Any status will do.
func (h *Host) Ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url("/"), nil)
	if err != nil {
		return err
	}
	req.Header["User-Agent"] = nil
	res, err := h.client.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return res.Body.Close()
}

func (h *Host) url(path string) string {
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port)) + path
}

// watch acts on the handler's exit (WorkerProcess.OnProcessExited).
func (h *Host) watch(p *harness.Process) {
	<-p.Done()
	if h.ctx.Err() != nil {
		return
	}
	switch status := p.ExitCode(); status {
	case statusSuccess:
		h.becomeIf(p, Gone)
	case statusRestart:
		h.again(p)
	default:
		h.fail(p, fmt.Errorf("the handler ended with status %d: %s", status, p.Tail(2000)))
	}
}

// fail counts an error, and stops the host at the third
// (HttpFunctionInvocationDispatcher.WorkerError).
func (h *Host) fail(p *harness.Process, why error) {
	h.mu.Lock()
	if p != nil && p != h.handler {
		h.mu.Unlock()
		return // of a handler that was replaced already
	}
	if n := len(h.failed); n > 0 && time.Since(h.failed[n-1]) > errorWindow {
		h.failed = nil
	}
	h.failed = append(h.failed, time.Now())
	h.why = why
	stop := len(h.failed) >= errorThreshold
	h.mu.Unlock()
	if !stop {
		h.again(p)
		return
	}
	if p != nil {
		p.Kill()
	}
	h.become(Stopped)
}

// again replaces the handler: a hard kill, and a new one on the same port.
func (h *Host) again(p *harness.Process) {
	h.become(Restarting)
	if p != nil {
		p.Kill()
		h.mu.Lock()
		h.past = append(h.past, p.Output())
		h.mu.Unlock()
	}
	if h.ctx.Err() == nil {
		h.start()
	}
}

func (h *Host) become(s State) { h.becomeIf(nil, s) }

// becomeIf changes the state, for a handler only while it is the current one.
func (h *Host) becomeIf(p *harness.Process, s State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p != nil && p != h.handler || h.state == Disposed || s == Initialized && h.state != Initializing {
		return
	}
	h.state = s
	close(h.changed)
	h.changed = make(chan struct{})
}

// Await waits until the host is in a state.
func (h *Host) Await(ctx context.Context, want State) error {
	for {
		h.mu.Lock()
		state, changed, why := h.state, h.changed, h.why
		h.mu.Unlock()
		switch {
		case state == want:
			return nil
		case state == Stopped || state == Gone || state == Disposed:
			return fmt.Errorf("the host is %s and not %s: %w\n%s", state, want, why, h.Output())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the host is %s and not %s: %w\n%s", state, want, context.Cause(ctx), h.Output())
		}
	}
}

// State is the dispatcher's now.
func (h *Host) State() State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state
}

// Starts counts the handlers that were started.
func (h *Host) Starts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.starts
}

// Handler is the current handler's process.
func (h *Host) Handler() *harness.Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.handler
}

// Port is what the handler was given.
func (h *Host) Port() int { return h.port }

// Output is what the handlers wrote so far.
func (h *Host) Output() string {
	h.mu.Lock()
	past, p := strings.Join(h.past, ""), h.handler
	h.mu.Unlock()
	if p == nil {
		return past
	}
	return past + p.Output()
}

// Dispose kills the handler, hard, and ends the host.
func (h *Host) Dispose() {
	h.become(Disposed)
	h.cancel()
	if p := h.Handler(); p != nil {
		p.Kill()
	}
	h.client.CloseIdleConnections()
	h.wg.Wait()
}
