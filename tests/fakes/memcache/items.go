package memcache

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
)

const badLine = "CLIENT_ERROR bad command line format\r\n"

// get answers get and gets; only gets shows the item's number.
func (s *Server) get(w io.Writer, keys []string, numbers bool) {
	if len(keys) == 0 {
		s.violation("a get without a key")
		fmt.Fprint(w, "ERROR\r\n")
		return
	}
	for _, k := range keys {
		if !legalKey(k) {
			s.violation("a key that is none: %.40q", k)
			fmt.Fprint(w, badLine)
			return
		}
	}
	for _, k := range keys {
		it, ok := s.find(k)
		if !ok {
			continue
		}
		fmt.Fprintf(w, "VALUE %s %d %d", k, it.flags, len(it.value))
		if numbers {
			fmt.Fprintf(w, " %d", it.number)
		}
		fmt.Fprintf(w, "\r\n%s\r\n", it.value)
	}
	fmt.Fprint(w, "END\r\n")
}

func (s *Server) find(key string) (item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.liveLocked(key)
}

// store is set, add and cas: key, flags, expiry, length and, for cas, the number.
func (s *Server) store(r *bufio.Reader, w io.Writer, name string, args []string) bool {
	want := 4
	if name == "cas" {
		want = 5
	}
	if len(args) != want {
		s.violation("%s with %d fields", name, len(args))
		fmt.Fprint(w, "ERROR\r\n")
		return true
	}
	flags, err1 := strconv.ParseUint(args[1], 10, 32)
	expiry, err2 := strconv.ParseInt(args[2], 10, 32)
	length, err3 := strconv.ParseUint(args[3], 10, 31)
	var number uint64
	var err4 error
	if name == "cas" {
		number, err4 = strconv.ParseUint(args[4], 10, 64)
	}
	if !legalKey(args[0]) || err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		s.violation("a command line that cannot be read: %s %.60q", name, args)
		fmt.Fprint(w, badLine)
		return true
	}
	if length > maxValue {
		if _, err := io.CopyN(io.Discard, r, int64(length)+2); err != nil {
			return false
		}
		if name == "set" {
			s.take(args[0])
		}
		fmt.Fprint(w, "SERVER_ERROR object too large for cache\r\n")
		return true
	}
	block := make([]byte, length+2)
	if _, err := io.ReadFull(r, block); err != nil {
		s.violation("a data block that ends early: %s %.60q", name, args)
		return false
	}
	if !bytes.HasSuffix(block, []byte("\r\n")) {
		s.violation("a data block of another length: %s %.60q", name, args)
		fmt.Fprint(w, "CLIENT_ERROR bad data chunk\r\n")
		return false
	}
	fmt.Fprint(w, s.put(name, args[0], item{value: block[:length], flags: uint32(flags), expires: s.expires(expiry)}, number))
	return true
}

// expires turns an expiry time of the protocol into a Unix time.
func (s *Server) expires(t int64) int64 {
	now := s.now().Unix()
	switch {
	case t == 0:
		return 0
	case t < 0:
		return now // at once
	case t <= month:
		return now + t
	}
	return t
}

// put stores under the command's condition and returns the answer.
func (s *Server) put(name, key string, it item, number uint64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, there := s.liveLocked(key)
	switch {
	case name == "add" && there:
		return "NOT_STORED\r\n"
	case name == "cas" && !there:
		return "NOT_FOUND\r\n"
	case name == "cas" && old.number != number:
		return "EXISTS\r\n"
	}
	if s.size+len(key)+len(it.value) > maxItems {
		s.sweepLocked()
		if s.size+len(key)+len(it.value) > maxItems {
			return "SERVER_ERROR out of memory storing object\r\n"
		}
	}
	s.takeLocked(key)
	s.last++
	it.number = s.last
	s.items[key] = it
	s.size += len(key) + len(it.value)
	return "STORED\r\n"
}

// remove is delete. The 0 after the key is an old form that memcached still takes.
func (s *Server) remove(w io.Writer, args []string) {
	switch {
	case len(args) == 0:
		s.violation("delete without a key")
		fmt.Fprint(w, "ERROR\r\n")
	case len(args) > 2 || len(args) == 2 && args[1] != "0" || !legalKey(args[0]):
		s.violation("a command line that cannot be read: delete %.60q", args)
		fmt.Fprint(w, "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n")
	case s.take(args[0]):
		fmt.Fprint(w, "DELETED\r\n")
	default:
		fmt.Fprint(w, "NOT_FOUND\r\n")
	}
}

// take removes an item and says whether there was one.
func (s *Server) take(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.liveLocked(key)
	s.takeLocked(key)
	return there
}

func (s *Server) takeLocked(key string) {
	if it, ok := s.items[key]; ok {
		s.size -= len(key) + len(it.value)
		delete(s.items, key)
	}
}

// liveLocked is the item, unless its time is over.
func (s *Server) liveLocked(key string) (item, bool) {
	it, ok := s.items[key]
	return it, ok && !s.over(it)
}

func (s *Server) over(it item) bool { return it.expires != 0 && it.expires <= s.now().Unix() }

// sweepLocked removes what has expired.
func (s *Server) sweepLocked() {
	for k, it := range s.items {
		if s.over(it) {
			s.takeLocked(k)
		}
	}
}
