package lambda_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/lambda"
	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// TestMain is also a real extension: under the name of its symbolic link the
// test binary registers and loops, to be frozen and killed as a process.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == "thaw-loop" {
		os.Exit(loop(name))
	}
	os.Exit(m.Run())
}

func loop(name string) int {
	c, h := lambda.New(lambda.Options{API: os.Getenv("AWS_LAMBDA_RUNTIME_API"), Name: name}), newEpochs()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 2
	}
	// A proxy's read: wait for what is pending, then answer from this epoch.
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.Settled(r.Context())
			epoch, _ := h.seen()
			_, _ = io.WriteString(w, epoch)
		}))
	}()
	fmt.Println(l.Addr())
	if err := c.Register(context.Background(), lambda.Invoke, lambda.Shutdown); err != nil {
		return 3
	}
	if err := c.Run(context.Background(), h); err != nil {
		return 4
	}
	return 0
}

// realLoop starts it; out gets the address that it serves reads on.
func realLoop(t *testing.T, out io.Writer) *lambdaapi.Environment {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "thaw-loop")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	return lambdaapi.StartForTest(t, lambdaapi.Config{
		Binary: link,
		Stdout: out,
		Stderr: t.Output(),
		Env:    []string{"GORACE=atexit_sleep_ms=0"}, // else a race build takes a second to exit
	})
}

func TestLoopSurvivesAFreezeAnywhere(t *testing.T) {
	t.Parallel()
	e := realLoop(t, nil)
	for i := range 20 {
		if i%2 == 0 {
			if err := e.Freeze(); err != nil { // mid-Next
				t.Fatal(err)
			}
		}
		err := e.Invoke(t.Context(), func(context.Context, lambdaapi.Invocation) error {
			// The INVOKE may be in the socket, half parsed or taken; Next may be
			// on its way.
			if err := e.FreezeNow(); err != nil {
				return err
			}
			return e.Thaw()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// An INVOKE that arrives at a frozen process is taken after the thaw.
	if err := e.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := e.Extension().Invoke(t.Context(), lambdaapi.Invocation{RequestID: "r", Deadline: time.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if s := e.Extension().State(); s != lambdaapi.Running {
		t.Fatalf("a frozen extension is %s", s)
	}
	if err := e.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := e.Extension().AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Freeze(); err != nil {
		t.Fatal(err)
	}
	if exit, err := e.Shutdown("spindown"); err != nil || !exit.InTime || exit.Code != 0 {
		t.Errorf("shutdown of a frozen process: %v %+v", err, exit)
	}
}

func TestLoopLivesThroughTimeoutsAndReinits(t *testing.T) {
	t.Parallel()
	e := realLoop(t, nil)
	exit, err := e.Timeout(t.Context())
	if err != nil || !exit.InTime || exit.Code != 0 {
		t.Errorf("timeout: %v %+v", err, exit)
	}
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := e.Reinit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit, err := e.Shutdown("failure"); err != nil || exit.Code != 0 || exit.Took > time.Second {
		t.Errorf("shutdown: %v %+v", err, exit)
	}
}

// A real process, frozen before each invocation. The INVOKE goes to its socket
// and the function reads at once; in every other invocation both are there
// before the process runs again. The read must see the new invocation.
func TestG1ReadAfterAThawIsInTheNewEpoch(t *testing.T) {
	t.Parallel()
	out, in := io.Pipe()
	address := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		address <- strings.TrimSpace(line)
		_, _ = io.Copy(io.Discard, out) // ends with the pipe
	}()
	t.Cleanup(func() { _ = in.Close() })
	e := realLoop(t, in)
	url := "http://" + <-address
	read := func(want string) {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || string(got) != want {
			t.Fatalf("a read in invocation %s is in epoch %q (%v)", want, got, err)
		}
	}
	for i := range 100 {
		if err := e.Freeze(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			err := e.Invoke(t.Context(), func(_ context.Context, inv lambdaapi.Invocation) error {
				read(inv.RequestID)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		inv := lambdaapi.Invocation{RequestID: fmt.Sprint(i), Deadline: time.Now().Add(time.Minute)}
		if err := e.Extension().Invoke(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		if err := e.Thaw(); err != nil {
			t.Fatal(err)
		}
		read(inv.RequestID)
		if err := e.Extension().AwaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if exit, err := e.Shutdown("spindown"); err != nil || exit.Code != 0 || !exit.InTime {
		t.Errorf("shutdown: %v %+v", err, exit)
	}
}
