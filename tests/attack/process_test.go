package attack

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// nobody is the user and group that a process runs as where these tests are
// root's.
const nobody = 65534

// asNobody is a command under that user.
func asNobody(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = []string{"PATH=" + harness.FromEnv().Path}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

// A process of the same user, the function's own code say, can read neither the
// memory nor the environment of thaw: it is not dumpable (prctl(2),
// PR_SET_DUMPABLE), so /proc/PID belongs to root and ptrace is refused.
func TestSameUserReadsNoMemoryOfTheProcess(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: needs Linux's /proc")
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can run a process as another user")
	}
	o := newSite(t)
	said := &lines{}
	cmd := asNobody(t.Context(), suite.binary, "proxy")
	cmd.Env = append(cmd.Env, "VLE_VAULT_ADDR="+o.count.Addr(), "VAULT_TOKEN="+o.token, "THAW_LISTEN=127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = said, said
	harness.Must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	harness.Eventually(t, patience, "thaw serves as nobody", func() bool { return said.serving() != "" })
	// What an ordinary process of that user gives away, to know that the peek works.
	open := asNobody(t.Context(), "sleep", "600")
	open.Env = append(open.Env, "MARK=planted")
	harness.Must(t, open.Start())
	t.Cleanup(func() { open.Process.Kill(); open.Wait() })
	peek := func(pid int, file string) (string, error) {
		out, err := asNobody(t.Context(), "head", "-c", "65536", fmt.Sprintf("/proc/%d/%s", pid, file)).CombinedOutput()
		return string(out), err
	}
	harness.Eventually(t, patience, "the other process's environment is read", func() bool {
		out, err := peek(open.Process.Pid, "environ")
		return err == nil && strings.Contains(out, "planted")
	})
	for _, file := range []string{"environ", "mem", "maps", "auxv", "stack", "fd/0"} {
		if out, err := peek(cmd.Process.Pid, file); err == nil || !strings.Contains(out, "denied") {
			t.Errorf("/proc/PID/%s is read by another process of its user: %v %.100q", file, err, out)
		}
	}
}

// A crash leaves no memory behind, wherever the kernel would put it.
func TestCrashLeavesNoCore(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: needs Linux's /proc")
	}
	o := newSite(t)
	dir := t.TempDir()
	said := &lines{}
	proc, err := harness.Start(harness.Command{Path: "sh", Args: []string{"-c", `ulimit -c unlimited 2>/dev/null; exec "$0" proxy`, suite.binary}, Dir: dir, Stdout: said, Stderr: said,
		Env: []string{"PATH=" + harness.FromEnv().Path, "VLE_VAULT_ADDR=" + o.count.Addr(), "VAULT_TOKEN=" + o.token, "THAW_LISTEN=127.0.0.1:0", "GOTRACEBACK=crash"}})
	harness.Must(t, err)
	t.Cleanup(proc.Kill)
	harness.Eventually(t, patience, "thaw serves", func() bool { return said.serving() != "" })
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", proc.PID()))
	if err == nil && !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0 ") {
		t.Errorf("core files are allowed:\n%s", limits)
	} else if err != nil && !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
	o.put("a", "planted-in-a-crash")
	p := &thaw{t: t, proc: proc, addr: said.serving()}
	if a := p.get(o.data("a")); a.value() != "planted-in-a-crash" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	harness.Must(t, proc.Signal(syscall.SIGABRT))
	select {
	case <-proc.Done():
	case <-time.After(patience):
		t.Fatal("SIGABRT did not end it")
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, s := range []string{o.token, "planted-in-a-crash"} {
		if strings.Contains(proc.Output(), s) {
			t.Errorf("the crash's text holds %q", s)
		}
	}
}

// The local token is compared in constant time. A clock cannot show that on a
// busy machine, so the source does: LocalToken meets no other comparison than
// whether there is one.
func TestLocalTokenIsComparedInConstantTime(t *testing.T) {
	t.Parallel()
	root, err := harness.Root()
	harness.Must(t, err)
	files, err := filepath.Glob(filepath.Join(root, "extension", "proxy", "*.go"))
	harness.Must(t, err)
	constant := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, 0)
		harness.Must(t, err)
		allowed := map[ast.Node]bool{}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "ConstantTimeCompare" {
					constant++
					ast.Inspect(n, func(in ast.Node) bool { allowed[in] = true; return true })
				}
			case *ast.BinaryExpr:
				if empty, ok := n.Y.(*ast.BasicLit); ok && empty.Value == `""` {
					allowed[n.X] = true
				}
			case *ast.SelectorExpr:
				if n.Sel.Name == "LocalToken" && !allowed[n] {
					t.Errorf("%s uses the local token otherwise", fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
	if constant != 1 {
		t.Errorf("%d comparisons in constant time, not 1", constant)
	}
}
