package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// The kernel takes the ports of outgoing connections from 32768 up
// (ip(7), ip_local_port_range). Below that nothing but a listener of ours
// takes a port, so one that is down keeps its own.
const (
	portFirst = 12000
	portLast  = 32000
)

// freePorts returns n consecutive ports on which nothing listens on 127.0.0.1
// now. They are this process's until it ends, as far as others ask here too: a
// server binds its second port late, and one that is down wants its own back.
// Strangers may still be quicker: callers try again with new ones.
func freePorts(n int) (int, error) {
	dir := filepath.Join(os.TempDir(), "thaw-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, fmt.Errorf("make the folder of ports in use: %w", err)
	}
	for range 200 {
		first := portFirst + rand.IntN(portLast-portFirst-n)
		free := 0
		for ; free < n && reserve(dir, first+free); free++ {
			l, err := net.Listen("tcp", loopback(first+free))
			if err != nil {
				break
			}
			l.Close()
		}
		if free == n {
			return first, nil
		}
	}
	return 0, fmt.Errorf("find %d free ports on 127.0.0.1 between %d and %d: all tries were taken", n, portFirst, portLast)
}

// reserve takes a port for this process by a lock on a file, which is never
// closed: the lock ends with the process, however that ends.
func reserve(dir string, port int) bool {
	fd, err := syscall.Open(filepath.Join(dir, strconv.Itoa(port)), syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return false
	}
	if syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		syscall.Close(fd)
		return false
	}
	return true
}

// listenLoopback listens on a port that is free now.
func listenLoopback() (net.Listener, error) {
	var last error
	for range 20 {
		port, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", loopback(port))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, last
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
