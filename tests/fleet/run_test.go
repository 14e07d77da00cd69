package fleet

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

var large = flag.Bool("fleet.large", false, "also run 200 and 1,000 environments, which takes some minutes")

// real is a fleet of instances of the product in this process, on a clock that the
// driver moves: one invocation after the other.
type real struct {
	t      *testing.T
	setup  Setup
	base   time.Time
	offset atomic.Int64
	away   atomic.Bool
	asked  atomic.Int64 // requests that Vault got, or that would have reached it
	in     *standin.Origin
	vault  *httptest.Server
	nodes  []*memcache.Server
	calls  []int // that were counted before
	envs   []*app.App
	client *http.Client
}

func (r *real) now() time.Time { return r.base.Add(time.Duration(r.offset.Load())) }

func newReal(t *testing.T, s Setup) *real {
	t.Helper()
	r := &real{t: t, base: time.Now(), setup: s, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	in := standin.New(standin.Options{RootToken: "root"})
	r.in = in
	in.SetPolicy("fleet", map[string][]string{"secret/data/fleet/*": {"read"}})
	role, secret := in.AddAppRole("fleet", standin.AppRole{Policies: []string{"fleet"}, TTL: 10 * time.Hour, Batch: true})
	r.vault = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.asked.Add(1)
		if r.away.Load() {
			panic(http.ErrAbortHandler)
		}
		in.ServeHTTP(w, q)
	}))
	t.Cleanup(r.vault.Close)
	r.vault.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	for i := range s.Secrets {
		res, err := harness.Send(t.Context(), r.client, r.vault.URL, harness.Call{
			Method: http.MethodPost, Path: fmt.Sprint("secret/data/fleet/", i), Token: "root", Body: map[string]any{"data": map[string]string{"v": "x"}},
		})
		harness.Must(t, err)
		harness.Must(t, res.Err())
	}
	var addrs []string
	for range s.Nodes {
		m, err := memcache.Start(memcache.Options{Now: r.now})
		harness.Must(t, err)
		t.Cleanup(m.Close)
		r.nodes, addrs = append(r.nodes, m), append(addrs, m.Addr())
	}
	r.calls = make([]int, s.Nodes)
	environ := []string{
		"VAULT_ADDR=" + r.vault.URL, "THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=" + role, "THAW_SECRET_ID=" + secret, "THAW_LISTEN=127.0.0.1:0",
		"THAW_MAX_AGE=" + s.MaxAge.String(),
	}
	if s.Nodes > 0 {
		environ = append(environ, "CACHE_ENABLE=true", "THAW_MEMCACHED="+strings.Join(addrs, ","), "THAW_MEMCACHED_TIMEOUT=200ms",
			"THAW_CACHE_KEY=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	}
	cfg, _, err := config.Load(config.Source{Environ: environ})
	harness.Must(t, err)
	for range s.Environments + 1 {
		a, err := app.Build(cfg, slog.New(slog.DiscardHandler), io.Discard, app.Hooks{Frozen: true, Now: r.now})
		harness.Must(t, err)
		harness.Must(t, a.Listen())
		t.Cleanup(func() { a.Shutdown(context.Background()) })
		r.envs = append(r.envs, a)
	}
	r.invoke(s.Environments) // one fills the shared cache, and is seen no more
	r.envs[s.Environments].Shutdown(t.Context())
	r.count()
	return r
}

// invoke is one invocation: it reads every secret, and is frozen.
func (r *real) invoke(i int) {
	a := r.envs[i]
	a.Invoke(r.now(), time.Time{})
	a.Looked(r.t.Context())
	for k := range r.setup.Secrets {
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, fmt.Sprint("http://", a.Addrs()[0], "/v1/secret/data/fleet/", k), nil)
		harness.Must(r.t, err)
		res, err := r.client.Do(req)
		harness.Must(r.t, err)
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			r.t.Fatalf("environment %d: status %d", i, res.StatusCode)
		}
	}
	a.Verified(r.t.Context())
}

// count returns what there was since the last call.
func (r *real) count() Figures {
	f := Figures{Vault: float64(r.asked.Swap(0))}
	for i, m := range r.nodes {
		n := m.Commands()
		f.Calls += float64(n - r.calls[i])
		r.calls[i] = n
	}
	// A node notices a little later what was closed.
	for end := time.Now().Add(2 * time.Second); ; harness.Pause(r.t.Context(), 5*time.Millisecond) {
		f.Connections = 0
		for _, m := range r.nodes {
			open, _ := m.Conns()
			f.Connections += float64(open)
		}
		if f.Connections <= float64(r.setup.Environments) || time.Now().After(end) {
			return f
		}
	}
}

// phase has each environment invoked in turn, at the fleet's rate, for that long.
func (r *real) phase(p Phase) Figures {
	switch p {
	case Death:
		r.nodes[0].Close()
	case Outage:
		r.away.Store(true)
	case Return:
		r.away.Store(false)
	case Elected:
		r.in.Seal()
		r.in.Unseal()
	}
	order := rand.New(rand.NewPCG(1, uint64(p)))
	step := time.Duration(float64(time.Second) / float64(r.setup.Environments) / r.setup.Rate)
	if p == Cold {
		step = r.setup.Length / time.Duration(r.setup.Environments)
	}
	end := r.offset.Load() + int64(r.setup.Length)
	for r.offset.Load() < end {
		for _, i := range order.Perm(r.setup.Environments) {
			// What the machine takes is no part of the simulated time.
			r.offset.Add(int64(step))
			if p == Cold {
				r.envs[i].Prepare(r.t.Context())
			}
			r.invoke(i)
			if r.offset.Load() >= end {
				break
			}
		}
		if p == Cold {
			break
		}
	}
	return r.count()
}

// TestTheModelIsTheProduct: what the model says of a fleet is what the product does, to a
// tenth in connections, a quarter in calls (in a storm of cold starts, what the places of
// the records leave open), and in requests to Vault a fifth or one and a half verifications
// of each node; while Vault is away, to a third in both. Under another leader calls are not
// compared, and a login or two more are no matter.
func TestTheModelIsTheProduct(t *testing.T) {
	sizes := []int{50}
	if *large {
		sizes = append(sizes, 200, 1000)
	}
	for _, n := range sizes {
		with := Setup{Environments: n, Nodes: 3, Rate: 1, MaxAge: 10 * time.Second, Skew: time.Second, Secrets: 4, Length: 20 * time.Second}
		for _, c := range []struct {
			Setup
			phases []Phase
		}{
			{with, []Phase{Cold, Steady, Outage, Return, Elected}}, {with, []Phase{Cold, Steady, Death, Outage, Return}},
			{Setup{Environments: n, Rate: 1, Secrets: 4, Length: 5 * time.Second}, []Phase{Cold, Steady, Outage, Return, Elected}},
		} {
			s, r, m := c.Setup, newReal(t, c.Setup), New(c.Setup)
			for _, p := range c.phases {
				got, want := r.phase(p), m.Run(p)
				t.Logf("%4d environments, %d nodes, %-22s: Vault %5.0f (model %5.0f), calls %6.0f (%6.0f), connections %4.0f (%4.0f)",
					n, s.Nodes, p, got.Vault, want.Vault, got.Calls, want.Calls, got.Connections, want.Connections)
				near := func(what string, got, want, share, least float64) {
					if math.Abs(got-want) > max(share*want, least) {
						t.Errorf("%d environments, %d nodes, %s: %s %.0f, the model says %.0f", n, s.Nodes, p, what, got, want)
					}
				}
				near("connections", got.Connections, want.Connections, 0.1, 0)
				if p == Elected && s.Nodes > 0 {
					near("requests to Vault", got.Vault, want.Vault, 0.5, float64(2*s.Nodes+s.Secrets))
					continue
				}
				near("requests to Vault", got.Vault, want.Vault, map[bool]float64{false: 0.2, true: 0.3}[p == Outage], 1.5*float64(s.Nodes))
				if p == Cold && s.Nodes > 0 { // the records of a secret are with one node, or with all, or between
					fetched, mean := float64(n*s.Secrets), holders(s.Nodes)
					least, most := want.Calls-fetched*(mean-1), want.Calls+fetched*(float64(s.Nodes)-mean)
					near("calls", got.Calls, min(max(got.Calls, least), most), 0.1, 0)
					continue
				}
				near("calls", got.Calls, want.Calls, map[bool]float64{false: 0.25, true: 0.35}[p == Outage], 0)
			}
		}
	}
}
