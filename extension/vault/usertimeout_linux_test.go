package vault

import (
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// userTimeout reads TCP_USER_TIMEOUT in milliseconds.
func userTimeout(t *testing.T, c net.Conn) int {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ms int
	var optErr error
	if err := rc.Control(func(fd uintptr) { ms, optErr = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout) }); err != nil {
		t.Fatal(err)
	}
	if optErr != nil {
		t.Fatal(optErr)
	}
	return ms
}

func TestAWokenConnectionHasAnAcknowledgementLimitUntilItAnswers(t *testing.T) {
	t.Parallel()
	cl := newClock()
	entered, leave := make(chan struct{}), make(chan struct{})
	first := true
	addr := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if first {
			first = false
			return
		}
		entered <- struct{}{}
		<-leave
	}))
	var nc net.Conn
	dials := 0
	dial := counting(&dials)
	c := newClient(t, Options{Config: config.Config{Addrs: []string{addr}, ConnTimeout: 1500 * time.Millisecond}, Now: cl.Now, Dial: dial.keep(&nc)})
	do(t, c.Do, request(t, "GET", "/v1/x", ""))
	if got := userTimeout(t, nc); got != 0 {
		t.Errorf("%d ms before", got)
	}
	cl.advance(5 * time.Second)
	done := make(chan struct{})
	req := request(t, "GET", "/v1/x", "")
	go func() { defer close(done); do(t, c.Do, req) }()
	<-entered
	if got := userTimeout(t, nc); got != 1500 {
		t.Errorf("%d ms while the request is unanswered", got)
	}
	leave <- struct{}{}
	<-done
	if got := userTimeout(t, nc); got != 0 || dials != 1 {
		t.Errorf("%d ms afterwards, %d dials", got, dials)
	}
}
