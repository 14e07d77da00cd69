package warmup

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wire"
)

// found is what was listed below a prefix.
type found struct {
	items  []item
	there  bool             // a folder is there, if perhaps without any that can be read
	failed map[string]error // folders that could not be listed: why, an errRefused
}

// walker lists a prefix with all folders below it, one level after the other, each by
// as many workers as read secrets.
type walker struct {
	p  *pass
	at *prefix

	mu   sync.Mutex // guards the fields below
	next []string   // folders of the next level
	found
}

// walk lists a prefix. A folder that is refused is named and left out.
func (p *pass) walk(ctx context.Context, at *prefix) (found, error) {
	k := &walker{p: p, at: at, next: []string{at.folder}}
	if p.w.scans(ctx) {
		items, err := k.scan(ctx)
		if !errors.Is(err, errNoScan) {
			return found{items: items, there: len(items) > 0}, err
		}
	}
	k.failed = make(map[string]error)
	for len(k.next) > 0 {
		level := k.next
		k.next = nil
		err := p.w.each(ctx, len(level), func(ctx context.Context, i int) error { return k.listFolder(ctx, level[i]) })
		if err != nil {
			return k.found, err
		}
	}
	return k.found, nil
}

// each has the workers call f for each number below n. The first error, or ctx's end,
// ends them all.
func (w *Warmer) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rescue.Each(w.o.Log, "warm the shared cache", w.o.Workers, n, func(i int) {
		if ctx.Err() != nil {
			return
		}
		if err := rescue.Try(func() error { return f(ctx, i) }); err != nil {
			cancel(err)
		}
	})
	return context.Cause(ctx)
}

// listFolder takes what a folder holds. An error ends the walk.
func (k *walker) listFolder(ctx context.Context, folder string) error {
	names, err := k.ask(ctx, folder)
	k.mu.Lock()
	defer k.mu.Unlock()
	if errors.As(err, new(errRefused)) {
		k.failed[folder] = err
	} else if err != nil {
		return err
	}
	k.there = k.there || names != nil
	for _, name := range names {
		if sub, ok := strings.CutSuffix(name, "/"); ok {
			k.next = append(k.next, join(folder, sub))
		} else {
			k.items = append(k.items, item{path: join(k.at.data(), join(folder, name)), at: k.at})
		}
	}
	if len(k.items) > maxItems || len(k.next) > maxItems {
		return errTooMany
	}
	return nil
}

// ask asks for one list; nil: the folder is empty.
func (k *walker) ask(ctx context.Context, folder string) (names []string, err error) {
	path := join(k.at.lists(), folder)
	a, err := k.p.w.read(ctx, "LIST", k.p.l.audience.Namespace, path)
	switch {
	case err != nil:
		return nil, err
	case wire.New(a.Status, nil, a.Body).Reason() == wire.Nothing:
		return nil, nil
	case a.Status != http.StatusOK:
		return nil, refusal(a, "may not list "+path+"/")
	}
	names, err = keysOf(a.Body)
	if err != nil {
		return nil, errRefused("the origin's list of " + path + "/ cannot be read: " + err.Error())
	}
	return slices.DeleteFunc(names, func(n string) bool { return !k.p.addressable(path, n) }), nil
}
