package warmup

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/wire"
)

// walker lists a prefix with all folders below it, one level after the other, each by
// as many workers as read secrets.
type walker struct {
	p  *pass
	at *prefix

	mu     sync.Mutex       // guards the fields below
	next   []string         // folders of the next level
	items  []item           // what was found, and the secret of the prefix's own name, if that is meant
	there  bool             // a folder is there, if perhaps without any that can be read
	failed map[string]error // folders that could not be listed: why, an errRefused
}

// walk lists a prefix. A folder that is refused is named and left out.
func (p *pass) walk(ctx context.Context, at *prefix) (*walker, error) {
	k := &walker{p: p, at: at, next: []string{at.folder}, failed: make(map[string]error)}
	if at.also {
		k.items = append(k.items, at.secret(""))
	}
	if p.w.scans(ctx) {
		if done, err := k.scan(ctx); done || err != nil {
			return k, err
		}
	}
	for len(k.next) > 0 {
		level := k.next
		k.next = nil
		err := p.w.each(ctx, len(level), func(ctx context.Context, i int) error { return k.listFolder(ctx, level[i]) })
		if err != nil {
			return k, err
		}
	}
	return k, nil
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
	path := join(k.at.lists(), folder)
	names, err := k.ask(ctx, "LIST", path)
	names = slices.DeleteFunc(names, func(name string) bool { return !k.p.addressable(path, name) })
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
func (k *walker) ask(ctx context.Context, method, path string) ([]string, error) {
	a, err := k.p.read(ctx, method, path)
	switch {
	case err != nil:
		return nil, err
	case wire.New(a.Status, nil, a.Body).Reason() == wire.Nothing:
		return nil, nil
	case a.Status != http.StatusOK:
		return nil, refusal(a, "may not list "+path+"/")
	}
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	if json.Unmarshal(a.Body, &answer) != nil {
		return nil, errRefused{why: "the origin's list of " + path + "/ cannot be read: it is not the JSON of a list"}
	}
	return answer.Data.Keys, nil
}
