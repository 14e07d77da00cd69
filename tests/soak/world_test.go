package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// secrets are how many the function uses, and callers how many tokens of its
// own it has at a time.
const (
	secrets = 60
	callers = 8
	workers = 8
)

// world is an execution environment in front of a Vault in which secrets
// rotate.
type world struct {
	t      testing.TB
	vault  *harness.Vault
	env    *lambdaapi.Environment
	base   string
	client *http.Client

	versions [secrets]atomic.Int64 // the latest of each that was surely written
	tokens   [callers]atomic.Pointer[string]

	requests, hits, rotations, writes, strangers atomic.Int64
	invocations                                  int
	ran, frozen                                  time.Duration
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: needs Linux's /proc")
	}
	v := harness.Raft(t)
	ctx := t.Context()
	harness.Must(t, v.PutPolicy(ctx, "app", `path "secret/*" { capabilities = ["create", "read", "update", "list"] }`))
	harness.Must(t, v.EnableAuth(ctx, "approle", "approle"))
	id, secretID, err := v.AppRole(ctx, "approle", "app", harness.RoleSpec{Policies: []string{"app"}, TTL: 24 * time.Hour, Batch: true})
	harness.Must(t, err)
	addr := fmt.Sprintf("127.%d.%d.1:8220", 1+os.Getpid()%254, 1+os.Getpid()/254%250)
	w := &world{t: t, vault: v, base: "http://" + addr, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}, Timeout: time.Minute}}
	for n := range secrets {
		harness.Must(t, w.write(ctx, n))
	}
	for n := range callers {
		harness.Must(t, w.renew(ctx, n))
	}
	log := &tail{}
	w.env, err = lambdaapi.Start(ctx, lambdaapi.Config{
		Binary: suite.binary, Stdout: log, Stderr: log, Timeout: time.Minute,
		Env: []string{"THAW_LISTEN=" + addr, "VAULT_ADDR=" + v.Addr(), "THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=" + id, "THAW_SECRET_ID=" + secretID,
			"THAW_CACHE_BYTES=1MiB"},
	})
	if w.env == nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		w.env.Close()
		w.env.API().Check(t)
		if t.Failed() {
			t.Logf("the extension wrote, at last:\n%s", log)
		}
	})
	harness.Must(t, err)
	return w
}

// write gives a secret its next version at Vault itself.
func (w *world) write(ctx context.Context, n int) error {
	version, err := w.vault.Put(ctx, "secret", fmt.Sprintf("app/%02d", n), map[string]any{"v": strings.Repeat("x", 200+10*n)})
	if err != nil {
		return err
	}
	w.wrote(n, int64(version))
	return nil
}

// wrote notes that a version is surely there.
func (w *world) wrote(n int, version int64) {
	for {
		old := w.versions[n].Load()
		if old >= version || w.versions[n].CompareAndSwap(old, version) {
			return
		}
	}
}

// renew gives a caller another token.
func (w *world) renew(ctx context.Context, n int) error {
	token, err := w.vault.CreateToken(ctx, harness.TokenSpec{Policies: []string{"app"}, TTL: time.Hour, Batch: n%2 == 0})
	if err == nil {
		w.tokens[n].Store(&token)
	}
	return err
}

// rotate writes secrets at Vault, and gives callers new tokens, until ctx ends:
// in bursts, so that the cursor proves something in between.
func (w *world) rotate(ctx context.Context) error {
	random := rand.New(rand.NewPCG(1, 2))
	for n := 0; ; n++ {
		for range random.IntN(4) {
			if err := w.write(ctx, random.IntN(secrets)); err != nil {
				return unlessOver(ctx, err)
			}
			w.rotations.Add(1)
		}
		if n%8 == 0 {
			if err := w.renew(ctx, random.IntN(callers)); err != nil {
				return unlessOver(ctx, err)
			}
		}
		if harness.Pause(ctx, time.Duration(random.Int64N(int64(2*time.Second)))); ctx.Err() != nil {
			return nil
		}
	}
}

func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// freeze stops the process for a while, as Lambda does after an invocation.
func (w *world) freeze() {
	d := time.Duration(rand.Int64N(int64(300 * time.Millisecond)))
	if err := w.env.Freeze(); err != nil {
		w.t.Error(err)
		return
	}
	harness.Pause(w.t.Context(), d)
	w.frozen += d
}

// invoke is one invocation of about a second with so many requests in it.
func (w *world) invoke(rate int) {
	var least [secrets]int64 // what was written before the invocation is never served older
	for n := range least {
		least[n] = w.versions[n].Load()
	}
	began := time.Now()
	err := w.env.Invoke(w.t.Context(), func(ctx context.Context, _ lambdaapi.Invocation) error {
		length := 500*time.Millisecond + time.Duration(rand.Int64N(int64(time.Second)))
		errs := make([]error, workers)
		var all sync.WaitGroup
		for i := range workers {
			all.Go(func() {
				random := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
				gap := time.Duration(workers) * time.Second / time.Duration(rate)
				for due := began; time.Since(began) < length && errs[i] == nil; due = due.Add(gap) {
					harness.Pause(ctx, time.Until(due))
					errs[i] = w.request(ctx, random, &least)
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	})
	if err != nil {
		w.t.Errorf("invocation %d: %v", w.invocations, err)
	}
	w.invocations++
	w.ran += time.Since(began)
}

// request is one request of the function: mostly a read of a secret.
func (w *world) request(ctx context.Context, random *rand.Rand, least *[secrets]int64) error {
	w.requests.Add(1)
	n := random.IntN(secrets)
	call := harness.Call{Method: http.MethodGet, Path: fmt.Sprintf("secret/data/app/%02d", n)}
	switch dice := random.IntN(1000); {
	case dice < 150:
		call.Token = *w.tokens[random.IntN(callers)].Load()
	case dice < 160: // a token that nobody knows, a new one each time
		w.strangers.Add(1)
		call.Token = fmt.Sprintf("hvs.stranger%016x", random.Uint64())
		r, err := harness.Send(ctx, w.client, w.base, call)
		if err == nil && r.Status != http.StatusForbidden {
			err = fmt.Errorf("a stranger got %d", r.Status)
		}
		return err
	case dice < 190:
		call = harness.Call{Method: "LIST", Path: "secret/metadata/app"}
	case dice < 210:
		call.Path = fmt.Sprintf("secret/metadata/app/%02d", n)
	case dice < 220:
		call.Path = fmt.Sprintf("secret/data/none/%x", random.Uint32())
	case dice < 222:
		w.writes.Add(1)
		call.Method, call.Body = http.MethodPost, map[string]any{"data": map[string]string{"v": "through the proxy"}}
	case dice < 225: // a caller who does not wait
		short, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(1500))*time.Microsecond)
		defer cancel()
		_, _ = harness.Send(short, w.client, w.base, call)
		return nil
	}
	r, err := harness.Send(ctx, w.client, w.base, call)
	if err != nil {
		return err
	}
	if r.Header.Get("X-Cache") == "HIT" {
		w.hits.Add(1)
	}
	switch {
	case strings.HasPrefix(call.Path, "secret/data/none/"):
		if r.Status != http.StatusNotFound {
			return fmt.Errorf("what is not there: %d %.200s", r.Status, r.Body)
		}
	case r.Status != http.StatusOK:
		return fmt.Errorf("%s %s: %d %.200s", call.Method, call.Path, r.Status, r.Body)
	case call.Method == http.MethodPost:
		var out struct{ Data struct{ Version int64 } }
		if err := r.JSON(&out); err != nil {
			return err
		}
		w.wrote(n, out.Data.Version)
	case strings.HasPrefix(call.Path, "secret/data/"):
		var out struct {
			Data struct{ Metadata struct{ Version int64 } }
		}
		if err := r.JSON(&out); err != nil {
			return err
		}
		if got := out.Data.Metadata.Version; got < least[n] && !strings.Contains(r.Header.Get("Cache-Status"), "stale") {
			return fmt.Errorf("%s: version %d, and %d was there before the invocation (%s)", call.Path, got, least[n], r.Header.Get("Cache-Status"))
		}
	}
	return nil
}

// settled looks at the process. Where more goroutines run than ever before, some
// may just be ending what the invocation began: then it looks again.
func (w *world) settled(at time.Duration, before []harness.Sample) harness.Sample {
	s := w.look(at)
	most := 0.0
	for _, b := range before {
		most = max(most, b.Goroutines)
	}
	for range 20 {
		if len(before) == 0 || s.Goroutines <= most {
			break
		}
		harness.Pause(w.t.Context(), 50*time.Millisecond)
		if again := w.look(at); again.Goroutines < s.Goroutines {
			s = again
		}
	}
	return s
}

// look takes a sample between two invocations.
func (w *world) look(at time.Duration) harness.Sample {
	w.t.Helper()
	resp, err := w.client.Get(w.base + "/proxy/v1/metrics")
	harness.Must(w.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	harness.Must(w.t, err)
	s, err := harness.TakeSample(at, w.env.PID(), string(text))
	harness.Must(w.t, err)
	return s
}

// tail is the last of what a process writes.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

// Write implements io.Writer.
func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	if len(l.text) > 64<<10 {
		l.text = append([]byte(nil), l.text[len(l.text)-4<<10:]...)
	}
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
