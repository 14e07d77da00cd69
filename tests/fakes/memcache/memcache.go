// Package memcache stands in for memcached where none is installed. It is not
// memcached: it keeps what it gets in a map, evicts nothing, and knows get,
// gets, set, add, cas, delete, version and quit of the text protocol, which is
// what gomemcache speaks for the product. There is no noreply.
//
// The facts are from
// https://github.com/memcached/memcached/blob/master/doc/protocol.txt, and the
// tests hold its answers against memcached's:
//
//   - a line ends in \r\n; a data block has as many bytes as its command line
//     says, and \r\n after them
//   - a key has 1 to 250 bytes, none of them a space or a control character
//   - an expiry time of 0 means never, below 0 at once, up to 30 days it is
//     seconds from now, above that a Unix time; time has whole seconds
//   - each store gives the item a new number, which gets shows and cas compares
//   - a set that is too large also removes what was there
//
// It is stricter than memcached, which forgives a bare \n, further fields and
// control characters in keys. What is against the protocol is refused, and
// remembered as a violation; the connection ends with it where it cannot be
// known what comes next.
package memcache

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/listen"
)

const (
	maxKey   = 250       // bytes
	maxValue = 1<<20 - 1 // bytes; memcached's default item limit is 1 MiB with what surrounds the value
	maxLine  = 64 << 10  // bytes; a get of 100 keys has half of that at most
	maxItems = 64 << 20  // bytes of all keys and values
	month    = 30 * 24 * 60 * 60
)

// Options configures a Server. Zero values mean what the fields say.
type Options struct {
	Now      func() time.Time // nil: time.Now
	Listener net.Listener     // nil: a free port of 127.0.0.1
}

// Server is the stand-in.
type Server struct {
	*listen.Server // Addr and Close

	now func() time.Time

	mu         sync.Mutex // guards what follows
	items      map[string]item
	size       int    // bytes of all keys and values
	last       uint64 // number of the last store
	violations []string
	commands   int
}

// item is one value. Immutable: a store replaces it.
type item struct {
	value   []byte
	flags   uint32
	expires int64 // Unix time; 0: never
	number  uint64
}

// Start listens where the options say.
func Start(o Options) (*Server, error) {
	ln := o.Listener
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("start a stand-in for memcached: %w", err)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{now: o.Now, items: map[string]item{}}
	s.Server = listen.Start(ln, s.serve)
	return s, nil
}

// Len is the number of items that have not expired.
func (s *Server) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepLocked()
	return len(s.items)
}

// Holds says whether some key or value has text in it.
func (s *Server) Holds(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, it := range s.items {
		if strings.Contains(k, text) || strings.Contains(string(it.value), text) {
			return true
		}
	}
	return false
}

// Flush drops every item, as flush_all and a restart do.
func (s *Server) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items, s.size = map[string]item{}, 0
}

// Copy is what a Server held at some time.
type Copy struct{ items map[string]item }

// Copy copies every item, for PutBack.
func (s *Server) Copy() Copy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Copy{maps.Clone(s.items)}
}

// PutBack stores the copied items over what is there, as somebody does who can
// write to memcached. Each gets a new number and lasts until it would have, or
// for ever.
func (s *Server) PutBack(c Copy, forEver bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, it := range c.items {
		if forEver {
			it.expires = 0
		}
		s.takeLocked(k)
		s.last++
		it.number = s.last
		s.items[k] = it
		s.size += len(k) + len(it.value)
	}
}

// Commands is how many commands came so far.
func (s *Server) Commands() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commands
}

// Violations are what clients sent against the protocol, or beyond this part of it.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// serve answers one connection until it ends.
func (s *Server) serve(nc net.Conn) {
	r, w := bufio.NewReaderSize(nc, maxLine), bufio.NewWriter(nc)
	for {
		more := s.command(r, w)
		if r.Buffered() == 0 || !more {
			if w.Flush() != nil {
				return
			}
		}
		if !more {
			return
		}
	}
}

// command reads and answers one command; false ends the connection.
func (s *Server) command(r *bufio.Reader, w io.Writer) bool {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if len(line) > 0 {
			s.violation("a line that does not end: %.40q", line)
		}
		return false
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok {
		s.violation("a line that ends in \\n alone: %.40q", line)
		fmt.Fprint(w, "CLIENT_ERROR stand-in: a line ends in \\r\\n\r\n")
		return false
	}
	s.mu.Lock()
	s.commands++
	s.mu.Unlock()
	name, rest, _ := strings.Cut(text, " ")
	args := strings.Fields(rest)
	switch name {
	case "get", "gets":
		s.get(w, args, name == "gets")
		return true
	case "set", "add", "cas":
		return s.store(r, w, name, args)
	case "delete":
		s.remove(w, args)
		return true
	case "version":
		fmt.Fprint(w, "VERSION 0.0.0-stand-in\r\n")
		return true
	case "quit":
		return false
	}
	s.violation("a command that is not modelled: %.40q", text)
	fmt.Fprint(w, "ERROR\r\n")
	return true
}

func (s *Server) violation(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.violations) < 100 {
		s.violations = append(s.violations, fmt.Sprintf(format, args...))
	}
}

func legalKey(key string) bool {
	return key != "" && len(key) <= maxKey && !strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
