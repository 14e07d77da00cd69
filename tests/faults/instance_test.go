package faults

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/config"
)

var quiet = log.New(io.Discard, "", 0)

// Where the servers are.
const (
	originAddr = "10.0.0.2:8200"
	cacheAddr  = "10.0.0.1:11211"
)

// cacheKey is every instance's.
var cacheKey = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))

// instance is one process of the product in its sandbox, with the function
// that it serves.
type instance struct {
	w      *world
	n, inc int
	clock  *clock
	app    *app.App
	origin *link
	cache  *link
	front  *listener
	client *http.Client
	flying atomic.Int32 // requests at the origin

	lambda *lambdaAPI

	mu     sync.Mutex             // guards the fields below
	sent   map[string]lambdaEvent // each INVOKE, by its id
	latest string                 // the id of the last of them
	taken  lambdaEvent            // the one that was taken last; seq 0: none was
}

// environ is how instance n is configured.
func (w *world) environ(n int) []string {
	s, role := w.setup, 0
	if w.role(n) == otherRole {
		role = 1
	}
	env := []string{
		"VAULT_ADDR=http://" + originAddr, "THAW_LISTEN=127.0.0.1:8200", "THAW_AUTH_METHOD=approle",
		"THAW_ROLE_ID=" + w.roleID[role], "THAW_SECRET_ID=" + w.secretID[role],
		"THAW_RECHECK=" + recheck.String(), "VAULT_CLIENT_TIMEOUT=" + clientTimeout.String(),
		fmt.Sprint("THAW_MAX_IN_FLIGHT=", maxInFlight), "THAW_MAX_AGE=" + s.MaxAge.String(),
		"THAW_CAPABILITY_REFRESH_INTERVAL=" + s.Refresh.String(), "THAW_STALE_IF_ERROR=" + s.Stale.String(),
		"THAW_NEGATIVE_TTL=" + s.NegativeTTL.String(),
	}
	if s.Pessimistic {
		env = append(env, "THAW_CAPABILITY_REFRESH_BEHAVIOR=pessimistic")
	}
	if s.Small {
		env = append(env, fmt.Sprint("THAW_CACHE_BYTES=", smallCache))
	}
	if s.Prefetch {
		env = append(env, "THAW_PREFETCH=secret/data/a/db,kv/b/db,other/data/none")
	}
	if s.NoInit {
		env = append(env, "THAW_INIT=off")
	}
	if s.PollRead {
		env = append(env, "THAW_POLL=read")
	}
	if s.Shared {
		env = append(env, "CACHE_ENABLE=true", "THAW_MEMCACHED="+cacheAddr, "THAW_CACHE_KEY="+cacheKey, "THAW_AUDIENCE=fleet")
	}
	if s.Debug {
		env = append(env, "VAULT_LOG_LEVEL=debug")
	}
	return append(env, w.nodesOf()...)
}

// start starts instance n with the wall clock that the machine has.
func (w *world) start(n, inc int) {
	cfg, _, err := config.Load(config.Source{Environ: w.environ(n)})
	if err != nil {
		panic(err)
	}
	x := &instance{w: w, n: n, inc: inc, front: newListener(), sent: map[string]lambdaEvent{}}
	began := w.moment()
	w.h.mu.Lock()
	w.h.began[process{n, inc}] = began
	w.h.mu.Unlock()
	if old := w.slots[n]; old != nil {
		x.clock = old.clock
	} else {
		x.clock = &clock{off: w.clock.offset() + time.Duration(w.dice("clock").IntN(800)-400)*time.Millisecond}
	}
	name := fmt.Sprintf("%d.%d", n, inc)
	x.origin = &link{name: name, to: w.up, open: map[*wire]bool{}}
	x.cache = &link{name: name, to: w.side, open: map[*wire]bool{}, spy: w.check5Sent}
	w.mu.Lock()
	x.origin.state, x.cache.state = w.way[n], w.hung
	w.mu.Unlock()
	logger := slog.New(slog.NewJSONHandler(watcher{w, "log"}, &slog.HandlerOptions{Level: cfg.LogLevel}))
	x.app, err = app.Build(cfg, logger, watcher{w, "standard output"}, app.Hooks{
		Gate: x.gate, Frozen: true, Now: x.clock.now, Dial: x.dial,
		Listen: func(context.Context, string, string) (net.Listener, error) { return x.front, nil },
	})
	if err != nil {
		panic(err)
	}
	if err := x.app.Listen(); err != nil {
		panic(err)
	}
	if x.origin.dialled()+x.cache.dialled() > 0 {
		w.h.broke("G6: the instance used the network before it was registered")
	}
	x.lambda = w.newLambda(x.clock.now, logger)
	if !w.setup.NoInit {
		x.prepare()
	}
	x.lambda.run(x)
	x.client = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return x.front.connect(ctx, "127.0.0.1:5000")
			},
			DisableCompression: true, MaxIdleConnsPerHost: 4,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	w.mu.Lock()
	w.slots[n] = x
	w.mu.Unlock()
}

func (x *instance) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	if addr == cacheAddr {
		return x.cache.dial(ctx, 0)
	}
	if node := slices.Index(nodeAddrs[:], addr); node == 0 || node > 0 && x.w.known() {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout) // as the dialer does that this one stands for; see vault.Options.Dial
		defer cancel()
		return x.origin.dial(ctx, node)
	}
	x.w.h.broke("G5: the instance connects to " + addr)
	return nil, errRefused
}

// shutdownBudget is what SHUTDOWN may take.
const shutdownBudget = time.Second

// stop ends the instance as SHUTDOWN does.
func (w *world) stop(x *instance) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownBudget)
	defer cancel()
	x.app.Shutdown(ctx)
	x.lambda.end()
	if took := time.Since(began); took > shutdownBudget+10*time.Millisecond {
		w.h.broke("G6: SHUTDOWN was done only after " + took.String())
	}
	x.client.CloseIdleConnections()
}

// retire kills the instance: its network is gone at once, and so is what it
// had in memory.
func (w *world) retire(x *instance) {
	m := w.moment()
	w.h.mu.Lock()
	w.h.shaken[x.n] = append(w.h.shaken[x.n], m)
	w.h.mu.Unlock()
	x.origin.set(refused)
	x.cache.set(refused)
	w.dying.Go(func() { w.stop(x) })
}

// writeHeader names a write through an instance to the model. The product
// passes it on like any header.
const writeHeader = "X-Simulation-Write"

// ask sends one request of the function.
func (x *instance) ask(ctx context.Context, method, path, token, body string, header http.Header) (*http.Response, string, error) {
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1:8200"+path, in)
	if err != nil {
		panic(fmt.Sprint(path, err))
	}
	for k, v := range header {
		r.Header[k] = v
	}
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	res, err := x.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}
