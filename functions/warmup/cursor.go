package warmup

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/wire"
)

// standing is the origin's raft index by the rule of cursor.Cursor, and where it was last.
type standing struct {
	*cursor.Cursor
	asks bool // there is somebody to ask
	log  *slog.Logger

	mu    sync.Mutex // guards the fields below
	stamp cache.CursorStamp
	fresh bool // asked in this cycle
}

func newStanding(asker Asker, log *slog.Logger, now func() time.Time) *standing {
	return &standing{Cursor: cursor.NewForPasses(asker, log, now), asks: asker != nil, log: log}
}

// errStatus is an answer that says nothing about the cursor: an origin that is
// sealed, or refuses for its rate limit.
type errStatus int

func (e errStatus) Error() string { return "sys/leader: status " + strconv.Itoa(int(e)) }

// forget makes the next look a new request.
func (c *standing) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = false
}

// look returns the cursor, asked for once in a cycle. An error says that
// nothing is known about it.
func (c *standing) look(ctx context.Context) (cache.CursorStamp, error) {
	c.mu.Lock()
	fresh, stamp := c.fresh, c.stamp
	c.mu.Unlock()
	if fresh {
		return stamp, nil
	}
	return c.query(ctx)
}

// query asks the origin where the cursor is. Where there is none the stamp is zero.
func (c *standing) query(ctx context.Context) (stamp cache.CursorStamp, err error) {
	if !c.asks {
		return stamp, nil
	}
	stamp, status, err := c.Where(ctx)
	if err != nil {
		c.log.Debug("ask for the cursor", "error", err)
	} else if status != 0 && wire.Failed(status) {
		err = errStatus(status)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stamp, c.fresh = stamp, err == nil
	return stamp, err
}
