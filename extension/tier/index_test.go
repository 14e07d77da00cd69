package tier

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// records are a Merger's, in a map.
type records struct {
	at   map[string][]byte
	gets int
}

func (r *records) Merged(_ context.Context, name string) [][]byte {
	r.gets++
	if raw, ok := r.at[name]; ok {
		return [][]byte{raw}
	}
	return nil
}

func (r *records) Merge(ctx context.Context, name string, _ time.Duration, merge func(old [][]byte) []byte) error {
	if raw := merge(r.Merged(ctx, name)); raw != nil {
		r.at[name] = raw
	}
	return nil
}

// TestTheIndexIsWrittenAgainWhereMemcachedLostIt: soon after, by whoever goes on
// reading, so that backups and cold starts know of the capabilities again.
func TestTheIndexIsWrittenAgainWhereMemcachedLostIt(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	r := &records{at: map[string][]byte{}}
	x := Index{Records: r, Keep: 24 * time.Hour, Now: func() time.Time { return now }}
	who := Identity{Name: "a", Role: "shop"}
	held := func() []cache.Capability { return []cache.Capability{{Path: "one"}, {Path: "two"}} }
	x.Enter(t.Context(), who, held())
	r.gets, now = 0, now.Add(time.Minute)
	if x.Enter(t.Context(), who, held()); r.gets != 0 {
		t.Errorf("%d requests a minute later", r.gets)
	}
	clear(r.at)
	now = now.Add(lookAgain)
	x.Enter(t.Context(), who, held()[:1])
	if got := x.Of(t.Context(), who); len(got) != 1 || len(x.Identities(t.Context())) != 1 {
		t.Errorf("after a loss it names %v of %v", got, x.Identities(t.Context()))
	}
	var many []cache.Capability
	for i := range 2 * maxIndexed {
		many = append(many, cache.Capability{Path: fmt.Sprint(i)})
	}
	x.Enter(t.Context(), who, many)
	if got := len(x.Of(t.Context(), who)); got != maxIndexed || len(x.entered) != maxIndexed {
		t.Errorf("it names %d, and remembers %d", got, len(x.entered))
	}
}
