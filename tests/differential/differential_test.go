package differential

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/standin"
)

var (
	requestsFlag = flag.Int("requests", 2000, "`requests` in all, each directly and through thaw")
	seedFlag     = flag.Uint64("seed", 1, "of the first run")
)

// lost is found where something was served before and is not now.
const lost = "lost: it is not served though it was before"

const addr = "10.0.0.2:8200"

// world is one run.
type world struct {
	t      *testing.T
	r      *rand.Rand
	origin http.Handler
	pause  func(time.Duration) // lets time pass; nil: time.Sleep, and the bubble settles
	rootID string              // the root token
	front  *front
	app    *app.App
	thaw   string // its address
	client *http.Client
	tokens []string                   // as sent; empty: thaw's own
	values map[string]map[string]bool // by token and request: all that the origin ever answered
	warm   map[string]int             // by token and request: how much trouble there had been when it was served through thaw; it is still so at the origin
	past   []string                   // trouble so far
	found  map[string]int
	calm   bool // nothing was in front since this invocation began
	writes int
}

// newWorld is one with a stand-in as its origin, in a bubble of synctest.
func newWorld(t *testing.T, seed uint64, settings ...string) (w *world, end func()) {
	origin := standin.New(standin.Options{})
	w = worldOf(t, seed, origin, "root")
	w.root("POST", "sys/mounts/nested/deep", `{"type":"kv","options":{"version":"2"}}`)
	origin.SetPolicy("all", map[string][]string{"secret/*": {"read", "list"}, "kv/*": {"read", "list"}, "nested/*": {"read", "list"}})
	origin.SetPolicy("some", map[string][]string{"secret/data/a/*": {"read"}, "secret/metadata/a/*": {"read", "list"}, "kv/a/*": {"read", "list"}})
	w.tokens = []string{"", origin.AddToken(0, "all"), origin.AddToken(0, "some")}
	far, local := standin.NewNetwork(), standin.NewNetwork()
	l := local.Listen("127.0.0.1:8200")
	stop := w.start(far.Listen(addr), addr, "127.0.0.1:8200", origin.AddToken(0, "all", "pair"), app.Hooks{
		Frozen: true, Dial: far.Dial, Listen: func(context.Context, string, string) (net.Listener, error) { return l, nil },
	}, local.Dial, settings)
	return w, stop
}

func worldOf(t *testing.T, seed uint64, origin http.Handler, root string) *world {
	return &world{
		t: t, r: rand.New(rand.NewPCG(seed, 9)), origin: origin, rootID: root, front: &front{origin: origin}, values: map[string]map[string]bool{},
		warm: map[string]int{}, found: map[string]int{}, calm: true,
	}
}

// start writes the secrets and starts thaw before the front, which serves at.
func (w *world) start(at net.Listener, origin, thaw, own string, hooks app.Hooks, dial dialer, settings []string) (end func()) {
	for _, s := range secrets {
		w.write(s)
	}
	server := &http.Server{Handler: w.front, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(at) }()
	cfg, _, err := config.Load(config.Source{Environ: append([]string{"VAULT_ADDR=http://" + origin, "VAULT_TOKEN=" + own, "THAW_LISTEN=" + thaw}, settings...)})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.app, err = app.Build(cfg, slog.New(slog.DiscardHandler), io.Discard, hooks); err != nil {
		w.t.Fatal(err)
	}
	if err := w.app.Listen(); err != nil {
		w.t.Fatal(err)
	}
	w.thaw = thaw
	transport := &http.Transport{DialContext: dial, DisableCompression: true}
	w.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		w.app.Shutdown(ctx)
		server.Close()
		<-served
	}
}

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// secret is a path that is written and read.
type secret struct {
	mount, key string
	v2         bool
}

var secrets = []secret{
	{"secret", "a/db", true}, {"secret", "a/api", true}, {"secret", "b/db", true}, {"nested/deep", "a/db", true}, {"kv", "a/db", false}, {"kv", "b/db", false},
}

func (w *world) root(method, path, body string) {
	if status, text, _ := w.direct(method, path, w.rootID, body); status >= 300 {
		panic(fmt.Sprint(method, " ", path, ": ", status, " ", text))
	}
}

// direct asks the origin itself.
func (w *world) direct(method, path, token, body string) (int, string, http.Header) {
	rec := standin.Ask(w.origin, token, method, path, body)
	return rec.Code, canonical(rec.Body.String()), rec.Header()
}

func (w *world) write(s secret) {
	w.writes++
	defer w.noteAll(s)
	if s.v2 {
		w.root("POST", s.mount+"/data/"+s.key, fmt.Sprintf(`{"data":{"n":%d}}`, w.writes))
		return
	}
	w.root("POST", s.mount+"/"+s.key, fmt.Sprintf(`{"n":%d}`, w.writes))
}

// noteAll notes what the origin answers now to all reads of a secret and of
// those that share its lists.
func (w *world) noteAll(s secret) {
	for who := range w.tokens {
		for _, q := range s.reads() {
			w.note(q, who)
		}
	}
}

// note asks the origin directly and notes its answer.
func (w *world) note(q read, who int) (id string, status int, truth string) {
	token := w.tokens[who]
	if token == "" {
		token = w.tokens[1] // thaw's own has the same policy
	}
	status, truth, _ = w.direct(q.method, q.path, token, "")
	id = fmt.Sprint(who, " ", q)
	if w.values[id] == nil {
		w.values[id] = map[string]bool{}
	}
	w.values[id][fmt.Sprint(status, truth)] = true
	return id, status, truth
}

// read is one read.
type read struct{ method, path string }

func (s secret) reads() []read {
	if !s.v2 {
		return []read{{"GET", s.mount + "/" + s.key}, {"LIST", s.mount + "/" + s.key[:1]}}
	}
	return []read{
		{"GET", s.mount + "/data/" + s.key}, {"GET", s.mount + "/data/" + s.key}, {"GET", s.mount + "/data/" + s.key + "?version=1"},
		{"GET", s.mount + "/metadata/" + s.key}, {"GET", s.mount + "/subkeys/" + s.key}, {"LIST", s.mount + "/metadata/" + s.key[:1]},
	}
}

// canonical cuts the request_id with which an answer begins.
func canonical(body string) string {
	if rest, ok := strings.CutPrefix(body, `{"request_id":"`); ok {
		if i := strings.IndexByte(rest, '"'); i >= 0 {
			return rest[i:]
		}
	}
	return body
}

// invoke begins an invocation, perhaps after a while.
func (w *world) invoke() {
	w.wait(4000)
	w.app.Invoke(time.Now(), time.Now().Add(time.Minute))
	if w.pause == nil {
		synctest.Wait()
	}
	w.calm = w.front.String() == "no trouble"
}

// wait lets up to so many milliseconds pass.
func (w *world) wait(most int) {
	d := time.Duration(w.r.IntN(most)) * time.Millisecond
	if w.pause == nil {
		time.Sleep(d)
		return
	}
	w.pause(d)
}

// ask reads directly and through thaw, and compares.
func (w *world) ask() {
	s := secrets[w.r.IntN(len(secrets))]
	all := s.reads()
	w.askFor(all[w.r.IntN(len(all))], w.r.IntN(len(w.tokens)))
}

func (w *world) askFor(q read, who int) {
	id, status, truth := w.note(q, who)
	token := w.tokens[who]
	r, err := http.NewRequest(q.method, "http://"+w.thaw+"/v1/"+q.path, nil)
	if err != nil {
		panic(err)
	}
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	trouble := w.front.String()
	res, err := w.client.Do(r)
	if err != nil {
		w.broke("the connection is cut", q, trouble, err.Error())
		return
	}
	text, err := io.ReadAll(res.Body)
	res.Body.Close()
	got := canonical(string(text))
	same := err == nil && res.StatusCode == status && got == truth
	hit, marked := res.Header.Get("X-Cache") == "HIT", res.Header.Get("Warning") != ""
	since, warm := w.warm[id]
	named := strings.Contains(q.path, "?version=") // a hit may be the latest version's, which a write takes away
	switch {
	case strings.Contains(got, mark) && (hit || trouble == "no trouble"):
		w.broke("a foreign answer was kept", q, trouble, fmt.Sprint(res.StatusCode, res.Header, got, " after ", w.past))
	case w.calm && (!same || marked):
		w.broke("not what Vault answers, though nothing is in front", q, trouble, fmt.Sprint(res.StatusCode, res.Header, got, " instead of ", status, truth))
	case hit && !w.values[id][fmt.Sprint(res.StatusCode, got)]:
		w.broke("a value that Vault did not give", q, trouble, got)
	case hit && !marked && !same:
		w.broke("an old value without a mark", q, trouble, got)
	case warm && status == http.StatusOK && !hit && !same:
		w.broke(lost, q, trouble, fmt.Sprint(res.StatusCode, " ", res.Header.Get("Cache-Status"), " with token ", who, " after ", w.past[since:]))
	}
	if w.calm {
		if delete(w.warm, id); same && status == http.StatusOK && (hit && !named || strings.Contains(res.Header.Get("Cache-Status"), "stored")) {
			w.warm[id] = len(w.past)
		}
	}
}

func (w *world) broke(what string, q read, trouble, got string) {
	key := what + ", " + trouble
	if i := strings.Index(trouble, " with "); i > 0 {
		key = what + ", " + trouble[:i] + " with " + trouble[i+6:i+7] + "xx"
	}
	if w.found[key]++; w.found[key] == 1 {
		w.t.Errorf("%s: %s %s, %s: %.900s", what, q.method, q.path, trouble, got)
	}
}

// run asks n times.
func (w *world) run(n int) {
	for asked := 0; asked < n; {
		w.front.set(nil, 0, "")
		w.invoke()
		for range 2 + w.r.IntN(6) {
			if w.r.IntN(4) == 0 {
				w.write(secrets[w.r.IntN(len(secrets))])
				clear(w.warm)
				w.invoke()
			}
			w.ask()
			asked++
		}
		spared := []string{"", "", "/v1/sys/leader", "/v1/sys/", "/v1/secret/"}[w.r.IntN(5)]
		w.front.set(&kinds[w.r.IntN(len(kinds))], statuses(w.r), spared)
		w.calm = false
		w.past = append(w.past, w.front.String()+" but "+spared)
		for range 1 + w.r.IntN(3) {
			if w.r.IntN(2) == 0 {
				w.wait(3000)
				w.app.Invoke(time.Now(), time.Now().Add(time.Minute))
			}
			for range 1 + w.r.IntN(4) {
				w.ask()
				asked++
			}
		}
		if w.r.IntN(3) == 0 { // an outage after it is served
			w.front.set(&kinds[away], 0, "")
			w.app.Invoke(time.Now(), time.Now().Add(time.Minute))
			for range 3 {
				w.ask()
				asked++
			}
		}
	}
}

func TestOnlyVaultsWordCounts(t *testing.T) {
	found, asked := map[string]int{}, 0
	for seed := *seedFlag; asked < *requestsFlag; seed++ {
		n := min(500, *requestsFlag-asked)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, end := newWorld(t, seed)
				w.run(n)
				end()
				w.add(found)
			})
		})
		asked += n
	}
	report(t, asked, found)
}

func (w *world) add(to map[string]int) {
	for k, n := range w.found {
		to[k] += n
	}
}

func report(t *testing.T, asked int, found map[string]int) {
	lines := make([]string, 0, len(found))
	for k, n := range found {
		lines = append(lines, fmt.Sprintf("%4d  %s", n, k))
	}
	sort.Strings(lines)
	t.Logf("%d requests; found:\n%s", asked, strings.Join(lines, "\n"))
}
