package lambdaapi

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// API serves the Extensions API for one extension at a time.
type API struct {
	fn       Function
	listener net.Listener
	server   *http.Server
	served   chan struct{} // closed when server.Serve has returned
	conns    atomic.Int64  // connections accepted

	mu         sync.Mutex
	current    *Extension // guarded by mu; nil before Launch
	closed     bool       // guarded by mu; registration is closed: the Init phase is over
	violations []string   // guarded by mu
}

// NewAPI listens on 127.0.0.1 and serves until Close.
func NewAPI(fn Function) (*API, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the Extensions API: %w", err)
	}
	a := &API{fn: fn.filled(), listener: l, served: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2020-01-01/extension/register", a.register)
	mux.HandleFunc("GET /2020-01-01/extension/event/next", a.next)
	mux.HandleFunc("POST /2020-01-01/extension/init/error", a.reportTo(InitError))
	mux.HandleFunc("POST /2020-01-01/extension/exit/error", a.reportTo(ExitError))
	// The emulator's router answers 405 with nothing to another method of a path that it knows
	// (seen in tests/lambda).
	for _, path := range []string{"register", "event/next", "init/error", "exit/error"} {
		mux.HandleFunc("/2020-01-01/extension/"+path, func(w http.ResponseWriter, r *http.Request) {
			a.violate("%s %s: no such method", r.Method, r.URL.Path)
			w.WriteHeader(http.StatusMethodNotAllowed)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.violate("%s %s: no such call", r.Method, r.URL.Path)
		http.NotFound(w, r)
	})
	a.server = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				a.conns.Add(1)
			}
		},
	}
	go func() {
		defer close(a.served)
		_ = a.server.Serve(l) // returns when Close closes the server
	}()
	return a, nil
}

// Addr is the value of AWS_LAMBDA_RUNTIME_API.
func (a *API) Addr() string { return a.listener.Addr().String() }

// Connections is how many connections were opened to the API so far.
func (a *API) Connections() int { return int(a.conns.Load()) }

// Close cuts every connection and waits for the server to end.
func (a *API) Close() {
	a.mu.Lock()
	if a.current != nil {
		a.current.End()
	}
	a.mu.Unlock()
	_ = a.server.Close() // an error of the listener's close tells nothing here
	<-a.served
}

// Launch begins the life of a new process whose file has that name. Whatever was
// there before is ended.
func (a *API) Launch(name string) *Extension {
	x := &Extension{
		name:    name,
		id:      newID(),
		offers:  make(chan offer),
		ended:   make(chan struct{}),
		changed: make(chan struct{}),
		state:   Started,
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current != nil {
		a.current.End()
	}
	a.current, a.closed = x, false
	return x
}

// CloseRegistration ends the Init phase: a later registration is refused.
func (a *API) CloseRegistration() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
}

// Violations lists what the extension did against the protocol so far.
func (a *API) Violations() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.violations)
}

func (a *API) violate(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.violations = append(a.violations, fmt.Sprintf(format, args...))
}

// refuse answers 403 as the RIE does (lambda/rapi/rendering/render_error.go) and
// records the call.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, typ, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	a.violate("%s %s: %s: %s", r.Method, r.URL.Path, typ, msg)
	writeJSON(w, http.StatusForbidden, map[string]string{"errorType": typ, "errorMessage": msg})
}

// refuseState is the answer to a call that the state does not allow.
func (a *API) refuseState(w http.ResponseWriter, r *http.Request, from, to State) {
	a.refuse(w, r, "Extension.InvalidExtensionState", "State transition from %s to %s is not allowed", from, to)
}

// register follows lambda/rapi/handler/agentregister.go. A name that is not the
// file's is an internal extension there, which may not register for SHUTDOWN,
// nor after the Init phase.
func (a *API) register(w http.ResponseWriter, r *http.Request) {
	name := r.Header.Get("Lambda-Extension-Name")
	if name == "" {
		a.refuse(w, r, "Extension.InvalidExtensionName", "Empty extension name")
		return
	}
	var doc struct {
		Events            []string `json:"events"`
		ConfigurationKeys []string `json:"configurationKeys"`
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(body, &doc)
	}
	if err != nil {
		a.refuse(w, r, "InvalidRequestFormat", "%v", err)
		return
	}
	if len(doc.ConfigurationKeys) != 0 {
		a.refuse(w, r, "InvalidRequestFormat", "configurationKeys are deprecated; use environment variables instead")
		return
	}
	a.mu.Lock()
	x, closed := a.current, a.closed
	a.mu.Unlock()
	if x == nil || name != x.name {
		if closed {
			a.refuse(w, r, "Extension.RegistrationClosed", "Extension registration closed already")
			return
		}
		// Lambda would go on with an internal extension and wait for the one
		// that it started until the Init phase times out.
		a.refuse(w, r, "Extension.InvalidExtensionName", "%q is not the name of an extension's file", name)
		return
	}
	for _, e := range doc.Events {
		// Managed Instances offer SHUTDOWN alone: ValidateExternalAgentEvent in
		// internal/lambda-managed-instances/core/externalagent.go.
		if e != eventShutdown && (e != eventInvoke || a.fn.InitType == Managed) {
			a.refuse(w, r, "Extension.InvalidEventType", "%s: ErrorInvalidEventType", e)
			return
		}
	}
	x.mu.Lock()
	from := x.state
	if from == Started && !closed {
		x.state, x.events, x.registeredAt = Registered, doc.Events, time.Now()
		x.changeLocked()
	}
	x.mu.Unlock()
	if from != Started {
		a.refuseState(w, r, from, Registered)
		return
	}
	if closed {
		a.refuse(w, r, "Extension.RegistrationClosed", "Extension registration closed already")
		return
	}
	answer := map[string]string{"functionName": a.fn.Name, "functionVersion": a.fn.Version, "handler": a.fn.Handler}
	for f := range strings.SplitSeq(r.Header.Get("Lambda-Extension-Accept-Feature"), ",") {
		if strings.TrimSpace(f) == "accountId" {
			answer["accountId"] = a.fn.Account
		}
	}
	w.Header().Set("Lambda-Extension-Identifier", x.id)
	writeJSON(w, http.StatusOK, answer)
}

// identify follows AgentUniqueIdentifierHeaderValidator in
// lambda/rapi/middleware/middleware.go. It answers and returns nil where the
// header is not the running extension's.
func (a *API) identify(w http.ResponseWriter, r *http.Request) *Extension {
	id := r.Header.Get("Lambda-Extension-Identifier")
	switch {
	case id == "":
		a.refuse(w, r, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
		return nil
	case len(id) != 36:
		a.refuse(w, r, "Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier")
		return nil
	}
	a.mu.Lock()
	x := a.current
	a.mu.Unlock()
	if x == nil || x.id != id {
		a.refuse(w, r, "Extension.UnknownExtensionIdentifier", "Unknown extension %s", id)
		return nil
	}
	return x
}

// next follows lambda/rapi/handler/agentnext.go and the states of
// lambda/core: allowed in Registered and Running, and a second one beside an
// outstanding one is refused, even if the first has lost its connection.
func (a *API) next(w http.ResponseWriter, r *http.Request) {
	x := a.identify(w, r)
	if x == nil {
		return
	}
	if n, _ := io.Copy(io.Discard, io.LimitReader(r.Body, 1)); n != 0 {
		a.violate("GET event/next: has a body")
	}
	x.mu.Lock()
	from := x.state
	if from == Registered || from == Running {
		if x.shutdown {
			a.violate("GET event/next: after SHUTDOWN; the process should exit")
		}
		now := time.Now()
		if x.firstNextAt.IsZero() {
			x.firstNextAt = now
		}
		x.lastNextAt = now
		x.state, x.waiting = Ready, true
		x.changeLocked()
	}
	x.mu.Unlock()
	if from != Registered && from != Running {
		a.refuseState(w, r, from, Ready)
		return
	}
	select {
	case o := <-x.offers:
		// Running before the first byte leaves: the next Next may follow at once.
		x.mu.Lock()
		x.state, x.waiting, x.shutdown = Running, false, o.last
		x.changeLocked()
		x.mu.Unlock()
		err := o.abandoned
		defer func() { o.done <- err }()
		err = o.serve(w, r)
	case <-r.Context().Done():
		x.mu.Lock()
		x.waiting = false
		x.mu.Unlock()
	case <-x.ended:
		panic(http.ErrAbortHandler) // cut the connection, without a stack trace
	}
}

// eventAnswer writes an event as lambda/rapi/rendering/rendering.go does, and
// returns when its bytes have left for the socket.
//
// SHUTDOWN comes without Lambda-Extension-Event-Identifier, whatever the documents say
// (seen in tests/lambda).
func eventAnswer(event map[string]any) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		body, err := json.Marshal(event)
		if err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		h := w.Header()
		if event["eventType"] == eventInvoke {
			h.Set("Lambda-Extension-Event-Identifier", newID())
		}
		h.Set("Content-Type", "application/json")
		h.Set("Content-Length", strconv.Itoa(len(body)))
		if _, err := w.Write(body); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		return nil
	}
}

// reportTo follows agentiniterror and agentexiterror of lambda/rapi/handler.
// The body is optional; one that is there must be the docs' ErrorRequest.
func (a *API) reportTo(to State) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x := a.identify(w, r)
		if x == nil {
			return
		}
		report := Report{Type: r.Header.Get("Lambda-Extension-Function-Error-Type")}
		if report.Type == "" {
			a.refuse(w, r, "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found")
			return
		}
		report.Message = a.errorBody(w, r, report.Type)
		x.mu.Lock()
		from := x.state
		allowed := from == Registered || from == to || to == ExitError && (from == Ready || from == Running)
		if allowed {
			x.state = to
			x.report = &report
			x.changeLocked()
		}
		x.mu.Unlock()
		if !allowed {
			a.refuseState(w, r, from, to)
			return
		}
		writeJSON(w, http.StatusAccepted, map[string]string{"status": "OK"})
	}
}

// errorBody returns the message of an ErrorRequest and records a wrong one.
func (a *API) errorBody(w http.ResponseWriter, r *http.Request, typ string) string {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err == nil && len(body) == 0 {
		return ""
	}
	var doc struct {
		Message *string  `json:"errorMessage"`
		Type    *string  `json:"errorType"`
		Stack   []string `json:"stackTrace"`
	}
	if err == nil {
		err = json.Unmarshal(body, &doc)
	}
	if err != nil || doc.Message == nil || doc.Type == nil || doc.Stack == nil {
		a.violate("POST %s: the body is not {errorMessage, errorType, stackTrace}: %v", r.URL.Path, err)
		return ""
	}
	if *doc.Type != typ {
		a.violate("POST %s: errorType %q differs from the header's %q", r.URL.Path, *doc.Type, typ)
	}
	return *doc.Message
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// newID returns a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
