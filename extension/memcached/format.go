package memcached

import "time"

// standing is what decides which of two records of a place is the newer. Whatever
// decodes a kind of record gives it, too.
type standing struct {
	at      time.Time
	ends    bool // it ends what another of the same time says
	version int  // of a secret; 0: none
}

// newer compares two records. Two versions of a secret that were sent within the
// clocks' skew rank by their numbers.
func (s standing) newer(than standing, skew time.Duration) bool {
	if s.version != than.version && min(s.version, than.version) > 0 && s.at.Sub(than.at).Abs() <= skew {
		return s.version > than.version
	}
	return s.at.After(than.at) || s.at.Equal(than.at) && s.ends && !than.ends
}

// newest returns the newest of what lies at a place and is not dated too far ahead; ok
// is false where there is none.
func newest[T any](t *Tier, at []seen, decode func(plain []byte) (T, standing, bool)) (best T, ok bool) {
	var top standing
	now := t.now()
	for _, plain := range opened(at) {
		if v, s, readable := decode(plain); readable && !ahead(s.at, now) && (!ok || s.newer(top, t.o.ClockSkew)) {
			best, top, ok = v, s, true
		}
	}
	return best, ok
}

// over replaces what is there by a record, unless some of it is not older. What is dated
// too far ahead is replaced by anything.
func over[T any](t *Tier, v T, encode func(T) []byte, decode func(plain []byte) (T, standing, bool)) func(old []seen) []byte {
	now := t.now()
	return func(old []seen) []byte {
		plain := encode(v)
		_, ours, _ := decode(plain)
		for _, was := range opened(old) {
			if _, s, ok := decode(was); ok && !ahead(s.at, now) && !ours.newer(s, t.o.ClockSkew) {
				return nil
			}
		}
		return plain
	}
}
