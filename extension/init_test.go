package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// watchedVault is a Vault with one secret that notes what it is asked for.
type watchedVault struct {
	addr, roleID, secretID string
	silence                chan struct{} // closed: it answers; nil: it always does
	conns                  atomic.Int32  // that are open
	before                 func() bool   // reports whether thaw may ask by now; nil: always

	mu    sync.Mutex
	asked []string      // guarded by mu; since the last taken
	more  chan struct{} // guarded by mu; closed and replaced with each request
	early bool          // guarded by mu; it was asked before it might be
}

func newWatchedVault(t *testing.T) *watchedVault {
	t.Helper()
	v := &watchedVault{more: make(chan struct{})}
	stand := standin.New(standin.Options{RootToken: "planted-token"})
	v.roleID, v.secretID = stand.AddAppRole("fn", standin.AppRole{Policies: []string{"root"}, Batch: true})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		v.asked = append(v.asked, shortOf(r.URL.Path))
		v.early = v.early || v.before != nil && !v.before()
		close(v.more)
		v.more = make(chan struct{})
		v.mu.Unlock()
		if v.silence != nil {
			select {
			case <-v.silence:
			case <-r.Context().Done():
				return
			}
		}
		stand.ServeHTTP(w, r)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			v.conns.Add(1)
		case http.StateClosed:
			v.conns.Add(-1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	v.addr = server.URL
	stand.Root(http.MethodPost, "secret/data/app", `{"data":{"v":"planted-value"}}`)
	return v
}

// shortOf is the last word of an API path.
func shortOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// taken is what was asked since the last call, in alphabetical order.
func (v *watchedVault) taken() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.asked
	v.asked = nil
	slices.Sort(all)
	return all
}

// await waits until as much was asked for as want has.
func (v *watchedVault) await(ctx context.Context, want []string) {
	for {
		v.mu.Lock()
		n, more := len(v.asked), v.more
		v.mu.Unlock()
		if n >= len(want) {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// sandbox is the program in Lambda, within the test's process.
type sandbox struct {
	t      *testing.T
	ctx    context.Context
	x      *lambdaapi.Extension
	addr   string
	stderr *harness.Transcript
	ended  chan int
}

// launch starts the program and returns when its Next is outstanding.
func launch(t *testing.T, v *watchedVault, initType string, settings ...string) *sandbox {
	t.Helper()
	api, err := lambdaapi.NewAPI(lambdaapi.Function{InitType: initType})
	harness.Must(t, err)
	t.Cleanup(func() { api.Check(t); api.Close() })
	s := &sandbox{t: t, x: api.Launch("thaw"), addr: harness.FreeAddr(t), stderr: new(harness.Transcript), ended: make(chan int, 1)}
	v.before = func() bool { return s.x.State() != lambdaapi.Started }
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	environ := append([]string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Addr(), "AWS_LAMBDA_INITIALIZATION_TYPE=" + initType, "AWS_LAMBDA_FUNCTION_NAME=fn",
		"VAULT_ADDR=" + v.addr, "THAW_LISTEN=" + s.addr, "THAW_KV_MOUNTS=secret=2", "THAW_MEMCACHED_TIMEOUT=1s", "THAW_POLL_TIMEOUT=5s", "VAULT_LOG_LEVEL=DEBUG",
		"THAW_MAX_PROCS=" + strconv.Itoa(runtime.GOMAXPROCS(0)), // it is the whole test's
	}, settings...)
	go func() {
		s.ended <- run(s.ctx, []string{"/opt/extensions/thaw"}, environ, new(harness.Transcript), s.stderr)
	}()
	if err := s.x.AwaitReady(s.ctx); err != nil {
		t.Fatalf("%v\n%s", err, s.stderr)
	}
	return s
}

func (s *sandbox) invoke(id string) {
	s.t.Helper()
	harness.Must(s.t, s.x.Invoke(s.ctx, lambdaapi.Invocation{RequestID: id, Deadline: time.Now().Add(time.Minute)}))
	harness.Must(s.t, s.x.AwaitReady(s.ctx))
}

// end is SHUTDOWN; nothing runs afterwards.
func (s *sandbox) end() {
	s.t.Helper()
	harness.Must(s.t, s.x.Shutdown(s.ctx, "spindown", time.Now().Add(2*time.Second)))
	if status := <-s.ended; status != exitOK {
		s.t.Errorf("status %d:\n%s", status, s.stderr)
	}
}

// TestWhatAnInitAsksFor is the whole table: by the platform, whether there is a login of
// thaw's own, a shared cache, something to read ahead, and the setting. The function
// reads in its first invocation, or in none.
func TestWhatAnInitAsksFor(t *testing.T) {
	t.Parallel()
	const login, index, product, lookup, read = "login", "leader", "health", "lookup-self", "app"
	logins := []string{"approle", "token", "none"}
	for _, initType := range []string{lambdaapi.OnDemand, lambdaapi.Provisioned, lambdaapi.SnapStart, lambdaapi.Managed} {
		for _, by := range logins {
			for _, shared := range []string{"", "empty", "warm"} {
				for _, prefetch := range []bool{false, true} {
					for _, setting := range []string{"", "off"} {
						off := setting == "off"
						if by == "none" && (shared != "" || prefetch) {
							continue // without an identity of its own it reads nothing ahead
						}
						reach := map[string][]string{"approle": {login, index, product}, "token": {index, product, lookup}, "none": {index, product}}[by]
						miss := append(slices.Clone(reach), read) // a first read for which nothing was done ahead
						poll := []string{index}
						if shared == "" && off {
							poll = []string{index, read} // it was read before an index was known, unless a login took longer
						}
						inEpoch := initType == lambdaapi.Managed || initType == lambdaapi.SnapStart || off // as the first read
						var atInit, atInvoke, atRead, later []string
						switch {
						case shared == "warm":
							atRead, later = poll, poll
						case prefetch && inEpoch:
							atInit, later = miss, poll
						case prefetch:
							atInit, atRead, later = miss, poll, []string{index}
						case shared == "" && !off:
							atInit, atRead, later = reach, []string{read}, poll
						default:
							atRead, later = miss, poll
						}
						if initType == lambdaapi.SnapStart || off && initType != lambdaapi.Managed {
							atInit, atInvoke = nil, atInit
						}
						for _, reads := range []bool{false, true} {
							if by == "none" && reads {
								continue
							}
							name := fmt.Sprintf("%s, %s, shared %q, prefetch %v, THAW_INIT=%s, reads %v", initType, by, shared, prefetch, setting, reads)
							t.Run(name, func(t *testing.T) {
								t.Parallel()
								row{initType, by, shared, prefetch, setting, reads}.check(t, atInit, atInvoke, atRead, later)
							})
						}
					}
				}
			}
		}
	}
}

type row struct {
	initType, login, shared string
	prefetch                bool
	setting                 string
	reads                   bool
}

func (r row) check(t *testing.T, atInit, atInvoke, atRead, later []string) {
	v := newWatchedVault(t)
	settings := []string{"THAW_RECHECK=1m"} // nothing is verified once more for its age, however slow this host is
	switch r.login {
	case "approle":
		settings = append(settings, "THAW_AUTH_METHOD=approle", "THAW_ROLE_ID="+v.roleID, "THAW_SECRET_ID="+v.secretID)
	case "none":
		settings = append(settings, "THAW_AUTH_METHOD=none")
	case "token":
		settings = append(settings, "VAULT_TOKEN=planted-token")
	}
	if r.setting != "" {
		settings = append(settings, "THAW_INIT="+r.setting)
	}
	if r.shared != "" {
		m, err := memcache.Start(memcache.Options{})
		harness.Must(t, err)
		t.Cleanup(m.Close)
		settings = append(settings, "CACHE_ENABLE=true", "THAW_MEMCACHED="+m.Addr(), "THAW_MEMCACHED_TIMEOUT=2s", "THAW_CACHE_KEY=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	}
	if r.shared == "warm" {
		other := launch(t, v, lambdaapi.OnDemand, settings...)
		other.invoke("other")
		fetch(t, "http://"+other.addr+"/v1/secret/data/app")
		other.invoke("later") // what it learned is written by then
		fetch(t, "http://"+other.addr+"/v1/secret/data/app")
		other.end()
		harness.Eventually(t, 5*time.Second, "nothing of the other is on its way", func() bool { return v.conns.Load() == 0 })
		v.taken()
	}
	if r.prefetch {
		settings = append(settings, "THAW_PREFETCH=secret/data/app")
	}
	s := launch(t, v, r.initType, settings...)
	unsure := false // whether a secret is read once more, for its index came beside the login
	expect := func(when string, want []string) {
		t.Helper()
		want = slices.Sorted(slices.Values(want))
		quick := r.login == "approle" && slices.Equal(want, []string{"app", "leader"})
		if quick {
			want, unsure = want[1:], true
		}
		v.await(s.ctx, want)
		if got := v.taken(); !slices.Equal(got, want) && !(quick && slices.Equal(got, []string{"app", "leader"})) {
			t.Errorf("%s asked for %q, want %q", when, got, want)
		}
	}
	prepared := func() {
		harness.Eventually(t, 5*time.Second, "all is prepared", func() bool { return strings.Contains(s.stderr.String(), "prepared for the first read") })
	}
	if r.initType == lambdaapi.Managed || r.initType != lambdaapi.SnapStart && r.setting != "off" {
		prepared()
	}
	expect("the init", atInit)
	if r.initType != lambdaapi.Managed {
		s.invoke("one")
		prepared()
		expect("the first INVOKE", atInvoke)
	}
	if r.reads {
		fetch(t, "http://"+s.addr+"/v1/secret/data/app")
		expect("the first read", atRead)
	}
	if r.initType != lambdaapi.Managed {
		s.invoke("two")
		var poll []string
		if r.reads {
			poll = later
		}
		expect("the second INVOKE", poll)
	}
	s.end()
	if got := v.taken(); len(got) != 0 && !(unsure && slices.Equal(got, []string{"app"})) {
		t.Errorf("besides it asked for %q", got)
	}
	if v.early {
		t.Error("Vault was asked before Register")
	}
	if log := s.stderr.String(); strings.Contains(log, `"WARN"`) {
		t.Errorf("something went wrong:\n%s", log)
	}
}

// TestG6ASilentOrAbsentVaultDelaysNoInit: Next is outstanding while Vault has not said a
// word, and an origin that is away costs a line.
func TestG6ASilentOrAbsentVaultDelaysNoInit(t *testing.T) {
	t.Parallel()
	for _, prefetch := range []string{"", "THAW_PREFETCH=secret/data/app,secret/data/b"} {
		v := newWatchedVault(t)
		v.silence = make(chan struct{})
		settings := []string{"THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=" + v.roleID, "THAW_SECRET_ID=" + v.secretID}
		if prefetch != "" {
			settings = append(settings, prefetch)
		}
		s := launch(t, v, lambdaapi.OnDemand, settings...) // returns with Next
		v.await(s.ctx, []string{"login"})
		if got := v.taken(); !slices.Equal(got, []string{"login"}) {
			t.Errorf("asked for %q", got)
		}
		s.invoke("one")
		close(v.silence)
		if res, _ := fetch(t, "http://"+s.addr+"/v1/secret/data/app"); res.StatusCode != http.StatusOK {
			t.Errorf("the first read: %d\n%s", res.StatusCode, s.stderr)
		}
		s.end()

		v.addr = "http://" + harness.FreeAddr(t)
		s = launch(t, v, lambdaapi.OnDemand, append(settings, "VAULT_MAX_RETRIES=0")...)
		harness.Eventually(t, 10*time.Second, "the warning", func() bool { return strings.Contains(s.stderr.String(), `"WARN"`) })
		s.end()
		if n := strings.Count(s.stderr.String(), `"WARN"`); n != 1 || strings.Contains(s.stderr.String(), `"ERROR"`) {
			t.Errorf("%d warnings:\n%s", n, s.stderr)
		}
	}
}

// TestWhatWaitsWhenAnInvocationEndsIsLogged: path, how long, and for what.
func TestWhatWaitsWhenAnInvocationEndsIsLogged(t *testing.T) {
	t.Parallel()
	v := newWatchedVault(t)
	v.silence = make(chan struct{})
	s := launch(t, v, lambdaapi.OnDemand, "VAULT_TOKEN=planted-token", "THAW_INIT=off")
	s.invoke("one")
	ctx, leave := context.WithCancel(s.ctx)
	defer leave()
	var reads sync.WaitGroup
	for _, path := range []string{"secret/data/app", "sys/mounts"} {
		reads.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/v1/"+path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if res, err := http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
		})
	}
	v.await(s.ctx, []string{"app", "leader", "mounts"})
	harness.Pause(s.ctx, 5*time.Millisecond) // a shorter wait may be of the next invocation
	s.invoke("two")
	for _, path := range []string{"secret/data/app", "/v1/sys/mounts"} {
		if want := `"a request was still waiting when the next invocation began","path":"` + path + `","seconds":0.`; !strings.Contains(s.stderr.String(), want) {
			t.Errorf("no %s in\n%s", want, s.stderr)
		}
	}
	s.end()
	if want := `"a request was still waiting when the environment ends"`; strings.Count(s.stderr.String(), want) != 2 || strings.Count(s.stderr.String(), `"for":"Vault's answer"`) != 4 {
		t.Errorf("not two of %s:\n%s", want, s.stderr)
	}
	leave()
	reads.Wait()
}

// TestAFunctionThatReadsOnlyDuringItsInitCostsNothingAfterIt, and one that never reads its init's login alone.
func TestAFunctionThatReadsOnlyDuringItsInitCostsNothingAfterIt(t *testing.T) {
	t.Parallel()
	for _, reads := range []bool{true, false} {
		v := newWatchedVault(t)
		s := launch(t, v, lambdaapi.OnDemand, "THAW_AUTH_METHOD=approle", "THAW_ROLE_ID="+v.roleID, "THAW_SECRET_ID="+v.secretID)
		want := []string{"health", "leader", "login"}
		v.await(s.ctx, want)
		if reads {
			want = append([]string{"app"}, want...)
			fetch(t, "http://"+s.addr+"/v1/secret/data/app")
		}
		if got := v.taken(); !slices.Equal(got, want) {
			t.Errorf("reads %v: the init asked for %q, want %q", reads, got, want)
		}
		for i := range 20 {
			s.invoke(strconv.Itoa(i))
		}
		s.end()
		if got := v.taken(); len(got) > 0 {
			t.Errorf("reads %v: the invocations after it asked for %q", reads, got)
		}
	}
}
