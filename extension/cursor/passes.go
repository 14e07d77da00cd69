package cursor

import (
	"context"
	"log/slog"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// NewForPasses returns a Cursor for the warm-up, which asks Where the index is. It asks what
// the origin is at once: no first read has to come before.
func NewForPasses(origin Asker, log *slog.Logger, now func() time.Time) *Cursor {
	c := New(origin, nil, 0, log, now)
	c.instead = "every modified pass reads each secret again"
	c.Answered()
	return c
}

// Where asks where the index is, for who keeps no Ledger. It returns the stamp for others:
// none where they can verify nothing by it, as while something was appended and is not
// applied. status is that of the answer; 0: no index can count here, and none was asked for.
func (c *Cursor) Where(ctx context.Context) (stamp cache.CursorStamp, status int, err error) {
	c.mu.Lock()
	usable := c.usableLocked()
	c.mu.Unlock()
	if !usable {
		return stamp, 0, nil
	}
	_, call := c.askAnew(ctx, 0)
	l, err := call.Wait(ctx)
	if err != nil {
		return stamp, 0, err
	}
	counts, err := c.judge(ctx, l)
	if counts {
		stamp = stampOf(l)
	}
	return stamp, l.Status, err
}

// Recorded is the index for a read that is sent after it returns: none where it is not
// known that it counts. It asks for nothing.
func (c *Cursor) Recorded() cache.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.who.trusts(c.index.Node) || recently(c.who.split, c.now()) {
		return cache.Index{}
	}
	return c.index
}

// Told is what sys/health said of the cluster whose leader became active at activeTime, as
// Hearsay.Forwards.
func (c *Cursor) Told() (activeTime string, forwards bool, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); c.who.term == "" || !c.who.known || !recently(c.who.learned, now) || recently(c.who.split, now) {
		return "", false, time.Time{}
	}
	return c.who.term, c.who.forwards, c.who.learned
}
