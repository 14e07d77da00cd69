package cache

import "time"

// SharedLately reports whether another instance verified what is held for key,
// not longer ago than three times MaxAge: others that are awake want it too.
func (c *Cache) SharedLately(key Key, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[key]
	return s != nil && s.mark.Epoch == sharedEpoch && Within(s.mark.At.Add(c.o.Skew), now, 3*c.o.MaxAge)
}
