package files

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/standin"
)

// origin is the stand-in behind the cache's interface, and the way to it.
type origin struct {
	*standin.Origin
	token         string
	err           error         // of every read
	hold, arrived chan struct{} // a read says that it is there and waits; nil: it does not
}

func (o *origin) Ready(context.Context, *cache.Identity) error { return nil }
func (o *origin) Index(context.Context, uint64) cache.Index    { return cache.Index{} }

func (o *origin) Read(_ context.Context, q cache.Question) (*http.Response, error) {
	if o.hold != nil {
		close(o.arrived)
		<-o.hold
	}
	if o.err != nil {
		return nil, o.err
	}
	return standin.Ask(o, o.token, q.Key.Method(), q.Key.Path+"?"+q.Key.Query, "").Result(), nil
}

// set writes another version of a secret.
func (o *origin) set(path, value string) {
	o.Root(http.MethodPost, path, `{"data":{"v":"`+value+`"}}`)
}

func (o *origin) delete(path string) { o.Root(http.MethodDelete, path, "") }

// says has every read answered with a body of Vault's form that the stand-in never
// gives; $n is the number of the read.
func (o *origin) says(body string) {
	n := 0
	o.SetFault(func(w http.ResponseWriter, _ *http.Request) bool {
		n++
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, strings.ReplaceAll(body, "$n", strconv.Itoa(n)))
		return true
	})
}

// allow says whether thaw may read anything.
func (o *origin) allow(may bool) {
	o.SetPolicy("reader", map[string][]string{"*": {map[bool]string{true: "read", false: "deny"}[may]}})
}

// count returns how often a path was read.
func (o *origin) count(path string) int { return o.Counts()["GET /v1/"+path] }

// credentials has the database engine make credentials for the role app.
func (o *origin) credentials() {
	o.Root(http.MethodPost, "sys/mounts/database", `{"type":"database"}`)
	o.Root(http.MethodPost, "database/roles/app", `{"db_name":"d","default_ttl":"1h"}`)
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
	return worldOf(t, standin.Options{}, path, change...)
}

func worldOf(t *testing.T, so standin.Options, path string, change ...func(*cache.Options)) *world {
	t.Helper()
	w := &world{t: t, now: time.Now()}
	clock := func() time.Time { return w.now }
	so.Now = clock
	w.origin = &origin{Origin: standin.New(so)}
	w.origin.allow(true)
	w.origin.token = w.origin.AddToken(24*time.Hour, "reader")
	o := cache.Options{Origin: w.origin, Bytes: 1 << 20, Recheck: time.Second, StaleIfError: time.Hour, RefreshInterval: time.Hour, Now: clock}
	for _, f := range change {
		f(&o)
	}
	w.cache = cache.New(o)
	t.Cleanup(w.cache.Close)
	w.file = filepath.Join(t.TempDir(), "vault", "secret.json")
	var err error
	if w.Keeper, err = New(w.cache, "", []config.SecretFile{{Path: path, File: w.file, Var: "VAULT_SECRET_PATH"}}, clock); err != nil {
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
	w.origin.set("secret/data/app", "one")
	w.write()
	w.holds("{\n  \"request_id\": \"")
	w.holds("\",\n  \"lease_id\": \"\",\n")
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
	w.origin.set("secret/data/app", "one")
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
	for _, value := range []string{"one", "two", "three"} {
		w.origin.set("secret/data/app", value)
	}
	w.write()
	w.holds("two")
}

func TestAFileFollowsItsSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "secret/data/app")
	w.origin.set("secret/data/app", "one")
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
	w.origin.set("secret/data/app", "two")
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
	w.origin.set("secret/data/app", "one")
	w.write()
	w.now = w.now.Add(time.Minute)
	w.cache.Ledger().Begin(w.now)
	w.origin.set("secret/data/app", "two")
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
	for name, bao := range map[string]bool{"leased": false, "not leased": false, "not a mount": true} { // OpenBao says no mount_type
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldOf(t, standin.Options{OpenBao: bao}, "database/creds/app")
			w.origin.credentials()
			if name == "not leased" {
				w.origin.says(`{"request_id":"$n","lease_id":"","data":{"password":"$n"},"wrap_info":null,"auth":null,"mount_type":"gcp"}`)
			}
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
	w.origin.credentials()
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
	w.origin.set("secret/data/app", "one")
	w.write()
	w.origin.set("secret/data/app", "two")
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
		"sealed":  {func(o *origin) { o.Seal() }, "503"},
		"denied":  {func(o *origin) { o.allow(false) }, "the role's policy does not allow read there"},
		"deleted": {func(o *origin) { o.delete("secret/data/app") }, "no such secret, or its latest version is deleted"},
		"no data": {func(o *origin) { o.says(`{"data":null,"mount_type":"kv"}`) }, "holds no secret"},
		"foreign": {func(o *origin) { o.says(`{"data":{"data":{"v":"evil"},"metadata":{"version":9}}}`) }, "in the place of the origin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// With negative answers kept, the 404 itself becomes an entry.
			w := newWorld(t, "secret/data/app", func(o *cache.Options) {
				o.NegativeTTL, o.Mounts = time.Hour, []cache.Mount{{Path: "secret", Version: 2}}
			})
			w.origin.set("secret/data/app", "one")
			w.write()
			c.change(w.origin)
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
		if _, err := New(nil, "", []config.SecretFile{{Path: path, Var: "VAULT_SECRET_PATH_X"}}, time.Now); err == nil || !strings.Contains(err.Error(), "VAULT_SECRET_PATH_X") {
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
			w.origin.delete("secret/data/app")
			_ = w.refresh()
		}},
		"forbidden for a while": {nil, func(w *world) {
			w.origin.allow(false)
			_ = w.refresh()
			w.origin.allow(true)
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
		w.origin.set("secret/data/app", "one")
		w.write()
		c.do(w)
		if err := w.refresh(); err != nil && name != "deleted and put again" {
			t.Errorf("%s: %v", name, err)
		}
		w.holds("one")
		w.origin.set("secret/data/app", "two")
		if err := w.refresh(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		w.holds("two")
	}
}
