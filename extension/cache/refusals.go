package cache

import "time"

// refusal names who was not told which mount a path is on.
type refusal struct {
	id              uint64
	namespace, path string
}

func refusalOf(w Want) refusal { return refusal{w.ID.ID, w.Key.Namespace, w.Key.Path} }

// maxRefusals bounds the refusals remembered. Forgetting one costs a request.
const maxRefusals = 1024

// wasRefused reports whether w's identity was refused the mount of w's path, not
// longer ago than a refresh interval.
func (c *Cache) wasRefused(w Want) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.refusals[refusalOf(w)]
	return ok && Within(at, c.o.Now(), c.o.RefreshInterval)
}

// noteRefusal remembers that w's identity was refused the mount of w's path.
func (c *Cache) noteRefusal(w Want) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.refusals) >= maxRefusals || c.refusals == nil {
		c.refusals = make(map[refusal]time.Time)
	}
	c.refusals[refusalOf(w)] = c.o.Now()
}
