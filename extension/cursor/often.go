package cursor

import (
	"context"
	"math/bits"
	"time"

	"github.com/thaw-project/thaw/extension/rescue"
)

// How often polls ask: not where the index mostly moves, and ahead where the next one will.

// Wants reports whether a poll of this epoch, which reads so many secrets again if the index
// verifies none, is to ask for it.
func (c *Cursor) Wants(epoch uint64, secrets int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried, c.vain = epoch+1, 0 // no read of this epoch need ask for an index
	return c.usableLocked() && !c.skipLocked(secrets)
}

// Moves reports whether the cursor had moved at the last polls, for one of this epoch that
// would not wait for it then.
func (c *Cursor) Moves(epoch uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	yes := c.usableLocked() && c.history&0b11 == 0b11
	if yes {
		c.tried = epoch + 1 // the poll asks
	}
	return yes
}

// soon is when the re-reads of a poll have their connections.
const soon = time.Millisecond

// Again asks for the index once more beside the re-reads, if the next poll is the first that
// sends both at once: so that one finds a connection open for each of its requests.
func (c *Cursor) Again(ctx context.Context, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.history&0b111 != 0b011 {
		return
	}
	ask := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.tried == epoch+1 {
			c.startLocked(ctx, epoch).Persist(true)
		}
	}
	time.AfterFunc(soon, func() { rescue.Do(c.log, "ask for the index once more", ask) })
}

// foundLocked notes, for skipLocked, whether the cursor had moved.
func (c *Cursor) foundLocked(moved bool) {
	if c.history <<= 1; moved {
		c.history |= 1
	}
}

// skipLocked leaves the cursor out while it mostly moves: on a busy cluster it
// would be one request more for nothing. Every so often two polls in a row ask
// again, the sooner the more secrets are read in vain if the cluster has fallen quiet.
func (c *Cursor) skipLocked(secrets int) bool {
	const window, mostly, inVain = 8, 7, 14
	if bits.OnesCount16(c.history&(1<<window-1)) < mostly || c.history&1 == 0 {
		c.skipped = 0
		return false
	}
	c.skipped++
	every := inVain / max(1, secrets)
	if c.skipped <= every {
		return true
	}
	if c.skipped > every+1 {
		c.skipped = 0
	}
	return false
}
