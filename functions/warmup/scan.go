package warmup

import (
	"context"
	"errors"
	"net/http"

	"github.com/thaw-project/thaw/extension/cache"
)

// scans reports whether the origin may list recursively: OpenBao, from 2.2,
// by the method SCAN (https://openbao.org/docs/rfcs/scan-operation).
func (w *Warmer) scans(ctx context.Context) bool {
	lists, known := w.cursor.Lists()
	if !known {
		w.cursor.WillList()
		w.cursor.Learn(ctx)
		lists, _ = w.cursor.Lists()
	}
	return lists
}

// scan lists the prefix in one request. On KV v2 that is one for the metadata of every
// secret, too, OpenBao's detailed-metadata, where it is to be had
// (https://openbao.org/api-docs/secret/kv/kv-v2/#list-secrets; key_info holds for each
// key what a read of its metadata answers). It needs a capability of its own, "scan".
// done is false where nobody lists so for us, or the answer is too large.
func (k *walker) scan(ctx context.Context) (done bool, err error) {
	w, folder := k.p.w, join(k.at.lists(), k.at.folder)
	var names []string
	var told map[string]cache.Head
	var a cache.Answer
	index := w.cursor.Recorded()
	if k.at.mount.Version == 2 {
		a, err = k.p.read(ctx, "SCAN", join(k.at.under("detailed-metadata"), k.at.folder))
		if err != nil && !errors.As(err, new(errRefused)) {
			return false, err
		}
		if err == nil && a.Status == http.StatusOK {
			names, told, done = cache.Heads(a.Body)
		}
	}
	if !done {
		names, err = k.ask(ctx, "SCAN", folder)
	}
	if errors.As(err, new(errRefused)) {
		w.o.Log.Info("the origin does not list recursively for us; listing folder by folder", "reason", err)
		return false, nil
	} else if err != nil {
		return false, err
	}
	for _, name := range names {
		if name == "" || name[len(name)-1] == '/' || !k.p.addressable(folder, name) {
			continue
		}
		it := k.at.secret(name)
		if h, ok := told[name]; ok {
			it.head = &head{h, a.SentAt, index}
		}
		k.items, k.there = append(k.items, it), true
	}
	return true, nil
}
