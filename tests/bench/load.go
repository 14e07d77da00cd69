package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// load is a fixed number of kept connections to one server. It sends the
// same request again and again and reads the answers with as little work as
// will do, so that the server and not the client is what is busy.
type load struct {
	request []byte
	conns   []*client
}

// client is one connection.
type client struct {
	net.Conn
	r    *bufio.Reader
	long []byte // for bodies that r does not hold
	hit  bool   // the last answer came from a cache
}

// patience bounds one answer.
const patience = 10 * time.Second

// dial opens n connections. header are whole lines, each with its CRLF.
func dial(ctx context.Context, address, path, header string, n int) (*load, error) {
	l := &load{request: []byte("GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\nUser-Agent: bench\r\nAccept-Encoding: gzip\r\nX-Vault-Request: true\r\n" + header + "\r\n")}
	for range n {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
		if err != nil {
			l.close()
			return nil, err
		}
		l.conns = append(l.conns, &client{Conn: conn, r: bufio.NewReaderSize(conn, 16<<10)})
	}
	return l, nil
}

func (l *load) close() {
	for _, c := range l.conns {
		c.Close()
	}
}

// run makes n requests, spread over the connections, each of which has one
// request under way at a time.
func (l *load) run(ctx context.Context, n int) error {
	errs := make(chan error, len(l.conns))
	for i, c := range l.conns {
		share := n / len(l.conns)
		if i < n%len(l.conns) {
			share++
		}
		go func() {
			for range share {
				if err := ctx.Err(); err != nil {
					errs <- err
					return
				}
				if _, err := c.ask(l.request); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var all []error
	for range l.conns {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// ask makes one request and returns the answer's body, which is valid until
// the next call.
func (c *client) ask(request []byte) ([]byte, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	status, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return nil, c.refused(string(status))
	}
	length := -1
	c.hit = false
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(line) == 2 {
			break
		}
		if bytes.HasPrefix(line, []byte("X-Cache: HIT")) {
			c.hit = true
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return nil, errors.New("the answer has no Content-Length")
	}
	if length <= c.r.Size() {
		body, err := c.r.Peek(length)
		if err != nil {
			return nil, err
		}
		_, err = c.r.Discard(length)
		return body, err
	}
	if cap(c.long) < length {
		c.long = make([]byte, length)
	}
	_, err = io.ReadFull(c.r, c.long[:length])
	return c.long[:length], err
}

// refused is the error of an answer other than 200. The connection is of no
// use afterwards.
func (c *client) refused(status string) error {
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	rest, _ := io.ReadAll(io.LimitReader(c.r, 2000)) // whatever there is of it
	return fmt.Errorf("%s%s", status, rest)
}
