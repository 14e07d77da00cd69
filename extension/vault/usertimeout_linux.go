package vault

import (
	"net"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of tcp(7): the time in milliseconds that
// sent data may stay unacknowledged before the kernel gives the connection up.
const tcpUserTimeout = 18

// setUserTimeout sets that limit; 0 restores the system's. Where it cannot be
// had (a unix socket, a pipe) there is nothing to lose.
func setUserTimeout(c net.Conn, d time.Duration) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	if rc, err := sc.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds()))
		})
	}
}
