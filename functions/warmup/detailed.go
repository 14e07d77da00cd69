package warmup

import (
	"context"
	"slices"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// head is what a listing told of a secret.
type head struct {
	cache.Head
	at    time.Time   // when the request was sent
	index cache.Index // received before that
}

// spare takes from the work of a modified pass what the listing's metadata
// shows to be as the tier holds it.
func (p *pass) spare(ctx context.Context) error {
	if p.progress.Pass != passModified {
		return nil
	}
	known := slices.DeleteFunc(slices.Clone(p.todo.list), func(it item) bool { return it.head == nil })
	same := make(map[string]bool, len(known))
	defer func() {
		p.todo.list = slices.DeleteFunc(p.todo.list, func(it item) bool { return same[it.path] })
		p.spared = len(same)
	}()
	for chunk := range slices.Chunk(known, batchRecords) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !p.held() {
			return errLost
		}
		held := p.audience.Entries(ctx, keysAt(p.audience.Namespace, pathsOf(chunk)))
		var records []cache.Record
		for _, it := range chunk {
			h, r := it.head, held[cache.Key{Namespace: p.audience.Namespace, Path: it.path}]
			if !h.Matches(r.Kind, r.Status, r.Body, h.at) {
				continue
			}
			if h.at.After(r.SentAt) {
				r.SentAt, r.Index = h.at, h.index
			}
			records, same[it.path] = append(records, r), true
		}
		p.share(ctx, records)
		p.w.note(func(s *Summary) { s.Unchanged += len(records) })
	}
	return nil
}
