package warmup

import (
	"context"
	"errors"
	"net/http"
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

// detailed lists a KV v2 prefix with the metadata of every secret in one
// request: OpenBao's detailed-metadata by the method SCAN
// (https://openbao.org/api-docs/secret/kv/kv-v2/#list-secrets; key_info holds
// for each key what a read of its metadata answers). Without it, or where the
// answer is too large, the error is errNoScan. heads has no entry where
// something is missing.
func (k *walker) detailed(ctx context.Context) (names []string, heads map[string]*head, err error) {
	if k.at.mount.Version != 2 {
		return nil, nil, errNoScan
	}
	index := k.p.w.cursor.Recorded()
	a, err := k.p.w.read(ctx, "SCAN", k.p.l.audience.Namespace, join(k.at.under("detailed-metadata"), k.at.folder))
	if errors.As(err, new(errRefused)) || err == nil && a.Status != http.StatusOK {
		return nil, nil, errNoScan
	} else if err != nil {
		return nil, nil, err
	}
	names, told, ok := cache.Heads(a.Body)
	if !ok {
		return nil, nil, errNoScan
	}
	heads = make(map[string]*head, len(told))
	for name, h := range told {
		heads[name] = &head{h, a.SentAt, index}
	}
	return names, heads, nil
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
		if !p.l.held() {
			return errLost
		}
		held := p.l.audience.Entries(ctx, keysAt(p.l.audience.Namespace, pathsOf(chunk)))
		var records []cache.Record
		for _, it := range chunk {
			h, r := it.head, held[cache.Key{Namespace: p.l.audience.Namespace, Path: it.path}]
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
