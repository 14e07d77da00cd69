package memcached

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

const (
	maxLine     = 512      // of an answer, in bytes; names have 49
	maxAnswer   = 16 << 20 // of one exchange, in bytes; a call gets less than twice that from a node
	maxReceived = 1 << 20  // of one item's value; memcached's default limit
)

// conn is a connection, with the gomemcache client that speaks on it. It is lent to one
// exchange at a time (run).
//
// It ignores the deadlines that gomemcache sets, each later than the last, and
// keeps that of the exchange. And it reads along: gomemcache allocates what the
// length field of an answer says (up to 4 GiB), takes any number of items, and
// leaves what comes after the end of an answer to be read as the next one.
type conn struct {
	net.Conn
	in     *bufio.Reader // of Conn
	mc     *memcache.Client
	born   time.Time // wall clock
	used   time.Time // wall clock; end of the last exchange
	gen    uint64
	old    bool // it has had an exchange
	late   bool // a call gave up on it while it was made
	closed bool // by gomemcache, since it will not use it again, or by us

	// What follows is the running exchange's alone.
	progress
	line  []byte // what is to be passed on of the running line
	block int    // bytes left of a value block and its line end
	items int    // items that may still come
	total int    // bytes that may still come
	ended bool   // the answer is complete
}

// progress is how far an exchange came.
type progress struct {
	asked  time.Time // when the request began to be written; zero: it was not
	got    int       // items that came
	reused bool      // the connection was used before: it may have died since
}

var errAnswer = errors.New("memcached answered something else than was asked")

func newConn(nc net.Conn, now time.Time, gen uint64) *conn {
	c := &conn{Conn: nc, in: bufio.NewReader(nc), born: now, used: now, gen: gen}
	c.mc = memcache.New("127.0.0.1:0") // any address: the ring has picked the node already, and this is the connection to it
	c.mc.DialContext = func(context.Context, string, string) (net.Conn, error) { return c, nil }
	return c
}

// run has one exchange: f with an answer of at most items items, until ctx ends.
func (c *conn) run(ctx context.Context, items int, f func(*memcache.Client) error) error {
	c.progress, c.old = progress{reused: c.old}, true
	c.line, c.block, c.items, c.total, c.ended = nil, 0, items, maxAnswer, false
	deadline, _ := ctx.Deadline()
	if err := c.Conn.SetDeadline(deadline); err != nil {
		c.Close()
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Conn.SetDeadline(time.Unix(1, 0)) })
	err := f(c.mc)
	if c.ended && c.in.Buffered() > 0 {
		c.ended, err = false, fmt.Errorf("%w: bytes after its end", errAnswer)
	}
	if !stop() || !c.ended {
		c.Close() // its deadline is spent, or the answer is not all read
	}
	return err
}

// SetDeadline does nothing: the exchange's deadline stands.
func (c *conn) SetDeadline(time.Time) error { return nil }

// Close also marks the connection.
func (c *conn) Close() error {
	c.closed = true
	return c.Conn.Close()
}

// Write notes when the request went out.
func (c *conn) Write(p []byte) (int, error) {
	if c.asked.IsZero() {
		c.asked = time.Now()
	}
	return c.Conn.Write(p)
}

// Read passes on what follows the protocol: lines, and after each VALUE line a
// block of as many bytes as it says.
func (c *conn) Read(p []byte) (n int, err error) {
	if c.block > 0 && len(c.line) == 0 {
		n, err = c.in.Read(p[:min(len(p), c.block)])
		c.block -= n
	} else {
		if len(c.line) == 0 {
			if c.line, err = c.readLine(); err != nil {
				return 0, err
			}
		}
		n = copy(p, c.line)
		c.line = c.line[n:]
	}
	if c.total -= n; c.total < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", errAnswer, maxAnswer)
	}
	return n, err
}

// readLine reads a whole line. Any but a VALUE line ends the answer
// (https://github.com/memcached/memcached/blob/master/doc/protocol.txt).
func (c *conn) readLine() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	switch {
	case c.ended && len(line) > 0:
		return nil, fmt.Errorf("%w: bytes after its end", errAnswer)
	case len(line) > maxLine:
		return nil, fmt.Errorf("%w: a line of more than %d bytes", errAnswer, maxLine)
	case err != nil:
		return nil, err
	}
	rest, ok := bytes.CutPrefix(line, []byte("VALUE "))
	if !ok {
		c.ended = true
		return line, nil
	}
	// VALUE <key> <flags> <bytes> [<cas unique>]\r\n
	fields := bytes.Fields(rest)
	if len(fields) < 3 {
		return nil, fmt.Errorf("%w: a VALUE line without a length", errAnswer)
	}
	size, err := strconv.ParseUint(string(fields[2]), 10, 31)
	if err != nil || size > maxReceived {
		return nil, fmt.Errorf("%w: an item of more than %d bytes", errAnswer, maxReceived)
	}
	if c.items--; c.items < 0 {
		return nil, fmt.Errorf("%w: more items than were asked for", errAnswer)
	}
	c.got++
	c.block = int(size) + 2
	return line, nil
}
