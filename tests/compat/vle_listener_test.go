package compat

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// exclusively takes the machine's default port for one test, among the test
// processes that run now.
func exclusively(t *testing.T) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "thaw-test-8200.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	harness.Must(t, err)
	t.Cleanup(func() { lock.Close() }) // closing drops the lock
	harness.Must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	for _, addr := range []string{"127.0.0.1:8200", "[::1]:8200"} {
		l, err := net.Listen("tcp", addr)
		switch {
		case err == nil:
			l.Close()
		case addr[0] == '1':
			t.Skipf("NOT TESTED: %s is taken by something else on this machine: %v", addr, err)
		}
	}
}

func TestListenerDefaultsTo127_0_0_1_8200AndIPv6Loopback(t *testing.T) {
	t.Parallel()
	exclusively(t)
	o := shared(t)
	o.put("a", "1")
	p := o.start("THAW_LISTEN=")
	want := []string{"127.0.0.1:8200"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		want = append(want, "[::1]:8200")
	}
	if len(p.addrs) != len(want) {
		t.Fatalf("serves on %v, not %v", p.addrs, want)
	}
	for i, addr := range want {
		if p.addrs[i] != addr {
			t.Errorf("serves on %v, not %v", p.addrs, want)
		}
		p.base = "http://" + addr
		p.get(o.data("a")).is("1")
	}
}

// #40, #89: two things on one address.
func TestVLEIssue40And89_AddressCollisionNamesTheAddressAndTheRemedy(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	t.Cleanup(func() { l.Close() })
	t.Run("run by hand", func(t *testing.T) {
		t.Parallel()
		p := launch(t, nil, "VLE_VAULT_ADDR="+nowhere, "THAW_LISTEN="+l.Addr().String())
		if code := exitCode(t, p.proc); code != 1 {
			t.Errorf("exit code %d, not 1", code)
		}
		contains(t, p.proc.Output(), l.Addr().String(), "address already in use", "THAW_LISTEN")
	})
	t.Run("in Lambda", func(t *testing.T) {
		t.Parallel()
		report := initFails(t, "VLE_VAULT_ADDR="+nowhere, "THAW_LISTEN="+l.Addr().String())
		if report.Type != "Extension.ListenFailed" {
			t.Errorf("type %s", report.Type)
		}
		contains(t, report.Message, l.Addr().String(), "address already in use", "THAW_LISTEN")
	})
}

// socket is a path for a socket, which has at most 107 bytes.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "thaw-sock-")
	harness.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func TestTHAW_LISTEN_UnixSocketServesItsOwnerOnly(t *testing.T) {
	t.Parallel()
	o := shared(t)
	o.put("a", "1")
	sock := socket(t)
	p := o.start("THAW_LISTEN=unix://" + sock)
	info, err := os.Stat(sock)
	harness.Must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	p.base, p.client = "http://localhost", unixClient(t, sock)
	p.get(o.data("a")).is("1")
	p.get(o.data("a")).is("1").hit()
}

func TestVLEIssue44And51And153_RunsAndExplainsItselfLocally(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"version", []string{"version"}, 0, []string{"thaw "}},
		{"help", []string{"help"}, 0, []string{"thaw proxy [-config F]", "VAULT_ADDR"}},
		{"no Lambda and no command", nil, 2, []string{"in AWS Lambda: the extension", "thaw proxy"}},
		{"a typo", []string{"prxy"}, 2, []string{`unknown command "prxy"`, "thaw proxy"}},
		{"no address", []string{"proxy"}, 2, []string{"VAULT_ADDR"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			proc, err := harness.Start(harness.Command{Path: suite.binary, Args: c.args, Env: []string{"HOME=" + t.TempDir()}})
			harness.Must(t, err)
			if code := exitCode(t, proc); code != c.code {
				t.Errorf("exit code %d, not %d", code, c.code)
			}
			contains(t, proc.Output(), c.says...)
		})
	}
	t.Run("SIGTERM ends it", func(t *testing.T) {
		t.Parallel()
		p := shared(t).start()
		if !p.proc.Stop(patience) || p.proc.ExitCode() != 0 {
			t.Errorf("exit code %d", p.proc.ExitCode())
		}
	})
}
