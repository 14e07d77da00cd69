package memcached

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	maxLine     = 512      // of an answer, in bytes; names have 49
	maxAnswer   = 16 << 20 // of one exchange, in bytes; a call gets less than twice that from a node
	maxReceived = 1 << 20  // of one item's value; memcached's default limit
)

// conn is a connection under gomemcache. It belongs to one exchange at a time,
// which begin and end bracket.
//
// It ignores the deadlines that gomemcache sets, each later than the last, and
// keeps that of the exchange. And it reads along: gomemcache allocates what the
// length field of an answer says (up to 4 GiB), takes any number of items, and
// leaves what comes after the end of an answer to be read as the next one.
type conn struct {
	net.Conn
	closed atomic.Bool

	// What follows is the running exchange's alone.
	asked time.Time // when its request began to be written; zero: not yet
	line  []byte    // the running line of the answer, without its value blocks
	skip  int       // bytes left of a value block and its line end
	items int       // items that may still come
	total int       // bytes that may still come
	ended bool      // the answer is complete
	got   int       // items that came
}

var errAnswer = errors.New("memcached answered something else than was asked")

// begin starts an exchange: an answer of at most items items, by deadline.
func (c *conn) begin(deadline time.Time, items int) error {
	c.line, c.skip, c.items, c.total, c.ended, c.got, c.asked = c.line[:0], 0, items, maxAnswer, false, 0, time.Time{}
	return c.Conn.SetDeadline(deadline)
}

// abort ends the running exchange at once.
func (c *conn) abort() { _ = c.Conn.SetDeadline(time.Unix(1, 0)) }

// SetDeadline does nothing: the exchange's deadline stands.
func (c *conn) SetDeadline(time.Time) error { return nil }

// Close also marks the connection, since gomemcache closes what it will not
// use again.
func (c *conn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// Write notes when the request went out.
func (c *conn) Write(p []byte) (int, error) {
	if c.asked.IsZero() {
		c.asked = time.Now()
	}
	return c.Conn.Write(p)
}

// Read passes on what follows the protocol.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bad := c.scan(p[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// scan follows the answer: lines, and after each VALUE line a block of as many
// bytes as it says. Any other line ends it
// (https://github.com/memcached/memcached/blob/master/doc/protocol.txt).
func (c *conn) scan(p []byte) error {
	if c.total -= len(p); c.total < 0 {
		return fmt.Errorf("%w: more than %d bytes", errAnswer, maxAnswer)
	}
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(p))
			c.skip -= n
			p = p[n:]
			continue
		}
		if c.ended {
			return fmt.Errorf("%w: bytes after its end", errAnswer)
		}
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i+1]
		}
		if len(c.line)+len(part) > maxLine {
			return fmt.Errorf("%w: a line of more than %d bytes", errAnswer, maxLine)
		}
		c.line = append(c.line, part...)
		p = p[len(part):]
		if i < 0 {
			continue
		}
		if err := c.endLine(); err != nil {
			return err
		}
	}
	return nil
}

// endLine takes a whole line.
func (c *conn) endLine() error {
	rest, ok := bytes.CutPrefix(c.line, []byte("VALUE "))
	c.line = c.line[:0]
	if !ok {
		c.ended = true
		return nil
	}
	// VALUE <key> <flags> <bytes> [<cas unique>]\r\n
	fields := bytes.Fields(rest)
	if len(fields) < 3 {
		return fmt.Errorf("%w: a VALUE line without a length", errAnswer)
	}
	size, err := strconv.ParseUint(string(fields[2]), 10, 31)
	if err != nil || size > maxReceived {
		return fmt.Errorf("%w: an item of more than %d bytes", errAnswer, maxReceived)
	}
	if c.items--; c.items < 0 {
		return fmt.Errorf("%w: more items than were asked for", errAnswer)
	}
	c.got++
	c.skip = int(size) + 2
	return nil
}
