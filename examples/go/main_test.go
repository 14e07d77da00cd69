package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/lambdacontext"
)

// dev is thaw-dev with a file of secrets: see ../README.md.
type dev struct {
	t     *testing.T
	addr  string
	file  string
	lines *bufio.Scanner
}

func start(t *testing.T) *dev {
	t.Helper()
	d := &dev{t: t, file: filepath.Join(t.TempDir(), "secrets.json")}
	d.set("one")
	program, err := exec.LookPath("thaw-dev")
	if err != nil {
		t.Skipf("NOT TESTED: no thaw-dev: %v", err)
	}
	cmd := exec.Command(program, "-listen", "127.0.0.1:0", d.file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	d.lines = bufio.NewScanner(out)
	_, d.addr, _ = strings.Cut(d.line("VAULT_ADDR="), "VAULT_ADDR=")
	return d
}

// line waits for a line of thaw-dev that has a text.
func (d *dev) line(with string) string {
	d.t.Helper()
	for d.lines.Scan() {
		if strings.Contains(d.lines.Text(), with) {
			return d.lines.Text()
		}
	}
	d.t.Fatalf("thaw-dev ended before it printed %q", with)
	return ""
}

func (d *dev) set(password string) {
	d.t.Helper()
	text := fmt.Sprintf(`{"secret/data/app": {"user": "app", "password": %q}}`, password)
	if err := os.WriteFile(d.file, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dev) control(what string) {
	d.t.Helper()
	res, err := http.Post(d.addr+"/dev/"+what, "", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	res.Body.Close()
}

// invocation is the context of a new one.
func invocation(t *testing.T, id string) context.Context {
	return lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: id})
}

func TestTheNextInvocationSeesARotationAndAnOutageStopsNothing(t *testing.T) {
	d := start(t)
	f, err := newFunction(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	want := func(id string, length int) {
		t.Helper()
		if got, err := f.handle(invocation(t, id)); err != nil || got != (Answer{"app", length}) {
			t.Errorf("%s: %+v %v, want a password of %d", id, got, err, length)
		}
	}
	want("first", 3)
	d.set("longer")
	d.line("rotated")
	want("second", 6)
	d.control("down")
	want("third", 6)
}

func TestTheStatusIsShownWhereItIsSwitchedOn(t *testing.T) {
	d := start(t)
	f, err := newFunction(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	status := func() any {
		t.Helper()
		got, err := f.invoke(invocation(t, "an-id"), Event{Thaw: "status"})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := status(); got != (Answer{"app", 3}) {
		t.Errorf("switched off: %v", got)
	}
	t.Setenv("SHOW_THAW_STATUS", "true")
	if got, ok := status().(json.RawMessage); !ok || !strings.Contains(string(got), `"entries":1`) {
		t.Errorf("switched on: %s", got)
	}
}
