package app

import (
	"context"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/memcached"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/tier"
)

// lockTime is how long one instance's verification keeps others from doing it
// too, at most.
const lockTime = 2 * time.Second

var (
	_ poll.Directory = (*tier.Tier)(nil)
	_ poll.Hearsay   = (*tier.Tier)(nil)
	_ poll.Stamps    = stamps{}
)

// stamps are the tier's as the poll uses them.
type stamps struct{ t *tier.Tier }

// Stamps implements poll.Stamps.
func (s stamps) Stamps(ctx context.Context, keys []cache.Key) (poll.CursorStamp, map[cache.Key]poll.Stamp) {
	cursor, found := s.t.Stamps(ctx, keys)
	out := make(map[cache.Key]poll.Stamp, len(found))
	for k, v := range found {
		out[k] = poll.Stamp(v)
	}
	return poll.CursorStamp{At: cursor.At, Anchor: cache.Anchor{Applied: cursor.Committed, ActiveTime: cursor.ActiveTime}}, out
}

// PutCursor implements poll.Stamps.
func (s stamps) PutCursor(ctx context.Context, c poll.CursorStamp) {
	s.t.PutStamps(ctx, memcached.CursorStamp{At: c.At, Committed: c.Anchor.Applied, ActiveTime: c.Anchor.ActiveTime}, nil)
}

// Taken implements poll.Stamps.
func (s stamps) Taken(ctx context.Context, key cache.Key, turn int) (free func(context.Context), taken bool) {
	lease, taken := s.t.Taken(ctx, "verify\x00"+strconv.Itoa(turn)+"\x00"+key.Namespace+"\x00"+key.Method()+"\x00"+key.Path+"\x00"+key.Query, lockTime)
	return lease.Release, taken
}
