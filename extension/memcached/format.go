package memcached

import "time"

// format is how one kind of record is read, and which of two is the newer.
type format[T any] struct {
	decode func(plain []byte) (T, bool)
	at     func(T) time.Time
	ends   func(T) bool // it ends what another of the same time says
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
	return f.at(v).After(f.at(than)) || f.at(v).Equal(f.at(than)) && f.ends(v) && !f.ends(than)
}

// over tells of a sealed record whether v replaces it. What is dated too far
// ahead is replaced by anything.
func (f format[T]) over(v T, now time.Time) func(old []byte) bool {
	return func(old []byte) bool {
		o, ok := f.decode(old)
		return !ok || ahead(f.at(o), now) || f.newer(v, o)
	}
}
