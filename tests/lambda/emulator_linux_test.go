package lambda

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// Addresses in a room.
const (
	emulatorAddr = "127.0.0.1:8080"
	originAddr   = "127.0.0.1:8300"
)

// setup is how an emulator starts.
type setup struct {
	settings   harness.Settings // added to the environment of all; where both have a variable, these win
	extensions []string         // by their file names; nil: the layer's
	upstream   string           // the origin's address on the host; empty: the stand-in
	token      string           // of the origin, for writes and in VAULT_TOKEN; empty: the stand-in's

	prepare func(*standin.Origin) harness.Settings // sets the stand-in up, and adds settings; nil: nothing
	cpu     bool                                   // all run on one processor
}

// emulator is AWS's emulator with the layer and a function, and the origin that they use.
type emulator struct {
	t      *testing.T
	room   *room
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the emulator has ended
	out    *output
	client *http.Client
	origin *standin.Origin // nil where upstream is set
	token  string          // the origin's root token
}

// start starts an emulator for one test. Under Managed Instances the init runs
// at once, else at the first invocation.
func start(t *testing.T, s setup) *emulator {
	t.Helper()
	if s.extensions == nil {
		s.extensions = []string{"thaw"}
	}
	if s.token == "" {
		s.token = "root"
	}
	room, err := enter(opt(t, s.extensions...))
	if errors.Is(err, errNoRoom) {
		t.Skipf("NOT TESTED UNDER AWS'S EMULATOR: %v", err)
	}
	harness.Must(t, err)
	t.Cleanup(room.leave)
	e := &emulator{t: t, room: room, ended: make(chan struct{}), out: new(output), token: s.token}
	e.client = &http.Client{Transport: &http.Transport{DialContext: room.dial}, Timeout: time.Minute}
	e.serveOrigin(s.upstream)
	settings := s.settings
	if s.prepare != nil {
		settings = settings.With(s.prepare(e.origin))
	}
	if s.cpu {
		harness.Must(t, room.oneProcessor())
	}
	e.cmd = exec.Command("/opt/aws-lambda-rie", "--runtime-interface-emulator-address", emulatorAddr, "/opt/"+functionName)
	e.cmd.Dir, e.cmd.Stdout, e.cmd.Stderr, e.cmd.WaitDelay = "/var/task", e.out, e.out, time.Second
	e.cmd.Env = harness.Settings{
		"PATH": "/usr/bin:/bin", "VAULT_ADDR": "http://" + originAddr, "VAULT_TOKEN": s.token,
		"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_LAMBDA_FUNCTION_TIMEOUT": "20",
		"AWS_REGION": "eu-central-1", "AWS_LAMBDA_FUNCTION_NAME": "reader",
	}.With(settings).List()
	// A PID namespace as well: when the emulator ends, so does all that it started.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	room.do(func() { err = e.cmd.Start() })
	harness.Must(t, err)
	go func() {
		defer close(e.ended)
		_ = e.cmd.Wait() // a test that ends kills it
	}()
	t.Cleanup(func() {
		_ = e.cmd.Process.Kill()
		<-e.ended
		if t.Failed() {
			t.Logf("the emulator's output:\n%s", e.out)
		}
	})
	harness.Eventually(t, 10*time.Second, "the emulator listens", func() bool {
		conn, err := room.dial(t.Context(), "tcp", emulatorAddr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return e
}

// serveOrigin makes the origin answer in the room.
func (e *emulator) serveOrigin(upstream string) {
	l, err := e.room.listen(originAddr)
	harness.Must(e.t, err)
	if upstream == "" {
		e.origin = standin.New(standin.Options{})
		server := &http.Server{Handler: e.origin}
		e.t.Cleanup(func() { server.Close() })
		go func() { _ = server.Serve(l) }() // until Close
		return
	}
	e.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go relay(conn, upstream)
		}
	}()
}

// relay carries bytes between a connection of the room and an address of the host.
func relay(in net.Conn, addr string) {
	defer in.Close()
	out, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		defer out.Close()
		_, _ = io.Copy(out, in) // ends when either side does
	}()
	_, _ = io.Copy(in, out)
}

// put writes a secret of the stand-in.
func (e *emulator) put(path, value string) {
	e.t.Helper()
	body := fmt.Sprintf(`{"data":{"v":%q}}`, value)
	req, err := http.NewRequest(http.MethodPost, "http://"+originAddr+"/v1/"+path, strings.NewReader(body))
	harness.Must(e.t, err)
	req.Header.Set("X-Vault-Token", e.token)
	resp, err := e.client.Do(req)
	harness.Must(e.t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		e.t.Fatalf("write %s: status %d", path, resp.StatusCode)
	}
}

// post invokes the function and returns what the emulator answers.
func (e *emulator) post(ctx context.Context, steps ...step) (status int, body []byte, err error) {
	steps = slices.Clone(steps)
	// The extensions are told the trace; the emulator does not tell the runtime.
	trace := fmt.Sprintf("Root=1-%08x-%024x;Parent=53995c3f42cd8ad8;Sampled=0", time.Now().Unix(), time.Now().UnixNano())
	for i := range steps {
		if steps[i].Trace == "own" {
			steps[i].Trace = trace
		}
	}
	event, err := json.Marshal(steps)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+emulatorAddr+"/2015-03-31/functions/function/invocations", bytes.NewReader(event))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Amzn-Trace-Id", trace)
	resp, err := e.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// invoke invokes the function, which must answer.
func (e *emulator) invoke(steps ...step) result {
	e.t.Helper()
	status, body, err := e.post(e.t.Context(), steps...)
	var r result
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil || status != http.StatusOK {
		e.t.Fatalf("invoke: status %d, %v: %s", status, err, body)
	}
	return r
}

// value invokes the function for one read, and checks what it got.
func (e *emulator) value(want string, s step) result {
	e.t.Helper()
	r := e.invoke(s)
	if got := r.Reads[0]; got.Status != http.StatusOK || got.Value != want {
		e.t.Fatalf("the function read %q, want %q: %+v", got.Value, want, got)
	}
	return r
}

// fails invokes the function, which must fail with text in the answer.
func (e *emulator) fails(text string, steps ...step) {
	e.t.Helper()
	status, body, err := e.post(e.t.Context(), steps...)
	if err != nil || !strings.Contains(string(body), text) {
		e.t.Fatalf("status %d, %v: %s; want %q", status, err, body, text)
	}
}

// processes returns what the emulator started and still runs, by the name of its file, as
// the host counts processes.
func (e *emulator) processes() map[string]int {
	e.t.Helper()
	out := map[string]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	harness.Must(e.t, err)
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		var pid, parent int
		var comm, state string
		// proc(5): pid (comm) state ppid; none of our files has a space in its name.
		if _, err := fmt.Sscan(string(text), &pid, &comm, &state, &parent); err == nil && parent == e.cmd.Process.Pid && state != "Z" {
			out[strings.Trim(comm, "()")] = pid
		}
	}
	return out
}

// freeze stops the function and the extensions, and then the emulator, as Lambda
// stops all that is in an environment; the returned function lets them run on.
func (e *emulator) freeze() (thaw func()) {
	e.t.Helper()
	all := []int{}
	for _, pid := range e.processes() {
		all = append(all, pid)
	}
	all = append(all, e.cmd.Process.Pid)
	for _, pid := range all {
		harness.Must(e.t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	return func() {
		e.t.Helper()
		for _, pid := range all {
			harness.Must(e.t, syscall.Kill(pid, syscall.SIGCONT))
		}
	}
}

// prints waits until the emulator or what it runs has printed text.
func (e *emulator) prints(text string) {
	e.t.Helper()
	harness.Eventually(e.t, 10*time.Second, fmt.Sprintf("the emulator's output has %q", text), func() bool {
		return strings.Contains(e.out.String(), text)
	})
}

// output collects what all processes print.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
