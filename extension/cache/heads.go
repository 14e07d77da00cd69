package cache

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// heads lets entries share their headers. Nearly all answers of an origin have
// the same ones, and a map with strings of its own would be a third of a small
// entry. It belongs to what Cache.mu guards.
type heads struct {
	known [8]http.Header // immutable; the oldest is replaced
	next  int
}

// share returns a header equal to h that holds on to nothing of h and must not
// be changed.
func (s *heads) share(h http.Header) http.Header {
	for _, known := range s.known {
		if known != nil && maps.EqualFunc(known, h, slices.Equal[[]string]) {
			return known
		}
	}
	own := make(http.Header, len(h))
	for name, values := range h {
		kept := make([]string, len(values))
		for i, v := range values {
			kept[i] = strings.Clone(v)
		}
		own[strings.Clone(name)] = kept
	}
	s.known[s.next] = own
	s.next = (s.next + 1) % len(s.known)
	return own
}
