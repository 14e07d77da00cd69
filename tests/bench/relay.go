package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// relay puts a distance between a client and a server: a round trip takes so
// long, that of connecting included.
type relay struct {
	net.Listener
	to    string
	trip  time.Duration
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

// newRelay listens for clients of a server at host:port.
func newRelay(to string, trip time.Duration) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &relay{Listener: ln, to: to, trip: trip}
	r.wg.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(near) })
		}
	})
	return r, nil
}

// serve joins a client with the server.
func (r *relay) serve(near net.Conn) {
	far, err := (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "tcp", r.to)
	if err != nil {
		near.Close()
		return
	}
	r.mu.Lock()
	r.conns = append(r.conns, near, far)
	r.mu.Unlock()
	began := time.Now()
	var both sync.WaitGroup
	// What a client sends comes no sooner than a connection would be there.
	both.Go(func() { carry(far, near, r.trip/2, began.Add(r.trip)) })
	both.Go(func() { carry(near, far, r.trip/2, began) })
	both.Wait()
	near.Close()
	far.Close()
}

// chunk is what was read at once, and when it may arrive.
type chunk struct {
	data []byte
	at   time.Time
}

// carry hands on what it reads, each part so much later, and none before start
// and that.
func carry(to io.Writer, from io.Reader, later time.Duration, start time.Time) {
	parts := make(chan chunk, 1024)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range parts {
			time.Sleep(time.Until(p.at))
			if _, err := to.Write(p.data); err != nil {
				continue // the reader notices
			}
		}
		if c, ok := to.(*net.TCPConn); ok {
			c.CloseWrite()
		}
	})
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			at := time.Now()
			if at.Before(start) {
				at = start
			}
			parts <- chunk{buf[:n], at.Add(later)}
		}
		if err != nil {
			break
		}
	}
	close(parts)
	wg.Wait()
}

// Close ends the relay and its connections.
func (r *relay) Close() error {
	err := r.Listener.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		err = errors.Join(err, ignoreClosed(c.Close()))
	}
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
