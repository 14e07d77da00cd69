package vault

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// heldBody is a request's body that survives an attempt in which nobody read
// it: the transport closes bodies also when it could not connect.
type heldBody struct {
	rc io.ReadCloser

	touched atomic.Bool            // somebody read from it
	settled atomic.Bool            // there is no further attempt
	over    atomic.Pointer[func()] // called at its end
}

// fresh tells whether the body can still be sent from its beginning. No body
// always can.
func (b *heldBody) fresh() bool { return b == nil || !b.touched.Load() }

var errSpent = errors.New("the request's body cannot be sent a second time")

// next returns a body to send: this one while nobody read it, else a copy.
func (b *heldBody) next(copyOf func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	if b.fresh() {
		return b, nil
	}
	if copyOf == nil {
		return nil, errSpent
	}
	return copyOf()
}

// Read reads the body.
func (b *heldBody) Read(p []byte) (int, error) {
	b.touched.Store(true)
	n, err := b.rc.Read(p)
	if over := b.over.Load(); err != nil && over != nil {
		(*over)()
	}
	return n, err
}

// Close closes the body unless another attempt may need it.
func (b *heldBody) Close() error {
	if b.fresh() && !b.settled.Load() {
		return nil
	}
	return b.rc.Close()
}

// settle is called when there is no further attempt.
func (b *heldBody) settle() {
	b.settled.Store(true)
	if b.fresh() {
		_ = b.rc.Close()
	}
}

// hand gives an answer to the caller, with a body that frees what the answer
// holds when it is closed.
func (k *call) hand(a *result) *http.Response {
	release := sync.OnceFunc(func() {
		k.end()
		a.free()
	})
	if rwc, ok := a.Body.(io.ReadWriteCloser); ok && a.StatusCode == http.StatusSwitchingProtocols {
		// The transport no longer watches the context of a connection it gave
		// away, so an end of the context closes it here.
		stop := context.AfterFunc(k.ctx, func() { _ = rwc.Close() })
		a.Body = &upgraded{rwc, func() { stop(); release() }}
		return a.Response
	}
	k.sign(a)
	b, pause := &idleBody{rc: a.Body, k: k, node: a.node, release: release}, k.c.o.ClientTimeout
	b.timer = time.AfterFunc(pause, func() { k.cancel(timeoutError("nothing came for " + pause.String() + " (VAULT_CLIENT_TIMEOUT)")) })
	b.timer.Stop()
	a.Body = b
	return a.Response
}

// upgraded is the connection of an answer 101.
type upgraded struct {
	io.ReadWriteCloser
	release func()
}

// Close closes the connection.
func (u *upgraded) Close() error {
	err := u.ReadWriteCloser.Close()
	u.release()
	return err
}

// idleBody is an answer's body with a limit on each pause.
type idleBody struct {
	rc      io.ReadCloser
	k       *call
	node    *node
	timer   *time.Timer // runs while Read does
	release func()
}

// Read reads the body. An error other than io.EOF is an *Error.
func (b *idleBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.k.c.o.ClientTimeout)
	n, err := b.rc.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF && !errors.Is(err, http.ErrBodyReadAfterClose) {
		err = b.k.explain(b.node, answering, err)
	}
	return n, err
}

// Close ends the request and frees its place.
func (b *idleBody) Close() error {
	b.timer.Stop()
	err := b.rc.Close()
	b.release()
	return err
}

// drainMost is how long a body may be to be read for the connection's sake.
const drainMost = 16 << 10

// drain finishes an unwanted body: a short one is read, so that its connection
// can be used again.
func drain(resp *http.Response) {
	if resp.ContentLength >= 0 && resp.ContentLength <= drainMost {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	_ = resp.Body.Close()
}
