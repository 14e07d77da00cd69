package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/thaw-project/thaw/extension/queue"
)

// Kind says what kept an answer from coming, for logs and metrics, too.
type Kind string

// Kinds of Error.
const (
	Refused     Kind = "refused"     // nothing listens at the address
	Unreachable Kind = "unreachable" // DNS, routing, or the proxy
	TLS         Kind = "tls"         // certificates, ours or theirs
	Timeout     Kind = "timeout"     // silence until a deadline
	Reset       Kind = "reset"       // the connection ended before the answer did
	Redirect    Kind = "redirect"    // a redirect that may not be followed; wraps *ErrRedirect
	Limited     Kind = "limited"     // our own limits: rate or requests in flight
	Canceled    Kind = "canceled"    // the caller left, or the client was closed
	NoLeader    Kind = "no leader"   // no node is active, or none may be asked
	Protocol    Kind = "protocol"    // what came isn't an HTTP answer, or not the one the endpoint gives
)

// passing tells whether the same request may be answered a little later.
func (k Kind) passing() bool {
	return k == Refused || k == Unreachable || k == Timeout || k == Reset || k == NoLeader
}

// Error is a request that got no answer. It never holds a path, a query, a
// header or anything the other end sent.
type Error struct {
	Op   string // the method
	Addr string // scheme, host and port of the node
	Err  error
	Kind Kind

	hint string // what to check
}

// spelled puts the names that the user wrote into e's hint.
func (c *Client) spelled(e *Error) *Error {
	e.hint = c.o.Named(e.hint)
	return e
}

// Error says what happened, where, and what to check.
func (e *Error) Error() string {
	s := e.Op + " " + e.Addr + ": " + e.Err.Error()
	if e.hint != "" {
		s += ": " + e.hint
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrRedirect is a redirect that was not followed, since following it would
// send the token.
type ErrRedirect struct {
	From, To string // scheme, host and port
	Why      string

	down bool // it leads to a node of ours that is known to be away
	back bool // it leads back to the node that sent it
}

// Error says where the redirect led and why that is not trusted.
func (e *ErrRedirect) Error() string {
	return fmt.Sprintf("redirect to %s not followed: %s", e.To, e.Why)
}

// Unavailable tells whether err means that the origin could not be asked, so
// that an answer kept from before may stand in. A caller who left is not that.
func Unavailable(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind != Canceled
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// OurLimit tells whether err is about our own limits and not about the origin.
func OurLimit(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == Limited
}

// StatusFor maps an error to the HTTP status for a client: 504 when time ran
// out, 503 when the limit or the end is ours, else 502.
func StatusFor(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Kind {
		case Timeout:
			return http.StatusGatewayTimeout
		case Limited, Canceled, NoLeader:
			return http.StatusServiceUnavailable
		}
		return http.StatusBadGateway
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, context.Canceled), queue.Limited(err):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadGateway
}

// timeoutError is a deadline of ours.
type timeoutError string

func (e timeoutError) Error() string { return string(e) }
func (e timeoutError) Timeout() bool { return true }

// phase says how far a request came.
type phase = int32

const (
	connecting phase = iota // nothing was sent
	asking                  // sent, at least in part
	answering               // the answer has begun
)

// explain turns what the transport said of a request to n into an Error. Texts that
// may quote the other end are left out: a garbled answer may hold a piece of a secret.
func (k *call) explain(n *node, at phase, err error) *Error {
	e := &Error{Op: k.op(), Addr: n.addr(), Err: err}
	if k.ctx.Err() != nil {
		return k.c.spelled(e.ended(context.Cause(k.ctx), at))
	}
	op, _ := errors.AsType[*net.OpError](err)
	timed, isNet := errors.AsType[net.Error](err)
	silent := isNet && timed.Timeout()
	switch {
	case errors.Is(err, errClosed):
		e.Kind = Canceled
	case errors.Is(err, errProxy):
		e.Kind, e.Err = Unreachable, errProxy
	case is[*net.DNSError](err) && at == connecting:
		e.Kind, e.hint = Unreachable, "check the host name in VAULT_ADDR and, in a VPC, its DNS settings"
	case e.tls(err):
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Kind, e.hint = Refused, "nothing listens there: check VAULT_ADDR, the security group and the subnet's route"
	case op != nil && op.Op == "dial" && errors.Is(err, os.ErrNotExist):
		e.Kind, e.hint = Refused, "the socket does not exist: check VAULT_ADDR"
	case at == connecting && silent:
		e.Kind, e.hint = Timeout, "in a VPC, check the security group and the route or NAT to the origin"
	case at == connecting:
		e.Kind, e.hint = Unreachable, "check VAULT_ADDR, the route and the proxy settings"
	case silent: // the kernel gave up, see conn.rouse
		e.Kind, e.Err, e.hint = Reset, errors.New("the connection is dead"), "the network dropped it; the next request opens another"
	case at == asking, op != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Kind, e.Err, e.hint = Reset, errCut, "the origin, or a load balancer before it, closed the connection"
	default:
		e.Kind, e.Err, e.hint = Protocol, errGarbled, "check that VAULT_ADDR names Vault's API port (8200), not its cluster port (8201) or something else"
	}
	return k.c.spelled(e)
}

var (
	errCut     = fmt.Errorf("the connection ended before the whole answer was here: %w", io.ErrUnexpectedEOF)
	errGarbled = errors.New("the answer is not HTTP/1.1, or its head is too large")
)

// ended fills e for a request whose context is over.
func (e *Error) ended(cause error, at phase) *Error {
	e.Kind, e.Err = Canceled, cause
	var deadline interface{ Timeout() bool }
	switch late := errors.As(cause, &deadline) && deadline.Timeout(); {
	case queue.Limited(cause):
		e.Kind = Limited
	case late && at == connecting:
		e.Kind, e.Err = Timeout, fmt.Errorf("no connection in time: %w", cause)
		e.hint = "in a VPC, check the security group and the route or NAT to the origin"
	case late:
		e.Kind, e.Err = Timeout, fmt.Errorf("no answer in time: %w", cause)
		e.hint = "the origin is slow, or the network drops packets"
	}
	return e
}

// is tells whether an error of the type is in err.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// tls fills e if err comes from a TLS handshake.
func (e *Error) tls(err error) bool {
	op, _ := errors.AsType[*net.OpError](err)
	switch {
	case is[x509.UnknownAuthorityError](err):
		e.hint = "set VAULT_CACERT to the CA that signed the origin's certificate"
	case is[x509.HostnameError](err):
		e.hint = "the certificate is for another name: check VAULT_ADDR, or set VAULT_TLS_SERVER_NAME"
	case is[x509.CertificateInvalidError](err):
		e.hint = "renew the origin's certificate, or check this machine's clock"
	case is[*tls.CertificateVerificationError](err):
		e.hint = "check the origin's certificate and VAULT_CACERT"
	case is[tls.RecordHeaderError](err):
		e.Err = errors.New("the other end does not speak TLS")
		e.hint = "check that VAULT_ADDR says https only if the origin serves it"
	case op != nil && op.Op == "remote error":
		e.hint = "the origin refused the handshake: check VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, and the TLS versions it accepts"
	case strings.HasPrefix(err.Error(), "tls: "):
		e.hint = "check the TLS versions that the origin accepts"
	default:
		return false
	}
	e.Kind = TLS
	return true
}
