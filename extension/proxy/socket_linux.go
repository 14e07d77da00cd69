package proxy

import "syscall"

// ownersOnly gives a unix socket its mode before it has a name: on Linux bind(2)
// makes the file with the mode that the socket has, less the umask. So there is
// no moment in which others may connect.
func ownersOnly(network, _ string, c syscall.RawConn) error {
	if network != "unix" {
		return nil
	}
	var err error
	if e := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return err
}
