package lambda

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

const app = "secret/data/app"

// gaps are how long nothing happens between an invocation and a rotation.
var gaps = []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second}

func TestG1TheNextInvocationSeesARotationAfterAnyGap(t *testing.T) {
	t.Parallel()
	e := start(t, setup{})
	e.put(app, "0")
	e.value("0", step{Read: app})
	for i, gap := range gaps {
		harness.Pause(t.Context(), gap)
		e.put(app, strconv.Itoa(i+1))
		e.value(strconv.Itoa(i+1), step{Read: app, ID: true})
	}
}

func TestAFunctionReadsDuringItsInit(t *testing.T) {
	t.Parallel()
	e := start(t, setup{settings: harness.Settings{"FUNCTION_INIT_READS": app, "VAULT_LOG_LEVEL": "DEBUG"}})
	e.put(app, "1")
	r := e.invoke()
	if len(r.Init) != 1 || r.Init[0].Value != "1" {
		t.Fatalf("the function's init read %+v", r.Init)
	}
	e.put(app, "2")
	e.value("2", step{Read: app, ID: true})
	e.prints(`"msg":"init"`)
}

func TestEachInvocationsLineCountsItsOwnReads(t *testing.T) {
	t.Parallel()
	e := start(t, setup{settings: harness.Settings{"VAULT_LOG_LEVEL": "DEBUG"}})
	e.put(app, "1")
	var ids []string
	for n := range 5 {
		reads := slices.Repeat([]step{{Read: app, ID: true}}, n+1)
		ids = append(ids, e.invoke(reads...).ID)
	}
	e.invoke()
	for n, id := range ids {
		hits, misses := n+1, 0
		if n == 0 {
			hits, misses = 0, 1
		}
		line := regexp.MustCompile(`"request_id":"` + id + `",.*"hits":(\d+),.*"misses":(\d+)`)
		harness.Eventually(t, 10*time.Second, "the line of invocation "+id, func() bool { return line.MatchString(e.out.String()) })
		if got := line.FindStringSubmatch(e.out.String()); got[1] != strconv.Itoa(hits) || got[2] != strconv.Itoa(misses) {
			t.Errorf("invocation %d made %d hits and %d misses; its line: %s", n, hits, misses, got[0])
		}
	}
}

// again checks that the next invocation runs in new processes and sees the value of now.
func (e *emulator) again(before result, extension int) {
	e.t.Helper()
	e.put(app, "2")
	after := e.value("2", step{Read: app, ID: true})
	if !after.Born.After(before.Born) {
		e.t.Errorf("the runtime of %v still runs", before.Born)
	}
	if pid := e.processes()["thaw"]; pid == extension || pid == 0 {
		e.t.Errorf("the extension is process %d, before it was %d", pid, extension)
	}
}

func TestAFunctionThatTimesOutStartsAnew(t *testing.T) {
	t.Parallel()
	e := start(t, setup{settings: harness.Settings{"AWS_LAMBDA_FUNCTION_TIMEOUT": "1"}})
	e.put(app, "1")
	first, old := e.value("1", step{Read: app}), e.processes()["thaw"]
	e.fails("Task timed out after 1.00 seconds", step{Read: app}, step{Hang: true})
	e.prints(`"msg":"shutdown","reason":"Timeout"`)
	e.again(first, old)
}

func TestAFunctionThatCrashesStartsAnew(t *testing.T) {
	t.Parallel()
	e := start(t, setup{})
	e.put(app, "1")
	first, old := e.value("1", step{Read: app}), e.processes()["thaw"]
	e.fails("Runtime.ExitError", step{Read: app}, step{Exit: true})
	e.prints(`"msg":"shutdown","reason"`)
	e.again(first, old)
}

func TestAnExtensionThatIsKilledStartsAnew(t *testing.T) {
	t.Parallel()
	e := start(t, setup{})
	e.put(app, "1")
	first, old := e.value("1", step{Read: app}), e.processes()["thaw"]
	harness.Must(t, syscall.Kill(old, syscall.SIGKILL))
	e.prints("Process extension-thaw-1 exited")
	if status, body, err := e.post(t.Context(), step{Read: app}); err != nil || status == http.StatusOK {
		t.Errorf("the invocation after it: status %d, %v: %s", status, err, body)
	}
	e.again(first, old)
}

func TestG1AFreezeHidesNoRotation(t *testing.T) {
	t.Parallel()
	e := start(t, setup{})
	e.put(app, "1")
	e.value("1", step{Read: app})
	for i, length := range []time.Duration{0, 100 * time.Millisecond, 1500 * time.Millisecond} {
		thaw, want := e.freeze(), "frozen "+strconv.Itoa(i)
		e.put(app, want)
		harness.Pause(t.Context(), length)
		thaw()
		e.value(want, step{Read: app, ID: true})
	}
}

func TestG6WrongSettingsFailTheInitAndSayWhy(t *testing.T) {
	t.Parallel()
	e := start(t, setup{settings: harness.Settings{"THAW_MAX_AGEE": "1s"}})
	if status, body, err := e.post(t.Context(), step{Read: app}); err != nil || status == http.StatusOK {
		t.Errorf("status %d, %v: %s", status, err, body)
	}
	e.prints(`"type":"Extension.ConfigInvalid"`)
	e.prints("did you mean THAW_MAX_AGE?")
	e.prints("Extension.InitError")
}

func TestTwoExtensionsShareTheInvocation(t *testing.T) {
	t.Parallel()
	e := start(t, setup{extensions: []string{"thaw", peerName}})
	for i := range 3 {
		want := strconv.Itoa(i)
		e.put(app, want)
		r := e.value(want, step{Read: app, ID: true})
		e.prints(`peer: read "` + want + `", status 200, for ` + r.ID)
	}
}

// Only SHUTDOWN is offered there, invocations run side by side, and nothing freezes: a rotation
// shows after THAW_RECHECK at the latest.
func TestManagedInstancesServeInvocationsAtOnce(t *testing.T) {
	t.Parallel()
	const atOnce, each = 4, 3 * time.Second
	e := start(t, setup{settings: harness.Settings{"AWS_LAMBDA_MAX_CONCURRENCY": strconv.Itoa(atOnce), "THAW_RECHECK": "100ms"}})
	e.put(app, "1")
	begun := time.Now()
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			status, body, err := e.post(t.Context(), step{Read: app, ID: true}, step{Sleep: each}, step{Read: app})
			for strings.Contains(string(body), "Runtime.Unavailable") { // not all workers have asked for an event yet
				harness.Pause(t.Context(), 10*time.Millisecond)
				status, body, err = e.post(t.Context(), step{Read: app, ID: true}, step{Sleep: each}, step{Read: app})
			}
			if err != nil || status != http.StatusOK || strings.Count(string(body), `"Value":"1"`) != 2 {
				t.Errorf("status %d, %v: %s", status, err, body)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begun); took > atOnce*each {
		t.Errorf("%d invocations of %v took %v: they wait for each other", atOnce, each, took)
	}
	e.put(app, "2")
	harness.Pause(t.Context(), 200*time.Millisecond)
	e.value("2", step{Read: app})
	harness.Must(t, e.cmd.Process.Signal(syscall.SIGTERM))
	e.prints(`"msg":"shutdown","reason":"spindown"`)
}

func TestShutdownRevokesTheLoginInTime(t *testing.T) {
	t.Parallel()
	e := start(t, setup{prepare: func(o *standin.Origin) harness.Settings {
		roleID, secretID := o.AddAppRole("reader", standin.AppRole{Policies: []string{"root"}})
		return harness.Settings{"VAULT_TOKEN": "", "THAW_AUTH_METHOD": "approle", "THAW_ROLE_ID": roleID, "THAW_SECRET_ID": secretID}
	}})
	e.put(app, "1")
	e.value("1", step{Read: app})
	harness.Must(t, e.cmd.Process.Signal(syscall.SIGTERM))
	harness.Eventually(t, 5*time.Second, "the login is revoked", func() bool {
		return e.origin.Counts()["POST /v1/auth/token/revoke-self"]+e.origin.Counts()["PUT /v1/auth/token/revoke-self"] == 1
	})
	e.prints(`"msg":"shutdown","reason":"SandboxTerminated"`)
}

func TestG1RotationsOfARealVault(t *testing.T) {
	t.Parallel()
	v := harness.Raft(t)
	e := start(t, setup{upstream: strings.TrimPrefix(v.Addr(), "http://"), token: v.RootToken()})
	for i := range 10 {
		e.put(app, strconv.Itoa(i))
		e.value(strconv.Itoa(i), step{Read: app, ID: true})
	}
}
