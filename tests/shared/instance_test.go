package shared

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// instance is one running extension and the function's side of it: an
// execution environment of Lambda, or a `thaw proxy`.
type instance struct {
	t      testing.TB
	lambda *lambdaapi.Environment // nil for `thaw proxy`
	base   string
	client *http.Client
	log    *transcript
	once   sync.Once
	stop   func()
}

func newInstance(t testing.TB) (*instance, string) {
	addr := address(t)
	return &instance{
		t: t, base: "http://" + addr, log: &transcript{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: time.Minute},
	}, addr
}

// cold makes an execution environment and runs its Init phase.
func cold(t testing.TB, s harness.Settings) *instance {
	t.Helper()
	i, addr := newInstance(t)
	var err error
	i.lambda, err = lambdaapi.Start(t.Context(), lambdaapi.Config{
		Binary: suite.thaw, Stdout: i.log, Stderr: i.log, Env: harness.Settings{"THAW_LISTEN": addr, "VAULT_LOG_LEVEL": "DEBUG"}.With(s).List(),
	})
	if i.lambda == nil {
		t.Fatal(err)
	}
	i.stop = func() {
		i.lambda.Close()
		i.lambda.API().Check(t)
	}
	t.Cleanup(i.close)
	if err != nil {
		t.Fatalf("init: %v", err)
	}
	return i
}

// serve starts a `thaw proxy` and returns when it serves.
func serve(t testing.TB, s harness.Settings) *instance {
	t.Helper()
	i, addr := newInstance(t)
	proc, err := harness.Start(harness.Command{
		Path: suite.thaw, Args: []string{"proxy"}, Dir: t.TempDir(), Stdout: i.log, Stderr: i.log,
		Env: harness.Settings{"THAW_LISTEN": addr, "VAULT_LOG_LEVEL": "DEBUG", "HOME": t.TempDir()}.With(s).List(),
	})
	harness.Must(t, err)
	i.stop = proc.Kill
	t.Cleanup(i.close)
	harness.Eventually(t, 20*time.Second, "thaw proxy serves", func() bool {
		select {
		case <-proc.Done():
			t.Fatalf("thaw proxy ended:\n%s", proc.Output())
		default:
		}
		return strings.Contains(i.log.String(), "serving")
	})
	return i
}

// close ends the process. It may be called early, and again.
func (i *instance) close() {
	i.once.Do(func() {
		i.client.CloseIdleConnections()
		i.stop()
		i.log.check(i.t, "the extension at "+i.base)
	})
}

// invoke is one invocation that must succeed. The process is frozen afterwards.
func (i *instance) invoke(body func(ctx context.Context)) {
	i.t.Helper()
	if err := i.lambda.Invoke(i.t.Context(), func(ctx context.Context, _ lambdaapi.Invocation) error { body(ctx); return nil }); err != nil {
		i.t.Errorf("invocation: %v", err)
		return
	}
	if err := i.lambda.Freeze(); err != nil {
		i.t.Error(err)
	}
}

// shutdown is the environment's Shutdown phase. It must end in time.
func (i *instance) shutdown() {
	i.t.Helper()
	exit, err := i.lambda.Shutdown("spindown")
	if err != nil || exit.Code != 0 || !exit.InTime {
		i.t.Errorf("shutdown: %v %v", exit, err)
	}
	i.close()
}

// answer is what the function got.
type answer struct {
	*harness.Response
	begun, ended time.Time
	err          error // there was no answer
}

func (i *instance) send(ctx context.Context, c harness.Call) answer {
	a := answer{begun: time.Now()}
	a.Response, a.err = harness.Send(ctx, i.client, i.base, c)
	a.ended = time.Now()
	if a.err != nil {
		a.Response = &harness.Response{Header: http.Header{}}
	}
	return a
}

// get reads a secret with the extension's own token.
func (i *instance) get(ctx context.Context, name string) answer {
	return i.send(ctx, harness.Call{Method: http.MethodGet, Path: "secret/data/" + name})
}

// value is the secret's field "password"; empty where there is none.
func (a answer) value() string {
	data, err := a.Data()
	if err != nil {
		return ""
	}
	inner, _ := data["data"].(map[string]any)
	s, _ := inner["password"].(string)
	return s
}

func (a answer) stale() bool { return strings.Contains(a.Header.Get("Cache-Status"), "detail=stale") }

// wrong says what is wrong with an answer that should hold value and be
// fresh; empty where nothing is.
func (a answer) wrong(value string) string {
	if a.err != nil || a.Status != http.StatusOK || a.value() != value || a.stale() {
		return fmt.Sprintf("answer %d %v %.200s, want 200 with %s, fresh: %v", a.Status, a.Header, a.Body, value, a.err)
	}
	return ""
}

// reads reads all names at once in one invocation and fails the test unless
// every one is right.
func (i *instance) reads(o *site, names []string) {
	i.t.Helper()
	i.invoke(func(ctx context.Context) {
		var wg sync.WaitGroup
		for _, name := range names {
			wg.Go(func() {
				if w := i.get(ctx, name).wrong(o.value(name)); w != "" {
					i.t.Errorf("%s: %s", name, w)
				}
			})
		}
		wg.Wait()
	})
}

// storm starts n environments in batches of size, each of which runs body in
// its first invocation, and ends them.
func storm(t testing.TB, n, size int, body func(k int) *instance) {
	t.Helper()
	for begin := 0; begin < n; begin += size {
		var batch sync.WaitGroup
		for k := begin; k < min(n, begin+size); k++ {
			batch.Go(func() {
				body(k).shutdown()
			})
		}
		batch.Wait()
		if t.Failed() {
			return
		}
	}
}
