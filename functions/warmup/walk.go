package warmup

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wire"
)

// found is what was listed below a prefix.
type found struct {
	items  []item
	failed map[string]error // folders that could not be listed: why, an errRefused
}

// walker lists a prefix with all folders below it, by as many workers as read
// secrets.
type walker struct {
	w         *Warmer
	namespace string
	p         *prefix
	store     func(cache.Record)
	cancel    context.CancelCauseFunc // ends the walk

	mu      sync.Mutex // guards the fields below
	wake    *sync.Cond // when they change
	folders []string   // to be listed
	open    int        // folders that are not listed yet
	found
}

// walk lists a prefix. A folder that is refused is named and left out.
func (w *Warmer) walk(ctx context.Context, namespace string, p *prefix, store func(cache.Record)) (found, error) {
	k := &walker{w: w, namespace: namespace, p: p, store: store, folders: []string{p.folder}, open: 1}
	if w.scans() {
		items, err := k.scan(ctx)
		if !errors.Is(err, errNoScan) {
			return found{items: items}, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	k.cancel = cancel
	k.failed, k.wake = make(map[string]error), sync.NewCond(&k.mu)
	stop := context.AfterFunc(ctx, func() { k.mu.Lock(); defer k.mu.Unlock(); k.wake.Broadcast() })
	defer stop()
	var wg sync.WaitGroup
	for range w.o.Workers {
		wg.Go(func() {
			for folder, ok := k.next(ctx); ok; folder, ok = k.next(ctx) {
				var names []string
				var there bool
				err := rescue.Try(func() (err error) {
					names, there, err = k.listFolder(ctx, folder)
					return err
				})
				k.listed(folder, names, there, err)
			}
		})
	}
	wg.Wait()
	return k.found, context.Cause(ctx)
}

// next waits for a folder to list. ok is false when there will be none.
func (k *walker) next(ctx context.Context) (folder string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.folders) == 0 && k.open > 0 && ctx.Err() == nil {
		k.wake.Wait()
	}
	if k.open == 0 || ctx.Err() != nil {
		return "", false
	}
	last := len(k.folders) - 1
	folder, k.folders = k.folders[last], k.folders[:last]
	return folder, true
}

// listed takes what a folder holds.
func (k *walker) listed(folder string, names []string, there bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.wake.Broadcast()
	k.open--
	if errors.As(err, new(errRefused)) {
		k.failed[folder] = err
	} else if err != nil {
		k.cancel(err)
	}
	if there {
		k.items = append(k.items, item{path: join(k.p.lists(), folder), list: true, at: k.p})
	}
	for _, name := range names {
		if sub, ok := strings.CutSuffix(name, "/"); ok {
			k.folders = append(k.folders, join(folder, sub))
			k.open++
		} else {
			k.items = append(k.items, item{path: join(k.p.data(), join(folder, name)), at: k.p})
		}
	}
	if len(k.items) > maxItems || k.open > maxItems {
		k.cancel(errTooMany)
	}
}

// listFolder asks for one list. there is false when the folder is empty.
func (k *walker) listFolder(ctx context.Context, folder string) (names []string, there bool, err error) {
	it := item{path: join(k.p.lists(), folder), list: true}
	key := it.key(k.namespace)
	index := k.w.cursor.indexNow()
	a, err := k.w.read(ctx, key)
	if err != nil {
		return nil, false, err
	}
	switch {
	case wire.New(a.Status, nil, a.Body).Reason() == wire.Nothing:
		return nil, false, nil
	case a.Status != http.StatusOK:
		return nil, false, refusal(a, "may not list "+it.path+"/")
	}
	names, err = keysOf(a.Body)
	if err != nil {
		return nil, false, errRefused("the origin's list of " + it.path + "/ cannot be read: " + err.Error())
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !k.w.addressable(k.namespace, it.path, n) })
	if r, ok := cache.Interpret(key, k.p.mount, a, index); ok {
		k.store(r)
	}
	return names, true, nil
}
