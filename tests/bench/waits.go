package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/harness"
)

// Measures of the part about what a function waits for.
const (
	waitInit        = 300 * time.Millisecond // that the function's own init takes
	waitAsleep      = 50 * time.Millisecond  // between its invocations
	waitTrip        = 20 * time.Millisecond  // to Vault, where the figures are in tables
	waitBusy        = 50 * time.Millisecond  // between the writes of another client to a busy cluster
	verifiedAtATime = 8                      // THAW_POLL_CONCURRENCY
	vleAddress      = "127.0.0.1:8200"       // where vault-lambda-extension listens
)

// product is one way for a function to get its secrets.
type product struct {
	name, note string
	// start starts what stands beside the function and returns how it reads a
	// secret during an invocation. Vault is at o's address, so far away.
	start func(ctx context.Context, o *origin, secrets int) (*function, error)
	first func(trip time.Duration, secrets int) float64 // the most that the first invocation may wait, ms; nil: no target
	warm  func(trip time.Duration, secrets int) float64 // the same of a later one
	later int                                           // invocations between the two
}

// function is one that is about to be invoked.
type function struct {
	env  *lambdaapi.Environment
	read func(ctx context.Context, i int) error
	stop []func()
}

func (f *function) close() {
	if f.env != nil {
		f.env.Close()
	}
	for _, s := range f.stop {
		s()
	}
}

// waits measures what a function waits for its secrets, which it reads one after
// the other: in its first invocation and in one after a freeze, by how far away
// Vault is, beside a client in the function and other caches.
func (b *bench) waits(ctx context.Context) error {
	products := b.products()
	far := []*Plot{b.waitPlot("first invocation"), b.waitPlot("later invocation")}
	for _, p := range products {
		for _, plot := range far {
			plot.Series = append(plot.Series, Series{Name: p.name, Marked: true})
		}
	}
	for _, n := range []int{1, 3, 10} {
		trips := []time.Duration{waitTrip}
		if n == 3 {
			trips = []time.Duration{time.Millisecond, 5 * time.Millisecond, waitTrip, 80 * time.Millisecond}
		}
		for _, trip := range trips {
			first, warm, err := b.waitRounds(ctx, products, trip, n)
			if err != nil {
				return err
			}
			if n == 3 {
				for i := range products {
					for k, of := range [][]float64{first[i], warm[i]} {
						far[k].Series[i].Points = append(far[k].Series[i].Points, Point{millis(trip), sample(of).Median})
					}
				}
			}
			if trip == waitTrip {
				b.waitTables(products, trip, n, first, warm)
			}
		}
	}
	for _, p := range far {
		b.report.plot(p)
	}
	if b.vle == "" {
		b.report.note("vault-lambda-extension is left out: BENCH_VLE=path/to/binary measures it beside")
	}
	return nil
}

func (b *bench) waitPlot(which string) *Plot {
	return &Plot{
		Title: "Wait for 3 secrets, " + which, X: Axis{"round trip to Vault, ms", true}, Y: Axis{"ms", true},
		Remarks: []string{fmt.Sprintf("the function's own init takes %v; a later invocation comes after a freeze; the secrets are read one after the other", waitInit)},
	}
}

func (b *bench) waitTables(products []product, trip time.Duration, n int, first, warm [][]float64) {
	for _, k := range []struct {
		title string
		of    [][]float64
		most  func(p product) func(time.Duration, int) float64
	}{
		{"First invocation", first, func(p product) func(time.Duration, int) float64 { return p.first }},
		{"Later invocation", warm, func(p product) func(time.Duration, int) float64 { return p.warm }},
	} {
		t := b.report.table(fmt.Sprintf("%s waits for %s, Vault %v away", k.title, plural(n, "secret"), trip), "ms")
		for i, p := range products {
			row := Row{Name: p.name, Value: sample(k.of[i]), Note: p.note}
			if most := k.most(p); most != nil {
				row.Most = most(trip, n)
				row.Target = fmt.Sprintf("at most %.0f ms", row.Most)
			}
			t.Rows = append(t.Rows, row)
		}
	}
}

// waitRounds has the products take turns and returns what each round of each
// waited, in ms.
func (b *bench) waitRounds(ctx context.Context, products []product, trip time.Duration, n int) (first, warm [][]float64, err error) {
	first, warm = make([][]float64, len(products)), make([][]float64, len(products))
	for range b.rounds(7) {
		for i, p := range products {
			f, w, err := b.waitOnce(ctx, p, trip, n)
			if err != nil {
				return nil, nil, fmt.Errorf("%s, %v away: %w", p.name, trip, err)
			}
			first[i], warm[i] = append(first[i], millis(f)), append(warm[i], millis(w))
		}
	}
	return first, warm, nil
}

// waitOnce is a cold start, an invocation, a freeze and another invocation.
func (b *bench) waitOnce(ctx context.Context, p product, trip time.Duration, n int) (first, warm time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	o, err := standIn()
	if err != nil {
		return 0, 0, err
	}
	defer o.close()
	for i := range n {
		if err := o.put(ctx, fmt.Sprint(i), secretOf(100)); err != nil {
			return 0, 0, err
		}
	}
	r, err := newRelay(strings.TrimPrefix(o.addr, "http://"), trip)
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	near := *o
	near.addr = "http://" + r.Addr().String()
	f, err := p.start(ctx, &near, n)
	if f != nil {
		defer f.close()
	}
	if err != nil {
		return 0, 0, err
	}
	rounds := []*time.Duration{&first}
	for range p.later + 1 {
		rounds = append(rounds, &warm)
	}
	for _, took := range rounds {
		err := f.env.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
			began := time.Now()
			for i := range n {
				if err := f.read(ctx, i); err != nil {
					return err
				}
			}
			*took = time.Since(began)
			return nil
		})
		if err == nil {
			err = f.env.Freeze()
		}
		if err != nil {
			return 0, 0, err
		}
		time.Sleep(waitAsleep)
	}
	return first, warm, nil
}

// ownInit is the function's init; it ends early with its context.
func ownInit(ctx context.Context) error {
	select {
	case <-time.After(waitInit):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// products are all that can be measured here. Targets of thaw hold where the
// function's init takes at least eight round trips; else what was left of it is
// added.
func (b *bench) products() []product {
	rest := func(trip time.Duration) float64 { return max(0, millis(8*trip-waitInit)) }
	list := []product{
		{
			name: "client in the function", note: "no cache; logs in at the function's init, keeps its connection",
			start: b.startClient,
		}, {
			name: "thaw", start: b.startThaw(),
			first: func(r time.Duration, n int) float64 { return 1.4*millis(r)*float64(n) + 8 + rest(r) },
			warm:  func(r time.Duration, _ int) float64 { return 1.4*millis(r) + 5 },
		}, {
			name: "thaw, THAW_PREFETCH", start: b.startThaw("prefetch"),
			first: func(r time.Duration, _ int) float64 { return 1.4*millis(r) + 8 + rest(r) },
			warm:  func(r time.Duration, _ int) float64 { return 1.4*millis(r) + 5 },
		}, {
			name: "thaw, THAW_PREFETCH and THAW_MAX_AGE=10s", start: b.startThaw("prefetch", "THAW_MAX_AGE=10s"),
			first: func(r time.Duration, _ int) float64 { return 5 + rest(r) },
			warm:  func(time.Duration, int) float64 { return 2 },
		}, {
			name: "thaw, busy cluster", note: "another client writes 20 times a second; the later one is the seventh, when that is known and each request finds a connection",
			start: b.startThaw("busy"), later: 5,
			first: func(r time.Duration, n int) float64 { return 1.4*millis(r)*float64(n) + 8 + rest(r) },
			warm:  func(r time.Duration, n int) float64 { return 1.4*millis(r)*math.Ceil(float64(n)/verifiedAtATime) + 5 },
		}, {
			name: "thaw, shared cache", note: "that another instance has filled", start: b.startThaw("shared"),
			warm: func(r time.Duration, _ int) float64 { return 1.4*millis(r) + 5 },
		},
	}
	if binary, err := harness.FindVault(context.Background(), b.vault); err == nil && !b.noVault {
		list = append(list, product{name: "vault proxy", note: "cache {} and use_auto_auth_token, started before the function", start: b.startBesideVaultProxy(binary)})
	}
	if b.vle != "" {
		list = append(list,
			product{name: "vault-lambda-extension, no cache", start: b.startVLE()},
			product{name: "vault-lambda-extension, TTL 5m", note: "stale after a rotation", start: b.startVLE("VAULT_DEFAULT_CACHE_ENABLED=true", "VAULT_DEFAULT_CACHE_TTL=5m")},
		)
	}
	return list
}

// byHTTP reads at a proxy.
func (f *function) byHTTP(client *http.Client, base, token string) {
	f.read = func(ctx context.Context, i int) error {
		res, err := harness.Send(ctx, client, base, harness.Call{
			Method: http.MethodGet, Path: fmt.Sprintf("secret/data/bench/%d", i), Token: token, Header: http.Header{"X-Vault-Request": {"true"}},
		})
		if err != nil {
			return err
		}
		return res.Err()
	}
	f.stop = append(f.stop, client.CloseIdleConnections)
}

func newClient() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
}

// startClient is a function that asks Vault itself.
func (b *bench) startClient(ctx context.Context, o *origin, _ int) (*function, error) {
	f, client, token := &function{}, newClient(), ""
	var err error
	f.env, _, err = startWithFunction(ctx, b.bin.nothing, func(ctx context.Context) error {
		res, err := harness.Send(ctx, client, o.addr, harness.Call{Method: http.MethodPost, Path: "auth/approle/login", Body: map[string]string{"role_id": o.roleID, "secret_id": o.secretID}})
		if err == nil {
			err = res.Err()
		}
		if err == nil {
			token, err = tokenOf(res.Body)
		}
		return errors.Join(err, ownInit(ctx))
	})
	f.byHTTP(client, o.addr, token)
	return f, err
}

// tokenOf is the token in the answer to a login.
func tokenOf(body []byte) (string, error) {
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	err := json.Unmarshal(body, &made)
	if err == nil && made.Auth.Token == "" {
		err = errors.New("the answer has no token")
	}
	return made.Auth.Token, err
}

// startThaw runs the extension. Each of more is a setting, or prefetch, busy or
// shared.
func (b *bench) startThaw(more ...string) func(ctx context.Context, o *origin, secrets int) (*function, error) {
	return func(ctx context.Context, o *origin, secrets int) (*function, error) {
		f, env := &function{}, o.env()
		for _, m := range more {
			switch m {
			case "prefetch":
				paths := make([]string, secrets)
				for i := range paths {
					paths[i] = fmt.Sprintf("secret/data/bench/%d", i)
				}
				env = append(env, "THAW_PREFETCH="+strings.Join(paths, ","))
			case "busy":
				during, stop := context.WithCancel(ctx)
				ended := make(chan error, 1)
				go func() {
					ended <- repeat(during, waitBusy, func(ctx context.Context) error { return o.put(ctx, "other", "x") })
				}()
				f.stop = append(f.stop, func() { stop(); <-ended })
			case "shared":
				shared, err := b.sharedCache(ctx, f, env, secrets)
				if err != nil {
					return f, err
				}
				env = append(env, shared...)
			default:
				env = append(env, m)
			}
		}
		return f, b.startAt(ctx, f, b.bin.thaw, "", env)
	}
}

// startAt starts an extension that listens at an address; empty: a free one.
func (b *bench) startAt(ctx context.Context, f *function, binary, address string, env []string) (err error) {
	var at string
	f.env, at, err = startWithFunction(ctx, binary, ownInit, env...)
	if address == "" {
		address = at
	}
	f.byHTTP(newClient(), "http://"+address, "")
	return err
}

// sharedCache starts a memcached that another instance has filled, and returns the
// settings for it.
func (b *bench) sharedCache(ctx context.Context, f *function, env []string, secrets int) ([]string, error) {
	m, err := memcache.Start(memcache.Options{})
	if err != nil {
		return nil, err
	}
	f.stop = append(f.stop, m.Close)
	shared := []string{"CACHE_ENABLE=true", "THAW_MEMCACHED=" + m.Addr(), "THAW_CACHE_KEY=" + stormKey, "THAW_MEMCACHED_TIMEOUT=200ms"}
	other := &function{}
	defer other.close()
	if err := b.startAt(ctx, other, b.bin.thaw, "", append(env, shared...)); err != nil {
		return nil, err
	}
	err = other.env.Invoke(ctx, func(ctx context.Context, _ lambdaapi.Invocation) error {
		for i := range secrets {
			if err := other.read(ctx, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		_, err = other.env.Shutdown("spindown")
	}
	return shared, err
}

// startBesideVaultProxy runs `vault proxy` beside the function.
func (b *bench) startBesideVaultProxy(binary string) func(ctx context.Context, o *origin, secrets int) (*function, error) {
	return func(ctx context.Context, o *origin, _ int) (*function, error) {
		s, err := startVaultProxy(ctx, binary, b.bin, o)
		if err != nil {
			return nil, err
		}
		f := &function{stop: []func(){s.stop}}
		return f, b.startAt(ctx, f, b.bin.nothing, s.address, nil)
	}
}

// startVLE runs vault-lambda-extension. It knows AWS's login alone, which the
// stand-in takes for one by AppRole.
func (b *bench) startVLE(more ...string) func(ctx context.Context, o *origin, secrets int) (*function, error) {
	return func(ctx context.Context, o *origin, _ int) (*function, error) {
		f := &function{}
		return f, b.startAt(ctx, f, b.vle, vleAddress, append([]string{
			"VAULT_ADDR=" + o.addr, "VAULT_AUTH_PROVIDER=aws", "VAULT_AUTH_ROLE=bench",
			"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=example", "AWS_SESSION_TOKEN=example",
		}, more...))
	}
}
