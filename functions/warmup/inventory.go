package warmup

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/thaw-project/thaw/extension/cache"
)

// item is a secret to warm, by its path of the API, which orders inventories. Lists are not
// warmed: in the tier each is one identity's alone.
type item struct {
	path string
	at   *prefix // that it was found below
	head *head   // what the listing told of it; nil: nothing
}

func cmpPath(it item, path string) int { return cmp.Compare(it.path, path) }

// prefix is a configured prefix, on a mount that is known; the empty one stands for
// every mount there is.
type prefix struct {
	raw    string // as configured
	mount  cache.Mount
	folder string // below the mount, without slashes at either end; empty: the mount
	also   bool   // a secret of the folder's own name is meant too
	empty  bool   // it is a folder, and nothing lies below it
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

// secret is the one of that name below the folder; empty: of the folder's own name.
func (p *prefix) secret(name string) item {
	return item{path: join(p.data(), join(p.folder, name)), at: p}
}

// covers reports whether a secret of an earlier inventory lies below the prefix.
func (p *prefix) covers(path string) bool {
	base := join(p.data(), p.folder)
	return base == "" || path == base && p.also || strings.HasPrefix(path, base+"/")
}

// asWritten is the prefix as it is read if it is a path of the API, with "data" or
// "metadata" behind the mount; nil: it is none.
func (p *prefix) asWritten() *prefix {
	kind, folder, _ := strings.Cut(p.folder, "/")
	if p.mount.Version != 2 || kind != "data" && kind != "metadata" {
		return nil
	}
	api := *p
	api.folder, api.also = folder, p.also && folder != ""
	return &api
}

// maxItems bounds an inventory: a hundred bytes each.
const maxItems = 1 << 20

var errTooMany = errors.New("there are more than 1048576 secrets and folders: warm smaller prefixes, or by several audiences")

// errRefused is what the origin does not allow, or has nothing for.
type errRefused struct {
	why     string
	passing bool // it is for trouble of the origin, a rate limit say: the next pass may have more luck
}

func (e errRefused) Error() string { return e.why }

// list finds everything below the audience's prefixes. An error is a reason to stop
// the pass.
func (p *pass) list(ctx context.Context) error {
	for _, raw := range p.audience.Prefixes {
		prefixes, err := p.resolve(ctx, raw)
		if errors.As(err, new(errRefused)) {
			p.refuse(raw, err)
			continue
		} else if err != nil {
			return err
		}
		before := len(p.whole)
		for _, at := range prefixes {
			if err := p.listPrefix(ctx, at); err != nil {
				return err
			}
		}
		if raw == everything && len(p.whole) == before+len(prefixes) {
			p.whole = append(p.whole, prefix{}) // mounts that are no more, too
		}
	}
	slices.SortFunc(p.items, func(x, y item) int { return cmp.Compare(x.path, y.path) })
	p.items = slices.CompactFunc(p.items, func(x, y item) bool { return x.path == y.path })
	return nil
}

// listPrefix adds what is below one prefix. Where a prefix that looks like a path
// of the API holds nothing as it is, it is taken for one.
func (p *pass) listPrefix(ctx context.Context, at *prefix) error {
	k, err := p.walk(ctx, at)
	if err != nil {
		return err
	}
	if api := at.asWritten(); api != nil && !k.there {
		other, err := p.walk(ctx, api)
		if err != nil {
			return err
		}
		if other.there || len(k.failed) > 0 || api.also {
			p.w.o.Log.Info("a prefix is taken for a path of the API", "prefix", at.raw, "folder", api.mount.Path+"/"+api.folder)
			other.items = append(other.items, k.items...) // the secret of its own name
			k, at = other, api
		}
	}
	if at.empty = at.folder != "" && !k.there && len(k.failed) == 0; at.empty && len(k.items) == 0 {
		p.sayEmpty(at)
	}
	for folder, why := range k.failed {
		name := at.mount.Path + "/" + folder + "/"
		if folder == at.folder {
			name = at.raw
		}
		p.refuse(name, why)
	}
	if len(k.failed) == 0 {
		p.whole = append(p.whole, *at)
	}
	if p.items = append(p.items, k.items...); len(p.items) > maxItems {
		return errTooMany
	}
	return nil
}

// sayEmpty names a prefix that warms nothing.
func (p *pass) sayEmpty(at *prefix) {
	p.w.o.Log.Warn("no secret has this prefix; check how THAW_WARM_PATHS spells it", "audience", p.audience.Name, "prefix", at.raw)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "/" + b
}

// addressable reports whether a name that a list gave can be a cache's key.
// Names with characters that have two spellings in a URL are not cached.
func (p *pass) addressable(folder, name string) bool {
	path := strings.TrimSuffix(name, "/")
	u := &url.URL{Path: "/v1/" + folder + "/" + path}
	if r := cache.Classify(http.MethodGet, u, p.audience.Namespace); path != "" && r.Cacheable {
		return true
	}
	p.w.o.Log.Warn("a secret's name cannot be cached: it has an empty or dot segment, a percent sign, a backslash or a control character", "folder", folder, "name", name)
	return false
}
