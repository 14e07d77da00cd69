package memcached

import (
	"context"
	"fmt"
	"time"
)

// mergeRounds bounds how often a record that others race for is tried: in each
// round one of them is done.
const mergeRounds = 64

// Merged returns the records that Merge keeps under name: one, or several while
// keys are rotated. They count together, however old they are.
func (t *Tier) Merged(ctx context.Context, name string) [][]byte {
	return opened(t.load(ctx, []place{t.place(kindMerged, name)})[0])
}

// Merge replaces what is kept under name by what merge makes of it, for ttl.
// merge gets what Merged would give and may be called several times; where it returns nil,
// what is there stays. When Merge returns nil, the record is in memcached. Of writers at
// the same time none is lost: each replaces just what it saw.
func (t *Tier) Merge(ctx context.Context, name string, ttl time.Duration, merge func(old [][]byte) []byte) error {
	defer t.o.Client.Use()()
	p := t.place(kindMerged, name)
	for range mergeRounds {
		found := t.load(ctx, []place{p})[0]
		plain := merge(opened(found))
		if plain == nil {
			return nil
		}
		stored, err := t.replace(ctx, p, found, plain, ttl)
		if err != nil {
			return fmt.Errorf("keep %s in memcached: %s", name, brief(err))
		}
		if stored {
			return nil
		}
	}
	return fmt.Errorf("keep %s in memcached: others replace the same record in memcached all the while", name)
}
