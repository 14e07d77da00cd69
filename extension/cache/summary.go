package cache

import "time"

// Summary is what operators ask about all that is cached.
type Summary struct {
	Verified     time.Time // the newest verification of any entry; zero: none
	Stale        int       // entries that are not verified now and may be served all the same, marked
	Since        time.Time // the one of them that was verified first was last true then
	Capabilities int       // held by anybody
	Confirmed    time.Time // the oldest confirmation of our own identity's; zero: it has none
	Fills        int       // reads of the origin under way
}

// Summary looks at everything.
func (c *Cache) Summary() (s Summary) {
	now := c.o.Now()
	c.ledger.walk(func(sl *slot) bool {
		h := c.ledger.judgeLocked(sl, now)
		if sl.entry.Kind == Other || h.State == Absent {
			return true
		}
		s.Verified = later(s.Verified, h.Verified.At)
		if h.State != Fresh && h.Stale {
			if s.Stale++; s.Since.IsZero() || h.True.Before(s.Since) {
				s.Since = h.True
			}
		}
		return true
	})
	c.mu.Lock()
	s.Fills = len(c.running)
	c.mu.Unlock()
	a := c.access
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Capabilities = len(a.index.index)
	for _, h := range a.o.Own.held {
		if s.Confirmed.IsZero() || h.confirmed.Before(s.Confirmed) {
			s.Confirmed = h.confirmed
		}
	}
	return s
}
