package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// origin answers reads with what is at a path.
type origin struct {
	mu      sync.Mutex
	answers map[string]string // by path and query; none: 404
	status  int               // of every answer, if not 0
	err     error             // of every read
	reads   map[string]int

	hold, arrived chan struct{} // a read says that it is there and waits; nil: it does not
}

func (o *origin) Ready(context.Context, *cache.Identity) error { return nil }
func (o *origin) Index(context.Context, uint64) cache.Index    { return cache.Index{} }

func (o *origin) Read(_ context.Context, q cache.Question) (*http.Response, error) {
	key := q.Key
	if o.hold != nil {
		close(o.arrived)
		<-o.hold
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	name := key.Path
	if key.Query != "" {
		name += "?" + key.Query
	}
	o.reads[name]++
	if o.err != nil {
		return nil, o.err
	}
	status, body := http.StatusOK, strings.ReplaceAll(o.answers[name], "$n", fmt.Sprint(o.reads[name]))
	if body == "" {
		status, body = http.StatusNotFound, `{"errors":[]}`
	}
	if o.status != 0 {
		status, body = o.status, `{"errors":["trouble"]}`
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

func (o *origin) set(path, answer string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answers[path] = answer
}

func (o *origin) count(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reads[path]
}

func kv(value string) string {
	return `{"request_id":"$n","lease_id":"","data":{"data":{"v":"` + value + `"},"metadata":{"version":1}},"wrap_info":null,"auth":null,"mount_type":"kv"}`
}

// world is a keeper of one file before an origin.
type world struct {
	t      *testing.T
	origin *origin
	cache  *cache.Cache
	now    time.Time
	file   string
	*Keeper
}

func newWorld(t *testing.T, path string, change ...func(*cache.Options)) *world {
	t.Helper()
	w := &world{t: t, origin: &origin{answers: map[string]string{}, reads: map[string]int{}}, now: time.Now()}
	clock := func() time.Time { return w.now }
	o := cache.Options{Origin: w.origin, Bytes: 1 << 20, Recheck: time.Second, StaleIfError: time.Hour, RefreshInterval: time.Hour, Now: clock}
	for _, f := range change {
		f(&o)
	}
	w.cache = cache.New(o)
	t.Cleanup(w.cache.Close)
	w.file = filepath.Join(t.TempDir(), "vault", "secret.json")
	var err error
	if w.Keeper, err = New(w.cache, "", []Secret{{Path: path, File: w.file, Var: "VAULT_SECRET_PATH"}}, clock); err != nil {
		t.Fatal(err)
	}
	return w
}

// holds checks that the file holds value, and that nothing lies beside it.
func (w *world) holds(value string) {
	w.t.Helper()
	b, err := os.ReadFile(w.file)
	if err != nil || !strings.Contains(string(b), value) {
		w.t.Errorf("the file holds %q, %v; want %q", b, err, value)
	}
	entries, err := os.ReadDir(filepath.Dir(w.file))
	if err != nil || len(entries) != 1 {
		w.t.Errorf("beside the file: %v, %v", entries, err)
	}
}

func (w *world) write() {
	w.t.Helper()
	if err := w.Write(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) refresh() error {
	w.now = w.now.Add(time.Minute)
	w.cache.Ledger().Begin(w.now)
	return w.Refresh(w.t.Context())
}

func TestAFileHoldsTheIndentedAnswerForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "/secret/data/app/")
	w.origin.set("secret/data/app", kv("one"))
	w.write()
	w.holds("{\n  \"request_id\": \"1\",\n")
	for path, want := range map[string]os.FileMode{w.file: 0o600, filepath.Dir(w.file): 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	w.write()
	if n := w.origin.count("secret/data/app"); n != 1 {
		t.Errorf("%d reads for a file that is there", n)
	}
}

func TestNoPollWaitsForAWriteOnItsWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "secret/data/app")
	w.origin.set("secret/data/app", kv("one"))
	hold := make(chan struct{})
	w.origin.hold, w.origin.arrived = hold, make(chan struct{})
	written := make(chan error, 1)
	go func() { written <- w.Write(context.WithoutCancel(t.Context())) }()
	<-w.origin.arrived
	if err := w.Refresh(t.Context()); err != nil { // would never return
		t.Error(err)
	}
	close(hold)
	if err := <-written; err != nil {
		t.Error(err)
	}
	w.holds("one")
}

func TestAVersionMayBeNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "secret/data/app?version=2")
	w.origin.set("secret/data/app?version=2", kv("two"))
	w.write()
	w.holds("two")
}

func TestAFileFollowsItsSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "secret/data/app")
	w.origin.set("secret/data/app", kv("one"))
	w.write()
	before, err := os.Stat(w.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.refresh(); err != nil {
		t.Fatal(err)
	}
	if same, err := os.Stat(w.file); err != nil || !os.SameFile(before, same) {
		t.Error("rewritten although only the request_id changed")
	}
	reader, err := os.Open(w.file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	w.origin.set("secret/data/app", kv("two"))
	if err := w.refresh(); err != nil {
		t.Fatal(err)
	}
	w.holds("two")
	if b, err := io.ReadAll(reader); err != nil || !strings.Contains(string(b), `"one"`) {
		t.Errorf("who had it open sees %q, %v", b, err)
	}
}

func TestWhatAPollVerifiedIsNotReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "secret/data/app")
	w.origin.set("secret/data/app", kv("one"))
	w.write()
	w.now = w.now.Add(time.Minute)
	w.cache.Ledger().Begin(w.now)
	w.origin.set("secret/data/app", kv("two"))
	if _, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Path: "secret/data/app"}, ID: w.cache.Own(), Poll: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.holds("two")
	if n := w.origin.count("secret/data/app"); n != 2 {
		t.Errorf("%d reads, want 2", n)
	}
}

// Reading another engine again would make another credential at each poll.
func TestDynamicSecretsAreReadOnce(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"leased":      `{"request_id":"$n","lease_id":"l","lease_duration":60,"data":{"password":"$n"},"wrap_info":null,"auth":null,"mount_type":"database"}`,
		"not leased":  `{"request_id":"$n","lease_id":"","data":{"password":"$n"},"wrap_info":null,"auth":null,"mount_type":"gcp"}`,
		"not a mount": `{"request_id":"$n","lease_id":"","data":{"password":"$n"},"wrap_info":null,"auth":null}`, // OpenBao says no mount_type
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "database/creds/app")
			w.origin.set("database/creds/app", answer)
			w.write()
			for range 3 {
				if err := w.refresh(); err != nil {
					t.Fatal(err)
				}
			}
			w.holds(`"password": "1"`)
			if n := w.origin.count("database/creds/app"); n != 1 {
				t.Errorf("%d credentials, want 1", n)
			}
		})
	}
}

func TestAFileHasItsOwnDynamicSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "database/creds/app", func(o *cache.Options) { o.TTL = time.Hour })
	w.origin.set("database/creds/app", `{"request_id":"$n","lease_id":"l","lease_duration":3600,"data":{"password":"$n"},"wrap_info":null,"auth":null,"mount_type":"database"}`)
	if _, err := w.cache.Load(t.Context(), cache.Want{Key: cache.Key{Path: "database/creds/app"}, ID: w.cache.Own(), OptIn: true}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := w.refresh(); err != nil {
			t.Fatal(err)
		}
	}
	w.holds(`"password": "2"`)
	if n := w.origin.count("database/creds/app"); n != 2 {
		t.Errorf("%d credentials, want 2", n)
	}
}

func TestUncachedKVSecretsAreFollowedToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "secret/data/app", func(o *cache.Options) { o.NoCache = []string{"secret/*"} })
	w.origin.set("secret/data/app", kv("one"))
	w.write()
	w.origin.set("secret/data/app", kv("two"))
	if err := w.refresh(); err != nil {
		t.Fatal(err)
	}
	w.holds("two")
}

func TestTroubleAndDeletionLeaveTheFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*origin)
		says   string
	}{
		"down":    {func(o *origin) { o.err = errors.New("connection refused") }, "connection refused"},
		"sealed":  {func(o *origin) { o.status = 503 }, "503"},
		"denied":  {func(o *origin) { o.status = 403 }, "the role's policy does not allow read there"},
		"deleted": {func(o *origin) { o.answers = nil }, "no such secret, or its latest version is deleted"},
		"no data": {func(o *origin) { o.answers["secret/data/app"] = `{"data":null,"mount_type":"kv"}` }, "holds no secret"},
		"foreign": {func(o *origin) {
			o.answers["secret/data/app"] = `{"data":{"data":{"v":"evil"},"metadata":{"version":9}}}`
		}, "in the place of the origin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// With negative answers kept, the 404 itself becomes an entry.
			w := newWorld(t, "secret/data/app", func(o *cache.Options) {
				o.NegativeTTL, o.Mounts = time.Hour, []cache.Mount{{Path: "secret", Version: 2}}
			})
			w.origin.set("secret/data/app", kv("one"))
			w.write()
			w.origin.mu.Lock()
			c.change(w.origin)
			w.origin.mu.Unlock()
			err := w.refresh()
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "VAULT_SECRET_PATH") {
				t.Errorf("error %v, want %q and the variable", err, c.says)
			}
			w.Refresh(t.Context()) // served by what the first one left in the cache
			w.holds("one")
		})
	}
}

func TestAMissingSecretExplainsItself(t *testing.T) {
	t.Parallel()
	for path, says := range map[string]string{
		"secret/app":            "on a KV v2 mount the path has /data/ in it: secret/data/app",
		"/secret/a/b?version=1": "secret/data/a/b",
		"secret/data/app":       "its latest version is deleted",
	} {
		w := newWorld(t, path)
		err := w.Write(t.Context())
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "VAULT_SECRET_PATH") || !strings.Contains(err.Error(), "404") {
			t.Errorf("%s: %v, want %q", path, err, says)
		}
		if _, err := os.Stat(w.file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: there is a file: %v", path, err)
		}
	}
}

func TestPathsThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "secret/../sys", "secret//app", "secret/a%2fb", "secret/\x01"} {
		if _, err := New(nil, "", []Secret{{Path: path, Var: "VAULT_SECRET_PATH_X"}}, time.Now); err == nil || !strings.Contains(err.Error(), "VAULT_SECRET_PATH_X") {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestAFileGoesByItsOwnList: whatever happens to the cache, a file is rewritten when its
// secret changes, and what a function deletes comes back.
func TestAFileGoesByItsOwnList(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*cache.Options)
		do     func(w *world)
	}{
		"deleted and put again": {nil, func(w *world) {
			w.origin.set("secret/data/app", "")
			_ = w.refresh()
		}},
		"forbidden for a while": {nil, func(w *world) {
			w.origin.status = http.StatusForbidden
			_ = w.refresh()
			w.origin.status = 0
		}},
		"cleared":              {nil, func(w *world) { w.cache.Clear() }},
		"nothing is kept":      {func(o *cache.Options) { o.Bytes = 0 }, func(*world) {}},
		"its path is not kept": {func(o *cache.Options) { o.NoCache = []string{"secret/*"} }, func(*world) {}},
		"the file is deleted":  {nil, func(w *world) { os.Remove(w.file) }},
	} {
		w := newWorld(t, "secret/data/app", func(o *cache.Options) {
			if c.change != nil {
				c.change(o)
			}
		})
		w.origin.set("secret/data/app", kv("one"))
		w.write()
		c.do(w)
		if err := w.refresh(); err != nil && name != "deleted and put again" {
			t.Errorf("%s: %v", name, err)
		}
		w.holds("one")
		w.origin.set("secret/data/app", kv("two"))
		if err := w.refresh(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		w.holds("two")
	}
}
