package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The kernel takes the ports of outgoing connections from 32768 up
// (ip(7), ip_local_port_range). Below that nothing but a listener of ours
// takes a port, so one that is down keeps its own.
const (
	portFirst = 12000
	portLast  = 32000
)

// freePorts returns n consecutive ports on which nothing listens on 127.0.0.1
// now. Another process may still be quicker: callers try again with new ones.
func freePorts(n int) (int, error) {
	for range 200 {
		first := portFirst + rand.IntN(portLast-portFirst-n)
		free := 0
		for ; free < n; free++ {
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
