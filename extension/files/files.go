// Package files keeps secrets in files for functions that read no HTTP.
//
// A file holds the indented JSON of the secret as Vault's API returns it. It
// is written atomically: to a new file of mode 0600 beside it, synced, then
// renamed over it, in a directory of mode 0700. No step follows a symbolic
// link that someone else put there.
package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/rescue"
)

// Keeper writes the files and rewrites those whose secret changed.
type Keeper struct {
	cache *cache.Cache
	now   func() time.Time

	mu    sync.Mutex
	files []*file // guarded by mu
}

type file struct {
	config.SecretFile
	key     cache.Key
	written []byte // the answer's body as it was last written; nil: not yet
	follow  bool   // a read of it has no effects: it is rewritten when it changes
}

// New returns a Keeper for secrets read under the extension's own identity.
func New(c *cache.Cache, namespace string, secrets []config.SecretFile, now func() time.Time) (*Keeper, error) {
	k := &Keeper{cache: c, now: now}
	var errs []error
	for _, s := range secrets {
		key, err := KeyOf(namespace, s.Path)
		if err != nil {
			err = fmt.Errorf("%s: %q %w", s.Var, s.Path, err)
		}
		errs = append(errs, err)
		k.files = append(k.files, &file{SecretFile: s, key: key})
	}
	return k, errors.Join(errs...)
}

// KeyOf is what the cache has a secret under that is named by its API path.
func KeyOf(namespace, path string) (cache.Key, error) {
	u, err := url.ParseRequestURI("/v1/" + strings.Trim(path, "/"))
	if err != nil {
		return cache.Key{}, errors.New("is no path")
	}
	req := cache.Classify(http.MethodGet, u, namespace)
	if !req.Cacheable {
		err = errors.New("is no plain API path such as secret/data/app")
	}
	return req.Key, err
}

// Write reads every secret that has no file yet and writes it. Its error joins
// all that went wrong; files that could be written are.
func (k *Keeper) Write(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	errs := make([]error, len(k.files))
	var wg sync.WaitGroup
	for i, f := range k.files {
		if f.written == nil {
			wg.Go(func() { errs[i] = rescue.Try(func() error { return k.load(ctx, f) }) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Refresh rewrites the files whose secret is not what was written, and those that are
// gone. It goes by its own list: what the cache keeps, or keeps no more, is no matter. It
// is called at the end of a poll: what the poll verified is not read again. Only
// secrets of KV are followed: reading another engine again makes another
// credential.
func (k *Keeper) Refresh(ctx context.Context) error {
	if !k.mu.TryLock() {
		return nil // being written just now, with a budget of its own that no poll waits for
	}
	defer k.mu.Unlock()
	var errs []error
	for _, f := range k.files {
		if _, err := os.Lstat(f.File); f.written != nil && errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, f.save(f.written))
		}
		if f.written != nil && !f.follow {
			continue
		}
		hit := k.cache.Lookup(f.key, k.cache.Own(), false, k.now())
		switch {
		case hit.State == cache.Fresh && f.written != nil && cache.SameAnswer(hit.Entry.Body, f.written):
		case hit.State == cache.Fresh:
			f.follow = true
			errs = append(errs, k.write(f, hit.Entry.Status, hit.Entry.Body))
		case hit.State == cache.Failing:
		default:
			errs = append(errs, k.load(ctx, f))
		}
	}
	return errors.Join(errs...)
}

func (k *Keeper) load(ctx context.Context, f *file) error {
	a, err := k.cache.Load(ctx, cache.Want{Key: f.key, ID: k.cache.Own()})
	switch {
	case a.Stream != nil:
		a.Close()
		return fmt.Errorf("%s: the answer for %s is no secret", f.Var, f.Path)
	case err != nil:
		return fmt.Errorf("%s: read %s: %w", f.Var, f.Path, err)
	case a.Status == http.StatusOK && a.Failure != nil:
		return fmt.Errorf("%s: the answer for %s holds no secret: %w", f.Var, f.Path, a.Failure)
	}
	f.follow = f.follow || a.Stored
	return k.write(f, a.Status, a.Body)
}

// write writes the secret that an answer holds, unless it is what was written.
func (k *Keeper) write(f *file, status int, body []byte) error {
	if status != http.StatusOK {
		return fmt.Errorf("%s: read %s: the origin answered %d%s", f.Var, f.Path, status, f.advice(status))
	}
	var answer struct {
		MountType string          `json:"mount_type"`
		Data      json.RawMessage `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Data) == 0 || string(answer.Data) == "null" {
		return fmt.Errorf("%s: the answer for %s holds no secret", f.Var, f.Path)
	}
	f.follow = f.follow || answer.MountType == "kv" // also where THAW_NO_CACHE_PATHS names it
	if f.written != nil && cache.SameAnswer(body, f.written) {
		return nil
	}
	return f.save(body)
}

func (f *file) advice(status int) string {
	switch status {
	case http.StatusNotFound:
		if !strings.Contains("/"+f.key.Path+"/", "/data/") {
			mount, rest, _ := strings.Cut(f.key.Path, "/")
			return fmt.Sprintf(": there is no such secret; on a KV v2 mount the path has /data/ in it: %s/data/%s", mount, rest)
		}
		return ": there is no such secret, or its latest version is deleted"
	case http.StatusForbidden:
		return ": the role's policy does not allow read there"
	}
	return ""
}

func (f *file) save(body []byte) error {
	var indented bytes.Buffer
	if err := json.Indent(&indented, bytes.TrimSpace(body), "", "  "); err != nil {
		return fmt.Errorf("%s: the answer for %s is no JSON", f.Var, f.Path)
	}
	indented.WriteByte('\n')
	if err := writeFile(f.File, indented.Bytes()); err != nil {
		return fmt.Errorf("%s: %w", f.Var, err)
	}
	f.written = body
	return nil
}
