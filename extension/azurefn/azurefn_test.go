package azurefn

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/azure/handler"
	"github.com/thaw-project/thaw/tests/harness"
)

// runArgument makes the test binary a process that runs a Handler, with the
// port to serve and the child's arguments after it.
const runArgument = "azurefn-test-run"

func TestMain(m *testing.M) {
	switch {
	case handler.Ours(os.Args):
		os.Exit(handler.Main(os.Args))
	case len(os.Args) > 2 && os.Args[1] == runArgument:
		os.Exit(runHandler(os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

func runHandler(port string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	n, _ := strconv.Atoi(port)
	err := Run(ctx, Options{
		Port: n, Command: append([]string{os.Args[0], handler.Argument}, args...), Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr,
		StartTimeout: 2 * time.Second, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Invoked: func(time.Time) {},
		Functions: map[string]Function{"Warm": func(ctx context.Context, _ bool) []string {
			fmt.Println("warming")
			<-ctx.Done()
			return []string{"to be resumed"}
		}},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return ExitStatus(err)
}

// lines is a process's output as it comes.
type lines struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
	more chan struct{}   // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	close(l.more)
	l.more = make(chan struct{})
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until the output matches, and returns the first group.
func (l *lines) await(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	for {
		l.mu.Lock()
		text, more := l.text.String(), l.more
		l.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m[len(m)-1]
		}
		select {
		case <-more:
		case <-timer.C:
			t.Fatalf("no %q in:\n%s", pattern, text)
		}
	}
}

// process is a process that runs a Handler.
type process struct {
	cmd  *exec.Cmd
	out  *lines
	addr string
	done chan struct{}
}

// start starts one whose child behaves as args say.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	addr := harness.FreeAddr(t) // of no outgoing connection either
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{out: &lines{more: make(chan struct{})}, addr: addr, done: make(chan struct{})}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(exe, append([]string{runArgument, port}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = 2 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// status waits for the process's end.
func (p *process) status(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("it did not end:\n%s", p.out)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) get(t *testing.T, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(InvocationHeader, "1")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

// warm invokes the function of thaw's own, and returns the answer.
func (p *process) warm(ctx context.Context) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.addr+"/Warm", strings.NewReader("{}"))
	if err != nil {
		return err.Error()
	}
	req.Header.Set(InvocationHeader, "1")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return string(body)
}

// gone waits until a process is no more, not even as a zombie.
func gone(t *testing.T, pid string) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return
		}
		// A zombie of init's, where nobody reaps, is none of ours.
		if _, rest, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(rest, "Z 1 ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %s is still there: %s", pid, stat)
		}
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
	}
}

func TestThePortIsBoundOnlyWhenTheChildCanServe(t *testing.T) {
	t.Parallel()
	const slow = 400 * time.Millisecond // after which the child listens, at the earliest
	began := time.Now()
	p := start(t, "slow="+slow.String())
	for {
		if c, err := net.Dial("tcp", p.addr); err == nil {
			c.Close()
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("the port is not bound:\n%s", p.out)
		}
		<-time.After(5 * time.Millisecond)
	}
	if early := slow - time.Since(began); early > 0 {
		t.Errorf("the port was bound %v before the child listened", early)
	}
	p.out.await(t, "serving the Azure Functions host")
	if status, body := p.get(t, "/?size=3"); status != http.StatusOK || len(body) != 3 {
		t.Errorf("%d %q", status, body)
	}
}

func TestAChildThatDoesNotComeUpIsReportedWithItsLastOutput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		how, want string
		status    int
	}{
		{"exit=3", "ended with status 3 before it listened on the port in FUNCTIONS_CUSTOMHANDLER_PORT; its last output: cannot find module 'express'", 3},
		{"exit=0", "ended with status 0 after", 1},
		{"never", "did not listen on 127.0.0.1 at the port in FUNCTIONS_CUSTOMHANDLER_PORT within 2s; its last output: waiting for a database that is not there", 1},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Parallel()
			p := start(t, c.how)
			if got := p.status(t); got != c.status {
				t.Errorf("status %d, want %d", got, c.status)
			}
			if !strings.Contains(p.out.String(), c.want) {
				t.Errorf("no %q in:\n%s", c.want, p.out)
			}
			if conn, err := net.Dial("tcp", p.addr); err == nil {
				conn.Close()
				t.Error("the port is bound")
			}
		})
	}
}

func TestACommandThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	o := Options{Port: 1, Command: []string{"no-such-program"}, Stdout: io.Discard, Stderr: io.Discard}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no-such-program") || !strings.Contains(err.Error(), "host.json") || ExitStatus(err) != 1 {
		t.Error(err)
	}
	if err := Run(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), PortVariable) {
		t.Error(err)
	}
}

func TestTheChildsCrashEndsTheHandlerWithItsStatus(t *testing.T) {
	t.Parallel()
	p := start(t, "spawn")
	spawned := p.out.await(t, `spawned (\d+)`)
	p.out.await(t, "serving the Azure Functions host")
	p.get(t, "/crash?status=7")
	if got := p.status(t); got != 7 {
		t.Errorf("status %d", got)
	}
	p.out.await(t, "ended with status 7; its last output: (?s:.*)out of luck")
	gone(t, spawned)
}

func TestNothingOutlivesAHardKill(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.out.await(t, "serving the Azure Functions host")
	_, environ := p.get(t, "/environ")
	if !strings.Contains(environ, PortVariable+"=") || !strings.Contains(environ, LegacyPortVariable+"=") || strings.Contains(environ, p.addr[len("127.0.0.1:"):]) {
		t.Error("the child's port is not in both variables, or is ours")
	}
	child := childOf(t, p.cmd.Process.Pid)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, child)
}

// childOf is the one process that pid started, by whichever of its threads.
func childOf(t *testing.T, pid int) string {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []byte
	for _, f := range files {
		text, _ := os.ReadFile(f)
		all = append(all, text...)
	}
	children := strings.Fields(string(all))
	if len(children) != 1 {
		t.Fatalf("children of %d: %q", pid, children)
	}
	return children[0]
}

func TestSIGTERMIsForwardedAfterWhatIsInFlight(t *testing.T) {
	t.Parallel()
	p := start(t, "spawn")
	spawned := p.out.await(t, `spawned (\d+)`)
	p.out.await(t, "serving the Azure Functions host")
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+"/hold?for=700ms", nil)
	req.Header.Set(InvocationHeader, "1")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	if line, err := r.ReadString('\n'); line != "begun\n" {
		t.Fatal(line, err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); line != "done\n" {
		t.Errorf("what was in flight was cut off: %q %v", line, err)
	}
	if got := p.status(t); got != 0 {
		t.Errorf("status %d\n%s", got, p.out)
	}
	p.out.await(t, "handler got SIGTERM")
	gone(t, spawned)
}

// TestAChildThatIgnoresSIGTERMIsKilled, and a run of the warm-up does not wait for that:
// it ends with the drain, and the host gets its answer.
func TestAChildThatIgnoresSIGTERMIsKilled(t *testing.T) {
	t.Parallel()
	p := start(t, "stubborn")
	p.out.await(t, "serving the Azure Functions host")
	answer := make(chan string, 1)
	go func() { answer <- p.warm(t.Context()) }()
	p.out.await(t, "warming")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; !strings.Contains(got, "to be resumed") {
		t.Error(got)
	}
	if got := p.status(t); got != 0 {
		t.Errorf("status %d", got)
	}
	p.out.await(t, "is killed")
}

func TestTheKeyOfTheSharedCacheStaysOurs(t *testing.T) {
	t.Parallel()
	got := strings.Join(childEnviron([]string{"A=b", "THAW_CACHE_KEY=k", "THAW_WARM_AUDIENCES=k", PortVariable + "=1", "THAW_CACHE_KEYS=x"}, 2), " ")
	if got != "A=b THAW_CACHE_KEYS=x "+PortVariable+"=2 "+LegacyPortVariable+"=2" {
		t.Error(got)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var l tail
	for i := range 5000 {
		fmt.Fprintf(&l, "%d\n", i)
	}
	if s := l.String(); len(s) > tailSize || !strings.HasSuffix(s, "4998\n4999") {
		t.Error(s)
	}
	_, _ = l.Write([]byte(strings.Repeat("x", 3*tailSize)))
	if s := l.String(); s != strings.Repeat("x", tailSize) {
		t.Error(len(s))
	}
}
