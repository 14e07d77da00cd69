package cache

import "context"

// coversLocked reports whether e was read late enough for id. Its caller holds
// mu and knows that there is a Consistency.
func (c *Cache) coversLocked(e *Entry, id *Identity) bool {
	required := c.o.Consistency.Required(id)
	return required == "" || c.o.Consistency.Covers(e.ReadAt, required)
}

// requireFor settles which state the read f requires: what its identity
// requires now, after its login. Whoever joined it before required less.
func (c *Cache) requireFor(ctx context.Context, f *flight, after *Change) context.Context {
	if c.o.Consistency == nil {
		return ctx
	}
	required := c.o.Consistency.Required(f.id)
	if after != nil {
		required = "" // it requires the state of the change instead
	}
	c.mu.Lock()
	f.readAt = required
	c.mu.Unlock()
	return context.WithValue(ctx, requiredKey{}, required)
}

// laterRead returns the state at which an answer was read that was the same in
// two reads.
func (c *Cache) laterRead(now, before string) string {
	if c.o.Consistency == nil || before == "" || c.o.Consistency.Covers(now, before) || !c.o.Consistency.Covers(before, now) {
		return now
	}
	return before
}

type requiredKey struct{}

// RequiredIn returns the state that a read of the cache's requires; ok is false
// for a request that is none. The state is what the entry is kept under, so
// just this one is to be required of the origin.
func RequiredIn(ctx context.Context) (required string, ok bool) {
	required, ok = ctx.Value(requiredKey{}).(string)
	return required, ok
}
