package memcached

import "time"

// format is how one kind of record is written and read, and which of two is the newer.
type format[T any] struct {
	encode func(T) []byte
	decode func(plain []byte) (T, bool)
	at     func(T) time.Time
	ends   func(T) bool        // it ends what another of the same time says
	rank   func(v, than T) int // above or below 0: which is newer, whatever their times say; nil: they decide
}

// newest returns the newest of what lies at a place and counts; ok is false
// where there is none.
func (f format[T]) newest(place []seen, counts func(T) bool) (best T, ok bool) {
	for _, plain := range opened(place) {
		v, readable := f.decode(plain)
		if readable && counts(v) && (!ok || f.newer(v, best)) {
			best, ok = v, true
		}
	}
	return best, ok
}

func (f format[T]) newer(v, than T) bool {
	if f.rank != nil {
		if rank := f.rank(v, than); rank != 0 {
			return rank > 0
		}
	}
	return f.at(v).After(f.at(than)) || f.at(v).Equal(f.at(than)) && f.ends(v) && !f.ends(than)
}

// over replaces what is there by v, unless some of it is not older. What is dated too
// far ahead is replaced by anything.
func (f format[T]) over(v T, now time.Time) func(old []seen) []byte {
	return func(old []seen) []byte {
		for _, plain := range opened(old) {
			if o, ok := f.decode(plain); ok && !ahead(f.at(o), now) && !f.newer(v, o) {
				return nil
			}
		}
		return f.encode(v)
	}
}
