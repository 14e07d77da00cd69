package warmup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/wire"
)

// item is one thing to warm: a secret or a list, by its path of the API.
type item struct {
	path string
	list bool
	at   *prefix // that it was found below
	head *head   // what the listing told of it; nil: nothing
}

// name identifies an item in an inventory and orders inventories: its path,
// with a slash at the end for a list.
func (it item) name() string {
	if it.list {
		return it.path + "/"
	}
	return it.path
}

func cmpName(it item, name string) int {
	if !it.list {
		return cmp.Compare(it.path, name)
	}
	return cmp.Compare(it.path+"/", name)
}

func itemOf(name string) item {
	if p, ok := strings.CutSuffix(name, "/"); ok {
		return item{path: p, list: true}
	}
	return item{path: name}
}

// key is the cache's name for the item.
func (it item) key(namespace string) cache.Key {
	k := cache.Key{Namespace: namespace, Path: it.path}
	if it.list {
		k.Op = cache.List
	}
	return k
}

// prefix is a configured prefix, on a mount that is known.
type prefix struct {
	raw    string // as configured
	mount  cache.Mount
	folder string // below the mount, without slashes at either end; empty: the mount
	also   bool   // a secret of the folder's own name is meant too
}

// The segment of the API between a mount and a path, for lists and for data.
func (p *prefix) lists() string { return p.under("metadata") }
func (p *prefix) data() string  { return p.under("data") }

func (p *prefix) under(kind string) string {
	if p.mount.Version == 2 {
		return p.mount.Path + "/" + kind
	}
	return p.mount.Path
}

// covers reports whether an item of an earlier inventory lies below the prefix.
func (p *prefix) covers(it item) bool {
	base := p.data()
	if it.list {
		base = p.lists()
	}
	if p.folder != "" {
		base += "/" + p.folder
	}
	if it.path == base {
		return it.list || p.also
	}
	return strings.HasPrefix(it.path, base+"/")
}

// listing is what a pass found.
type listing struct {
	items    []item
	complete []prefix // those below which everything was listed
	passing  int      // lists that the origin failed and may not the next time
}

// maxItems bounds an inventory: a hundred bytes each.
const maxItems = 1 << 20

var errTooMany = errors.New("there are more than 1048576 secrets and folders: warm smaller prefixes, or by several audiences")

// errRefused is a listing that the origin does not allow, or has nothing for.
type errRefused string

func (e errRefused) Error() string { return string(e) }

// errPassing is a refusal for trouble of the origin, a rate limit say: the next
// pass may have more luck.
type errPassing struct{ errRefused }

func (e errPassing) Unwrap() error { return e.errRefused }

func isPassing(err error) bool { return errors.As(err, new(errPassing)) }

// list finds everything below an audience's prefixes. store gets the answers
// of lists. An error is a reason to stop the pass.
func (w *Warmer) list(ctx context.Context, a *Audience, store func(cache.Record)) (listing, error) {
	var out listing
	seen := make(map[string]bool)
	for _, raw := range a.Prefixes {
		p, err := w.resolve(ctx, a.Namespace, raw, store)
		if refused := errRefused(""); errors.As(err, &refused) {
			w.fail(a.Namespace, raw, err.Error())
			if isPassing(err) {
				out.passing++
			}
			continue
		} else if err != nil {
			return out, err
		}
		found, whole, passing, err := w.walk(ctx, a.Namespace, p, store)
		if err != nil {
			return out, err
		}
		out.passing += passing
		if whole {
			out.complete = append(out.complete, *p)
		}
		for _, it := range found {
			if n := it.name(); !seen[n] {
				seen[n] = true
				out.items = append(out.items, it)
			}
		}
		if len(out.items) > maxItems {
			return out, errTooMany
		}
	}
	slices.SortFunc(out.items, func(x, y item) int { return cmp.Compare(x.name(), y.name()) })
	return out, nil
}

// resolve learns which mount a prefix is on, and the mount's KV version.
func (w *Warmer) resolve(ctx context.Context, namespace, raw string, store func(cache.Record)) (*prefix, error) {
	path := strings.Trim(strings.TrimPrefix(raw, "/v1/"), "/")
	p := &prefix{raw: raw, also: !strings.HasSuffix(raw, "/")}
	m, ok := w.knownMount(namespace, path)
	if !ok {
		key := cache.Key{Namespace: namespace, Path: "sys/internal/ui/mounts/" + path}
		a, err := w.read(ctx, key)
		if err != nil {
			return nil, err
		}
		if a.Status != http.StatusOK {
			return nil, refusal(a, "no mount is known at this path, or the warm-up may read nothing below it")
		}
		if m, ok = cache.ParseMount(namespace, a.Body); !ok || m.Path != path && !strings.HasPrefix(path, m.Path+"/") {
			return nil, errRefused("the origin's answer about the mount cannot be read; set THAW_KV_MOUNTS")
		}
		if r, ok := cache.Interpret(key, m, a, cache.Anchor{}); ok {
			store(r)
		}
		w.mounts[namespace+"\x00"+m.Path] = m
	}
	if m.Version == 0 {
		return nil, errRefused("not on a KV mount")
	}
	p.mount, p.folder = m, strings.Trim(strings.TrimPrefix(path, m.Path), "/")
	p.also = p.also && p.folder != ""
	return p, nil
}

func (w *Warmer) knownMount(namespace, path string) (cache.Mount, bool) {
	var best cache.Mount
	take := func(m cache.Mount) {
		if m.Namespace == namespace && len(m.Path) > len(best.Path) && (path == m.Path || strings.HasPrefix(path, m.Path+"/")) {
			best = m
		}
	}
	for _, m := range w.o.Mounts {
		take(m)
	}
	for _, m := range w.mounts {
		take(m)
	}
	return best, best.Path != ""
}

// walk lists a prefix with all folders below it. Folders are listed by as many
// workers as read secrets. One that is refused is named and left out; whole is
// false then, and passing counts those that the origin failed for now.
func (w *Warmer) walk(ctx context.Context, namespace string, p *prefix, store func(cache.Record)) (items []item, whole bool, passing int, err error) {
	if w.scans() {
		items, err := w.scan(ctx, namespace, p)
		if !errors.Is(err, errNoScan) {
			return items, err == nil, 0, err
		}
	}
	whole = true
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		mu      sync.Mutex // guards the variables below
		folders = []string{p.folder}
		open    = 1 // folders that are not listed yet
		wake    = sync.NewCond(&mu)
		wg      sync.WaitGroup
	)
	if p.also {
		items = append(items, item{path: p.data() + "/" + p.folder, at: p})
	}
	stop := context.AfterFunc(ctx, func() { mu.Lock(); defer mu.Unlock(); wake.Broadcast() })
	defer stop()
	for range w.o.Workers {
		wg.Go(func() {
			for {
				mu.Lock()
				for len(folders) == 0 && open > 0 && ctx.Err() == nil {
					wake.Wait()
				}
				if open == 0 || ctx.Err() != nil {
					mu.Unlock()
					return
				}
				folder := folders[len(folders)-1]
				folders = folders[:len(folders)-1]
				mu.Unlock()
				names, there, err := w.listFolder(ctx, namespace, p, folder, store)
				refused := errRefused("")
				if errors.As(err, &refused) {
					w.failFolder(namespace, p, folder, refused)
				} else if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				open--
				whole = whole && refused == ""
				if isPassing(err) {
					passing++
				}
				if there {
					items = append(items, item{path: join(p.lists(), folder), list: true, at: p})
				}
				for _, name := range names {
					if sub, ok := strings.CutSuffix(name, "/"); ok {
						folders = append(folders, join(folder, sub))
						open++
					} else {
						items = append(items, item{path: join(p.data(), join(folder, name)), at: p})
					}
				}
				if len(items) > maxItems || open > maxItems {
					cancel(errTooMany)
				}
				wake.Broadcast()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return items, whole, passing, context.Cause(ctx)
}

// failFolder names a folder that could not be listed: a prefix as it was
// configured, any other by its path.
func (w *Warmer) failFolder(namespace string, p *prefix, folder string, why errRefused) {
	if folder == p.folder {
		w.fail(namespace, p.raw, why.Error())
		return
	}
	w.fail(namespace, p.mount.Path+"/"+folder+"/", why.Error())
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "/" + b
}

// listFolder asks for one list. there is false when the folder is empty.
func (w *Warmer) listFolder(ctx context.Context, namespace string, p *prefix, folder string, store func(cache.Record)) (names []string, there bool, err error) {
	it := item{path: join(p.lists(), folder), list: true}
	key := it.key(namespace)
	anchor := w.cursor.anchorNow()
	a, err := w.read(ctx, key)
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
	names = slices.DeleteFunc(names, func(n string) bool { return !w.addressable(namespace, it.path, n) })
	if r, ok := cache.Interpret(key, p.mount, a, anchor); ok {
		store(r)
	}
	return names, true, nil
}

// addressable reports whether a name that a list gave can be a cache's key.
// Names with characters that have two spellings in a URL are not cached.
func (w *Warmer) addressable(namespace, folder, name string) bool {
	path := strings.TrimSuffix(name, "/")
	u := &url.URL{Path: "/v1/" + folder + "/" + path}
	if r := cache.Classify(http.MethodGet, u, namespace); path != "" && r.Cacheable {
		return true
	}
	w.o.Log.Warn("a secret's name cannot be cached: it has an empty or dot segment, a percent sign, a backslash or a control character", "folder", folder, "name", name)
	return false
}

// keysOf reads the names in a list's answer.
func keysOf(body []byte) ([]string, error) {
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, errors.New("it is not the JSON of a list")
	}
	return answer.Data.Keys, nil
}
