package poll

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/rescue"
)

// folder is one to list: with it the secrets below it that one identity reads.
type folder struct {
	namespace, path string
	id              *cache.Identity
}

const (
	folderLeast  = 4   // cached secrets for which a list is cheaper than to read them
	folderTimes  = 4   // a folder with that many times as many secrets is too large
	mostFolders  = 256 // that are remembered
	unlistedFor  = 10 * time.Minute
	folderPrefix = "/detailed-metadata/"
)

// plan says which folders a poll lists in place of reading keys. Reads of those wait
// for the lists: else each of them would be sent beside the list that spares it.
func (p *Poller) plan(r *run, keys func() []cache.Key) {
	lists, known := p.o.Cursor.Lists()
	if p.o.Folder == nil || p.o.Stamps != nil || known && !lists {
		return
	}
	r.folders, r.listing = make(map[folder][]cache.Key), make(map[cache.Key]bool)
	for _, k := range keys() {
		if f, ok := p.folderOf(k); ok {
			r.folders[f] = append(r.folders[f], k)
		}
	}
	for f, of := range r.folders {
		if len(of) < folderLeast || p.useless(f) {
			delete(r.folders, f)
			continue
		}
		if !known {
			r.folders = nil // the next poll may know
			p.o.Cursor.WillList()
			return
		}
		for _, k := range of {
			r.listing[k] = true
		}
	}
}

// list verifies by the lists of the plan what they show to be as it is held, and
// returns what is left to read of keys. Whatever a list does not tell is read: a
// secret that it lacks, a version of a secret, subkeys. A list shows no right to
// read; that is proven by reads, as always.
func (p *Poller) list(ctx context.Context, r *run, keys []cache.Key) (left []cache.Key, answered bool) {
	var (
		wg       sync.WaitGroup
		told     atomic.Bool
		verified sync.Map // keys
		places   = make(chan struct{}, p.o.Concurrency)
	)
	for f, of := range r.folders {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			rescue.Do(p.o.Log, "list a folder", func() {
				index, at := p.o.Cursor.Index(ctx, r.epoch), cache.Revalidation{At: p.o.Now(), Epoch: r.epoch}
				heads, header := p.heads(ctx, f, len(of))
				index = index.Of(header)
				for _, k := range of {
					if head, ok := heads[k.Path[strings.LastIndexByte(k.Path, '/')+1:]]; ok {
						told.Store(true)
						if p.o.Cache.Ledger().Compare(k, head, index, at) {
							verified.Store(k, true)
						}
					}
				}
			})
		})
	}
	wg.Wait()
	if r.folders != nil && ctx.Err() == nil { // else the poll says first that the origin failed it
		close(r.listed)
	}
	r.folders = nil
	return slices.DeleteFunc(keys, func(k cache.Key) bool { _, ok := verified.Load(k); return ok }), told.Load()
}

// folderOf is the folder whose list tells of a key.
func (p *Poller) folderOf(k cache.Key) (folder, bool) {
	m, ok := p.o.Cache.Mounts().Knows(k.Namespace, k.Path)
	rest, data := strings.CutPrefix(k.Path, m.Path+"/data/")
	id := p.o.Cache.Access().Reader(k, p.o.Now())
	if !ok || m.Version != 2 || !data || k.Op != cache.Read || k.Query != "" || k.Personal != 0 || id == nil {
		return folder{}, false
	}
	return folder{k.Namespace, m.Path + folderPrefix + rest[:strings.LastIndexByte(rest, '/')+1], id}, true
}

// heads asks for one folder, in which some secrets are cached.
func (p *Poller) heads(ctx context.Context, f folder, cached int) (heads map[string]cache.Head, h http.Header) {
	a, err := p.o.Folder(ctx, f.id, f.namespace, f.path)
	if err != nil {
		return nil, nil // the reads will tell
	}
	_, heads, ok := cache.Heads(a.Body)
	if a.Status != http.StatusOK || !ok || len(heads) > folderTimes*cached {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.unlisted == nil || len(p.unlisted) >= mostFolders {
			p.unlisted = make(map[folder]time.Time)
		}
		p.unlisted[f] = p.o.Now()
	}
	return heads, a.Header
}

// useless reports whether a list of the folder told nothing, or too much, not long ago.
func (p *Poller) useless(f folder) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.unlisted[f]
	return clock.Within(at, p.o.Now(), unlistedFor)
}
