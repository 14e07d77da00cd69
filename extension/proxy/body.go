package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/queue"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wire"
)

// What callers send and take, at a pace of their own (package queue).
//
// A place at the origin is taken when there is something to send. So a body is read
// first, whole if it is short. Of a longer one the beginning is read, and the rest
// goes on as it comes. An answer that is short is read from the origin before it is
// handed on; one that lasts counts for the long half of the places.

const (
	shortBody   = 64 << 10    // bytes
	lastingTime = time.Second // how long an answer is taken before it counts as one that lasts
)

// errBodies is why a body is not received.
const errBodies = queue.Limit("too many request bodies are on their way already")

// receive reads r's body: all of a short one, which can be sent again then, and the
// beginning of a longer one. What it read is in hold, which gives way to others
// until the body is here.
func (p *pass) receive(s *Server, r *http.Request) (*queue.Hold, error) {
	if r.ContentLength > s.o.MaxBody {
		return nil, &http.MaxBytesError{Limit: s.o.MaxBody}
	}
	control := http.NewResponseController(p.w)
	cut := func() {
		p.cancel(errBodies)
		control.SetReadDeadline(time.Unix(1, 0))
	}
	size := shortBody
	if r.ContentLength > 0 {
		size = int(min(r.ContentLength, shortBody))
	}
	hold := s.bodies.Push(p.ticket.Share(), size, cut)
	if hold == nil {
		return nil, errBodies
	}
	p.body = &patientBody{ReadCloser: http.MaxBytesReader(p.w, r.Body, s.o.MaxBody), control: control, s: s, left: s.o.BodyTimeout}
	start, err := io.ReadAll(io.LimitReader(p.body, int64(size)+1))
	switch {
	case err != nil:
		hold.Free()
		if queue.Limited(context.Cause(p.ctx)) {
			err = errBodies
		}
		return nil, err
	case len(start) > size:
		p.ticket.Long, p.body.ended = true, hold.Free
		r.Body = wire.Prepend(start, p.body)
	case !hold.Keep(len(start)):
		return nil, errBodies
	default:
		p.text = start
		r.Body = io.NopCloser(bytes.NewReader(start))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(start)), nil }
	}
	return hold, nil
}

// badBody answers a request whose body was not received: there was no room for it, or
// the caller did not send it as it should.
func (p *pass) badBody(s *Server, failure error) {
	switch tooLarge := new(http.MaxBytesError); {
	case queue.Limited(failure):
		s.error(p.call, failure)
	case errors.As(failure, &tooLarge):
		s.fail(p.call, http.StatusRequestEntityTooLarge, "the request body has more than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes (THAW_MAX_BODY)")
	default:
		s.fail(p.call, http.StatusBadRequest, "the request body ended early, came too slowly (THAW_BODY_TIMEOUT, THAW_BODY_RATE) or is malformed")
	}
}

// take reads a short answer to its end, so that its place is free however the
// caller takes it.
func take(res *http.Response) error {
	if res.StatusCode == http.StatusSwitchingProtocols || res.ContentLength < 0 || res.ContentLength > shortBody {
		return nil
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(body))
	return err
}

// lasting calls lasts when an answer has been taken for long.
func (s *Server) lasting(lasts func()) *time.Timer {
	return time.AfterFunc(lastingTime, func() { rescue.Do(s.o.Log, "note an answer that lasts", lasts) })
}

// patientBody gives a client BodyTimeout for each piece of its body, and for all of
// it BodyTimeout and what BodyRate allows. The time in which nobody reads is not the
// client's.
type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
	s       *Server
	left    time.Duration         // for what is to come, the grace included
	ended   func()                // called at the body's end; nil: nothing is
	failed  atomic.Pointer[error] // the client's failure to send it; the transport may still read when its answer is here
}

// failure is how the client failed to send the body; nil if it didn't, or if
// there is none.
func (b *patientBody) failure() error {
	if b == nil || b.failed.Load() == nil {
		return nil
	}
	return *b.failed.Load()
}

func (b *patientBody) Read(p []byte) (int, error) {
	began := time.Now()
	limit := b.s.o.BodyTimeout
	if b.s.o.BodyRate > 0 {
		limit = min(limit, b.left)
	}
	b.control.SetReadDeadline(began.Add(limit))
	b.control.SetWriteDeadline(began.Add(b.s.o.BodyTimeout * 4))
	n, err := b.ReadCloser.Read(p)
	if rate := b.s.o.BodyRate; rate > 0 {
		b.left += time.Duration(n)*time.Second/time.Duration(rate) - time.Since(began)
	}
	if err == io.EOF {
		// From here on net/http reads to see whether the caller is still there:
		// that must not end with a deadline while the origin takes its time.
		b.control.SetReadDeadline(time.Time{})
	} else if err != nil && !errors.Is(err, http.ErrBodyReadAfterClose) {
		b.failed.CompareAndSwap(nil, &err)
	}
	if err != nil && b.ended != nil {
		b.ended()
	}
	return n, err
}

// patientWriter gives a client BodyTimeout for each piece of an answer, and
// the origin as long as it takes to make one.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	s       *Server
	flush   bool // each piece goes out at once
}

func (s *Server) patiently(w http.ResponseWriter, flush bool) *patientWriter {
	return &patientWriter{w, http.NewResponseController(w), s, flush}
}

func (w *patientWriter) Write(p []byte) (int, error) {
	w.control.SetWriteDeadline(time.Now().Add(w.s.o.BodyTimeout))
	n, err := w.ResponseWriter.Write(p)
	if err == nil && w.flush {
		err = w.control.Flush()
	}
	return n, err
}

// WriteHeader gives an answer without a body its time, too.
func (w *patientWriter) WriteHeader(status int) {
	w.control.SetWriteDeadline(time.Now().Add(w.s.o.BodyTimeout))
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets ReverseProxy flush and hijack.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
