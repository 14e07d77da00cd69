package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// MemcachedConfig says how to run a memcached.
type MemcachedConfig struct {
	MemoryMB int      // for items; 0: 64
	CA       *CA      // not nil: TLS with a certificate of this authority for 127.0.0.1 and localhost
	Args     []string // further arguments
}

// Memcached is one memcached on 127.0.0.1. Those of its methods that change its
// state (Kill, Restart, ...) are called one at a time.
type Memcached struct {
	cfg  MemcachedConfig
	bin  string
	dir  string // certificate and key; empty without TLS
	port int

	mu   sync.Mutex // guards proc
	proc *Process
}

// FindMemcached returns the memcached binary, and installs Debian's package
// first if it is missing and we may. Errors wrap ErrMissing.
func FindMemcached(ctx context.Context) (string, error) {
	there := func() bool { return onPath("memcached") }
	if err := once(ctx, "memcached", there, func(ctx context.Context) error { return aptInstall(ctx, "memcached") }); err != nil {
		return "", fmt.Errorf("%w: memcached: %w", ErrMissing, err)
	}
	path, err := exec.LookPath("memcached")
	if err != nil {
		return "", fmt.Errorf("%w: memcached was installed and is not on the PATH", ErrMissing)
	}
	return path, nil
}

// StartMemcached starts one. Errors wrap ErrMissing where there is none, or
// none that speaks TLS if that is asked for.
func StartMemcached(ctx context.Context, cfg MemcachedConfig) (*Memcached, error) {
	bin, err := FindMemcached(ctx)
	if err != nil {
		return nil, err
	}
	m := &Memcached{cfg: cfg, bin: bin}
	if cfg.CA != nil {
		if err := m.certificate(ctx); err != nil {
			m.Close()
			return nil, err
		}
	}
	var last error
	for range startTries {
		if m.port, last = freePorts(1); last != nil {
			break
		}
		if last = m.start(ctx); last == nil || !errors.Is(last, errPortTaken) {
			break
		}
	}
	if last != nil {
		m.Close()
		return nil, last
	}
	return m, nil
}

// certificate writes the files that -o ssl_chain_cert and ssl_key name. A
// memcached built without TLS does not know the option
// (https://github.com/memcached/memcached/blob/master/doc/tls.txt).
func (m *Memcached) certificate(ctx context.Context) error {
	help, err := Run(ctx, Command{Path: m.bin, Args: []string{"-h"}})
	if err != nil {
		return err
	}
	if !strings.Contains(help.Output(), "ssl_chain_cert") {
		return fmt.Errorf("%w: this memcached was built without TLS", ErrMissing)
	}
	leaf, err := m.cfg.CA.Leaf("127.0.0.1", "localhost")
	if err != nil {
		return err
	}
	cert, key, err := KeyPairPEM(leaf)
	if err != nil {
		return err
	}
	if m.dir, err = os.MkdirTemp("", "thaw-memcached-"); err != nil {
		return fmt.Errorf("make memcached's folder: %w", err)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(m.dir, "cert.pem"), cert, 0o600),
		os.WriteFile(filepath.Join(m.dir, "key.pem"), key, 0o600),
		os.WriteFile(filepath.Join(m.dir, "ca.pem"), m.cfg.CA.PEM(), 0o600))
}

// start runs memcached on its port and waits until it answers.
func (m *Memcached) start(ctx context.Context) error {
	memory := m.cfg.MemoryMB
	if memory == 0 {
		memory = 64
	}
	args := []string{"-l", "127.0.0.1", "-p", strconv.Itoa(m.port), "-U", "0", "-t", "1", "-m", strconv.Itoa(memory)}
	if os.Getuid() == 0 {
		args = append(args, "-u", "root")
	}
	if m.dir != "" {
		args = append(args, "-Z", "-o", "ssl_chain_cert="+filepath.Join(m.dir, "cert.pem")+",ssl_key="+filepath.Join(m.dir, "key.pem"))
	}
	proc, err := Start(Command{Path: m.bin, Args: append(args, m.cfg.Args...)})
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.proc = proc
	m.mu.Unlock()
	answers := func() bool {
		if proc.ended() {
			return true
		}
		nc, err := net.DialTimeout("tcp", m.Addr(), time.Second)
		if err != nil {
			return false
		}
		nc.Close()
		return true
	}
	err = poll(ctx, 5*time.Millisecond, answers)
	if err == nil && proc.ended() {
		err = errors.New("it ended at once")
		if strings.Contains(proc.Output(), "Address already in use") {
			err = errPortTaken
		}
	}
	if err != nil {
		proc.Kill()
		return fmt.Errorf("start memcached at %s: %w\n%s", m.Addr(), err, proc.Tail(2000))
	}
	return nil
}

// Addr is host:port. It stays the same across restarts.
func (m *Memcached) Addr() string { return loopback(m.port) }

// CAFile is the authority's certificate in a file; empty without TLS.
func (m *Memcached) CAFile() string {
	if m.dir == "" {
		return ""
	}
	return filepath.Join(m.dir, "ca.pem")
}

// Process is the running child, or the last one.
func (m *Memcached) Process() *Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc
}

// Kill ends it with SIGKILL. What it held is gone.
func (m *Memcached) Kill() { m.Process().Kill() }

// Restart starts it again, empty, at the same address.
func (m *Memcached) Restart(ctx context.Context) error {
	m.Kill()
	return m.start(ctx)
}

// Freeze stops it with SIGSTOP: its port still takes connections, and nothing
// answers.
func (m *Memcached) Freeze(ctx context.Context) error { return m.Process().Freeze(ctx) }

// Thaw lets it go on.
func (m *Memcached) Thaw() error { return m.Process().Signal(syscall.SIGCONT) }

// Flush drops every item.
func (m *Memcached) Flush(ctx context.Context) error {
	answer, err := m.Ask(ctx, "flush_all", "OK")
	if err == nil && answer[0] != "OK" {
		err = fmt.Errorf("flush memcached: %q", answer)
	}
	return err
}

// Stats returns the general statistics, such as cmd_get and evictions.
func (m *Memcached) Stats(ctx context.Context) (map[string]string, error) {
	lines, err := m.Ask(ctx, "stats", "END")
	stats := map[string]string{}
	for _, line := range lines {
		if f := strings.SplitN(line, " ", 3); len(f) == 3 && f[0] == "STAT" {
			stats[f[1]] = f[2]
		}
	}
	return stats, err
}

// Keys returns the name of every item.
func (m *Memcached) Keys(ctx context.Context) ([]string, error) {
	const dump = "lru_crawler metadump all"
	lines, err := m.Ask(ctx, dump, "END")
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		lines, err = m.Ask(ctx, dump, "END")
	}
	var keys []string
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "key="); ok {
			name, _, _ := strings.Cut(rest, " ")
			keys = append(keys, name)
		}
	}
	return keys, err
}

// askTime bounds an answer: memcached 1.6 sometimes never ends a metadump while its
// crawler runs.
const askTime = 10 * time.Second

// Ask sends one command and returns the lines of the answer up to and with the
// line end, or an error line. Without TLS only.
func (m *Memcached) Ask(ctx context.Context, command, end string) ([]string, error) {
	if m.dir != "" {
		return nil, errors.New("ask memcached: not with TLS")
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", m.Addr())
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	deadline := time.Now().Add(askTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = nc.SetDeadline(deadline)
	if _, err := fmt.Fprintf(nc, "%s\r\n", command); err != nil {
		return nil, err
	}
	var lines []string
	s := bufio.NewScanner(nc)
	s.Buffer(nil, 2<<20)
	for s.Scan() {
		lines = append(lines, s.Text())
		if t := s.Text(); t == end || t == "ERROR" || strings.HasPrefix(t, "SERVER_ERROR") || strings.HasPrefix(t, "CLIENT_ERROR") {
			return lines, nil
		}
	}
	return lines, fmt.Errorf("ask memcached %q: the answer has no end: %w", command, s.Err())
}

// Close kills it and removes its files.
func (m *Memcached) Close() {
	if p := m.Process(); p != nil {
		p.Kill()
	}
	if m.dir != "" {
		_ = os.RemoveAll(m.dir)
	}
}

// Memcache is StartMemcached for one test. Where CI=true its absence fails the
// test, else it skips.
func Memcache(t testing.TB, cfg MemcachedConfig) *Memcached {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	m, err := StartMemcached(ctx, cfg)
	if err != nil {
		Missing(t, err)
	}
	t.Cleanup(m.Close)
	return m
}
