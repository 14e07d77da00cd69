package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/lambda"
)

// lambdaAPI is an instance's Extensions API. Lambda writes an event to the function and to
// the extension at the same time, so the function may have it first.
type lambdaAPI struct {
	w      *world
	client *lambda.Client
	front  *listener
	server *http.Server
	events chan lambdaEvent // in the order in which Lambda sends them
	ctx    context.Context  // ends with the environment
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// lambdaEvent is an INVOKE.
type lambdaEvent struct {
	moment
	id       string
	deadline time.Duration
	late     time.Duration // by which the function has it first
}

// newLambda starts the API and registers the extension there.
func (w *world) newLambda(now func() time.Time, log *slog.Logger) *lambdaAPI {
	l := &lambdaAPI{w: w, front: newListener(), events: make(chan lambdaEvent, 1<<12)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.client = lambda.New(lambda.Options{
		API: "10.0.0.3:9001", Name: "thaw", Log: log, Now: now,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.front.connect(ctx, "10.0.0.3:1") },
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/2020-01-01/extension/register", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Lambda-Extension-Identifier", "simulated")
		fmt.Fprint(rw, "{}")
	})
	mux.HandleFunc("/2020-01-01/extension/event/next", func(rw http.ResponseWriter, r *http.Request) {
		select {
		case e := <-l.events:
			time.Sleep(e.late)
			body, err := json.Marshal(map[string]any{"eventType": "INVOKE", "requestId": e.id, "deadlineMs": now().Add(e.deadline).UnixMilli()})
			if err != nil {
				panic(err)
			}
			rw.Write(body)
		case <-r.Context().Done():
		}
	})
	l.server = &http.Server{Handler: mux, ErrorLog: quiet}
	l.work.Go(func() { l.server.Serve(l.front) })
	if err := l.client.Register(l.ctx, lambda.Invoke, lambda.Shutdown); err != nil {
		panic(err)
	}
	return l
}

// run hands the events to the instance until the environment ends.
func (l *lambdaAPI) run(x *instance) {
	l.work.Go(func() { _ = l.client.Run(l.ctx, x) })
}

// end ends the environment.
func (l *lambdaAPI) end() {
	l.cancel()
	l.server.Close()
	l.work.Wait()
}

var _ lambda.Handler = (*instance)(nil)

// Invoke implements lambda.Handler.
func (x *instance) Invoke(ev lambda.Event) {
	before := time.Now()
	x.app.Invoke(ev.ReceivedAt, ev.Deadline)
	if took := time.Since(before); took > 0 {
		x.w.h.broke("G6: INVOKE was held up for " + took.String())
	}
	x.mu.Lock()
	first := x.taken.seq == 0
	x.taken = x.sent[ev.RequestID]
	x.mu.Unlock()
	if first {
		x.prepare()
	}
}

// Shutdown implements lambda.Handler; instances are stopped without the event.
func (x *instance) Shutdown(context.Context, string) {}

// prepare does what a start does ahead of the first read.
func (x *instance) prepare() {
	x.lambda.work.Go(func() { x.app.Prepare(x.lambda.ctx) })
}

// gate is what holds a read until its invocation has begun.
func (x *instance) gate(r *http.Request) error {
	if !x.lambda.client.Await(r.Context(), r.Header) {
		x.app.Overlap(x.clock.now())
	}
	x.app.Looked(r.Context())
	return nil
}

// invoke is an invocation that Lambda begins.
func (w *world) invoke(x *instance, deadline time.Duration) {
	e := lambdaEvent{moment: w.moment(), deadline: deadline, late: min(w.dice("invoke").lag(), 5*time.Millisecond)}
	x.mu.Lock()
	e.id = fmt.Sprintf("%d.%d-%d", x.n, x.inc, len(x.sent))
	x.sent[e.id], x.latest = e, e.id
	x.mu.Unlock()
	x.lambda.events <- e
}

// belongs says to which invocation a read belongs that begins now: the latest, which it
// names, or, where it says nothing, at least the one whose INVOKE was taken last.
func (x *instance) belongs(says bool) (id string, invoked moment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if says && x.latest != "" {
		return x.latest, x.sent[x.latest].moment
	}
	return "", x.taken.moment
}

// short reports whether the invocation has little time left: then what is cached is served
// as it is.
func (x *instance) short(at moment) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := x.taken.deadline - elapsed(x.taken.moment, at, x.n) // a deadline is a time of the wall clock
	return x.taken.deadline > 0 && left < 600*time.Millisecond && left > -2*slack
}
