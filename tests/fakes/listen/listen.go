// Package listen accepts connections for the fakes that speak a protocol of
// their own, and ends them all when the fake closes.
package listen

import (
	"net"
	"sync"
)

// Server serves the connections of a listener, each on a goroutine.
type Server struct {
	ln    net.Listener
	serve func(net.Conn)
	wg    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]bool
	served int // connections so far
	closed bool
}

// Start serves the connections of ln, which it owns from now on. A connection
// is closed when serve returns, and serve must return when it is closed.
func Start(ln net.Listener, serve func(net.Conn)) *Server {
	s := &Server{ln: ln, serve: serve, conns: map[net.Conn]bool{}}
	s.wg.Go(s.accept)
	return s
}

// Addr is host:port.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Conns is how many connections there are, and how many there were in all.
func (s *Server) Conns() (open, accepted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.served
}

// Close ends every connection and waits.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for nc := range s.conns {
		nc.Close()
	}
	s.mu.Unlock()
	s.ln.Close()
	s.wg.Wait()
}

func (s *Server) accept() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			nc.Close()
		} else {
			s.conns[nc] = true
			s.served++
			s.wg.Go(func() { s.one(nc) })
		}
		s.mu.Unlock()
	}
}

// one serves one connection until it ends.
func (s *Server) one(nc net.Conn) {
	defer func() {
		nc.Close()
		s.mu.Lock()
		delete(s.conns, nc)
		s.mu.Unlock()
	}()
	s.serve(nc)
}
