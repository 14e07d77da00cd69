package e2e

import (
	"net"
	"syscall"
)

// shrinkBacklog makes a listener's queue of connections as short as it can be:
// a second listen(2) changes it.
func shrinkBacklog(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Listen(int(fd), 0) }); err != nil {
		return err
	}
	return failed
}
