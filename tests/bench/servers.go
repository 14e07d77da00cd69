package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// binaries are what is measured, all built with the flags of a release.
type binaries struct {
	dir                 string
	thaw, bare, nothing string
}

// build builds them into a folder that the caller removes. thaw may be given.
func build(ctx context.Context, thaw string) (b binaries, err error) {
	if b.dir, err = os.MkdirTemp("", "thaw-bench-"); err != nil {
		return b, err
	}
	goBuild := func(name, pkg string, tags ...string) string {
		out := filepath.Join(b.dir, name)
		err = errors.Join(err, harness.Build(ctx, out, pkg, tags...))
		return out
	}
	b.bare, b.nothing = goBuild("bare", "./tests/bench/bare"), goBuild("nothing", "./tests/bench/nothing")
	if thaw == "" {
		b.thaw = goBuild("thaw", "./extension", "layer")
		return b, err
	}
	abs, absErr := filepath.Abs(thaw)
	b.thaw = abs
	return b, errors.Join(err, absErr)
}

// server is a process that answers HTTP.
type server struct {
	name    string
	note    string
	address string // host:port
	header  string // lines that its requests need, each with its CRLF
	pid     int
	stop    func()
	client  *http.Client // of the azure part
}

// freeAddress is an address that was free a moment ago: callers try again
// where another process is quicker.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// startServer starts a command that serves at an address of our choice.
func startServer(ctx context.Context, name string, command func(address string) harness.Command) (*server, error) {
	var last error
	for range 3 {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		p, err := harness.Start(command(address))
		if err != nil {
			return nil, err
		}
		if last = listening(ctx, p, address); last == nil {
			return &server{name: name, address: address, pid: p.PID(), stop: func() { p.Stop(5 * time.Second) }}, nil
		}
		p.Kill()
		last = fmt.Errorf("start %s: %w\n%s", name, last, p.Tail(2000))
		if !strings.Contains(p.Output(), "address already in use") {
			break
		}
	}
	return nil, last
}

func listening(ctx context.Context, p *harness.Process, address string) error {
	return until(ctx, 20*time.Second, func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("it ended: %w", p.Err())
		default:
		}
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil, nil
	})
}

// until asks ok every few milliseconds.
func until(ctx context.Context, patience time.Duration, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %v in vain", patience))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes, err := ok(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// startBare serves body by net/http alone.
func startBare(ctx context.Context, b binaries, body []byte) (*server, error) {
	// As many processors as thaw has in Lambda, or another number of threads is measured.
	p, err := harness.Start(harness.Command{Path: b.bare, Stdin: strings.NewReader(string(body)), Env: []string{"GOMAXPROCS=1"}})
	if err != nil {
		return nil, err
	}
	s := &server{name: "bare net/http handler", note: "same body, nothing else", pid: p.PID(), stop: func() { p.Kill() }}
	err = until(ctx, 10*time.Second, func() (bool, error) {
		line, _, whole := strings.Cut(p.Stdout(), "\n")
		s.address = line
		return whole, nil
	})
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("start the bare server: %w\n%s", err, p.Tail(2000))
	}
	return s, nil
}

// startThawProxy runs `thaw proxy`.
func startThawProxy(ctx context.Context, b binaries, o *origin) (*server, error) {
	s, err := startServer(ctx, "thaw proxy", func(address string) harness.Command {
		return harness.Command{Path: b.thaw, Args: []string{"proxy"}, Env: append(o.env(), "THAW_LISTEN="+address, "THAW_MAX_PROCS=1")}
	})
	if err == nil {
		s.note = "outside Lambda; verifies once a second beside the reads"
	}
	return s, err
}

// startVaultProxy runs `vault proxy` as a user of the community edition can.
// https://developer.hashicorp.com/vault/docs/agent-and-proxy/proxy
func startVaultProxy(ctx context.Context, binary string, b binaries, o *origin) (*server, error) {
	roleFile, secretFile := filepath.Join(b.dir, "role_id"), filepath.Join(b.dir, "secret_id")
	if err := errors.Join(os.WriteFile(roleFile, []byte(o.roleID), 0o600), os.WriteFile(secretFile, []byte(o.secretID), 0o600)); err != nil {
		return nil, err
	}
	config := filepath.Join(b.dir, "proxy.hcl")
	var failed error
	s, err := startServer(ctx, "vault proxy", func(address string) harness.Command {
		failed = os.WriteFile(config, fmt.Appendf(nil, `
vault { address = %q }
auto_auth {
  method "approle" {
    config = { role_id_file_path = %q, secret_id_file_path = %q, remove_secret_id_file_after_reading = false }
  }
}
api_proxy { use_auto_auth_token = true }
cache {}
listener "tcp" { 
  address = %q
  tls_disable = true
}
`, o.addr, roleFile, secretFile, address), 0o600)
		return harness.Command{Path: binary, Args: []string{"proxy", "-config=" + config, "-log-level=error"}, Env: []string{"HOME=" + b.dir, "SKIP_SETCAP=1", "GOMAXPROCS=1"}}
	})
	if err == nil {
		s.note = "cache {} and use_auto_auth_token; its static secret caching is Enterprise only, so each read goes to Vault (whose own CPU is not counted)"
	}
	return s, errors.Join(failed, err)
}

// startExtension runs a binary under the stand-in for Lambda.
func startExtension(ctx context.Context, binary string, env ...string) (*lambdaapi.Environment, string, error) {
	return startWithFunction(ctx, binary, nil, env...)
}

// startWithFunction has a function that does something at its own init.
func startWithFunction(ctx context.Context, binary string, init func(context.Context) error, env ...string) (*lambdaapi.Environment, string, error) {
	var last error
	for range 3 {
		address, err := freeAddress()
		if err != nil {
			return nil, "", err
		}
		log := &strings.Builder{}
		e, err := lambdaapi.Start(ctx, lambdaapi.Config{
			Binary: binary, Env: append([]string{"THAW_LISTEN=" + address, "LISTEN=" + address}, env...),
			Init: init, Timeout: 5 * time.Minute, Stderr: log, // read only after the process has ended
		})
		if err == nil {
			return e, address, nil
		}
		if e != nil {
			e.Close()
		}
		last = fmt.Errorf("start %s: %w\n%s", filepath.Base(binary), err, log)
		if !strings.Contains(log.String(), "address already in use") {
			break
		}
	}
	return nil, "", last
}
