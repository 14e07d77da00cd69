package app

import (
	"context"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/cursor"
	"github.com/thaw-project/thaw/extension/poll"
	"github.com/thaw-project/thaw/extension/tier"
)

// lockTime is how long one instance's verification keeps others from doing it
// too, at most.
const lockTime = 2 * time.Second

var (
	_ poll.Directory = directory{}
	_ cursor.Hearsay = (*tier.Tier)(nil)
	_ poll.Stamps    = stamps{}
)

// stamps are the tier's as the poll uses them.
type stamps struct{ *tier.Tier }

// Taken implements poll.Stamps.
func (s stamps) Taken(ctx context.Context, key cache.Key, turn int) (free func(context.Context), taken bool) {
	lease, _, taken := s.Tier.Lock(ctx, "verify\x00"+strconv.Itoa(turn)+"\x00"+key.Namespace+"\x00"+key.Method()+"\x00"+key.Path+"\x00"+key.Query, lockTime, key == cache.Key{})
	return lease.Release, taken
}

// directory is the tier's as permissions use it.
type directory struct {
	*tier.Tier
	tokens *auth.Manager
}

// Confirming implements poll.Directory. Who needs no login waits for nobody: asking
// takes no longer.
func (d directory) Confirming(ctx context.Context) bool {
	return d.tokens.Peek() == "" && d.Tier.Confirming(ctx)
}
