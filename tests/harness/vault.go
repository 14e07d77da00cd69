package harness

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// VaultConfig says how to run a Vault.
type VaultConfig struct {
	Binary   string    // from FindVault
	LogLevel string    // trace to error; default error
	Extra    string    // HCL that is added to the configuration; StartRaft only
	Patience int       // performance_multiplier: an election needs so many seconds of silence; default 1
	Env      []string  // added to its environment
	Log      io.Writer // also gets what Vault prints; nil: captured only
}

// Vault is one running Vault server on 127.0.0.1. Its methods may be called
// from several goroutines, those that change its state (Kill, Restart, ...)
// one at a time.
type Vault struct {
	cfg         VaultConfig
	dir         string // data, configuration and Vault's HOME; removed by Close
	args        []string
	addr        string // host:port
	nodeID      string // in the raft cluster
	apiAddr     string // what the node calls its own address; empty: Addr
	tls         string // HCL of the listener's certificate; empty: plain HTTP
	clusterAddr string // host:port; empty for dev
	rootToken   string
	unsealKey   string // empty for dev, which unseals itself
	client      *http.Client

	mu   sync.Mutex // guards proc
	proc *Process
}

// startTries bounds how often a start is repeated with new ports when another
// process was quicker to take them.
const startTries = 5

// StartDev starts `vault server -dev`: storage in memory, unsealed, KV v2 at
// secret/. ctx bounds the start only.
func StartDev(ctx context.Context, cfg VaultConfig) (*Vault, error) {
	return startVault(ctx, cfg, func(v *Vault, port int) error {
		v.rootToken = "root-" + randomName()
		v.args = []string{
			"server", "-dev", "-dev-no-store-token", "-dev-root-token-id=" + v.rootToken,
			"-dev-listen-address=" + v.addr, "-log-level=" + v.cfg.LogLevel,
		}
		return nil
	})
}

// StartRaft starts one node with integrated storage in a folder of its own,
// initialises and unseals it with one key, and waits until it is active. No
// engine is mounted besides Vault's defaults. Its api_addr is Addr. ctx bounds
// the start only.
func StartRaft(ctx context.Context, cfg VaultConfig) (*Vault, error) {
	v, err := startVault(ctx, cfg, func(v *Vault, port int) error {
		v.nodeID = "node1"
		return v.prepareRaft(port)
	})
	if err != nil {
		return nil, err
	}
	if err = v.initialise(ctx); err == nil {
		err = v.Unseal(ctx)
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// prepareRaft writes the configuration of a node with integrated storage.
func (v *Vault) prepareRaft(port int) error {
	v.clusterAddr = loopback(port + 1)
	data := filepath.Join(v.dir, "raft")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make Vault's data folder: %w", err)
	}
	config := filepath.Join(v.dir, "vault.hcl")
	v.args = []string{"server", "-config=" + config}
	return os.WriteFile(config, []byte(raftConfig(v, data)), 0o600)
}

// raftConfig is the server's configuration. With a performance_multiplier of 1 a node
// leads soon after its start; disable_mlock must be said with raft.
func raftConfig(v *Vault, data string) string {
	return fmt.Sprintf(`
storage "raft" {
  path = %q
  node_id = %q
  performance_multiplier = %d
}
listener "tcp" {
  address = %q
  cluster_address = %q
  %s
}
api_addr = %q
cluster_addr = "https://%s"
disable_mlock = true
ui = false
log_level = %q
%s
`, data, v.nodeID, cmp.Or(v.cfg.Patience, 1), v.addr, v.clusterAddr, cmp.Or(v.tls, "tls_disable = true"), cmp.Or(v.apiAddr, v.Addr()), v.clusterAddr, v.cfg.LogLevel, v.cfg.Extra)
}

// startVault makes the folder, takes ports, lets prepare fill in what kind of
// server it is, and starts it until it answers.
func startVault(ctx context.Context, cfg VaultConfig, prepare func(v *Vault, port int) error) (*Vault, error) {
	if cfg.LogLevel == "" {
		cfg.LogLevel = "error"
	}
	var last error
	for range startTries {
		port, err := freePorts(2)
		if err != nil {
			return nil, err
		}
		dir, err := os.MkdirTemp("", "thaw-vault-")
		if err != nil {
			return nil, fmt.Errorf("make Vault's folder: %w", err)
		}
		v := &Vault{cfg: cfg, dir: dir, addr: loopback(port), client: newClient()}
		if err := prepare(v, port); err != nil {
			v.Close()
			return nil, err
		}
		if last = v.start(ctx); last == nil {
			return v, nil
		}
		v.Close()
		if !errors.Is(last, errPortTaken) {
			break
		}
	}
	return nil, last
}

// errPortTaken says that another process was quicker to take a port.
var errPortTaken = errors.New("its port is taken")

// endedEarly says why a server ended before it answered.
func endedEarly(p *Process) error {
	if strings.Contains(strings.ToLower(p.Output()), "address already in use") {
		return errPortTaken
	}
	return fmt.Errorf("it ended: %w", p.Err())
}

// newClient returns a client with connections of its own, and without the
// proxy of the environment.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 16},
		Timeout:   30 * time.Second,
	}
}

// tlsClient is newClient for servers with certificates of ca.
func tlsClient(ca *CA) *http.Client {
	c := newClient()
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: ca.Pool()}
	return c
}

// listening is what Vault prints when it has bound its ports (command/server.go
// of hashicorp/vault v1.21.0).
const listening = "Vault server started!"

// start starts the process and waits until it answers anything at all.
func (v *Vault) start(ctx context.Context) error {
	proc, err := Start(Command{
		Path:   v.cfg.Binary,
		Args:   v.args,
		Dir:    v.dir,
		Env:    append([]string{"HOME=" + v.dir, "PATH=" + FromEnv().Path, "SKIP_SETCAP=1"}, v.cfg.Env...),
		Stdout: v.cfg.Log,
		Stderr: v.cfg.Log,
	})
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.proc = proc
	v.mu.Unlock()
	dev := v.clusterAddr == "" // unseals itself; the other kind answers as sealed, which will do
	answers := func() bool {
		if proc.ended() {
			return true
		}
		if !strings.Contains(proc.Output(), listening) {
			return false // what answers there until then is somebody else's
		}
		status, err := v.health(ctx)
		return err == nil && (!dev || status == http.StatusOK)
	}
	if err := poll(ctx, 20*time.Millisecond, answers); err != nil {
		return fmt.Errorf("wait for Vault at %s: %w\n%s", v.addr, err, proc.Tail(2000))
	}
	if proc.ended() {
		return fmt.Errorf("start Vault at %s: %w\n%s", v.addr, endedEarly(proc), proc.Tail(2000))
	}
	return nil
}

// health asks sys/health: 200 active, 429 standby, 501 not initialised, 503
// sealed (https://developer.hashicorp.com/vault/api-docs/system/health).
func (v *Vault) health(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := v.Do(ctx, Call{Method: http.MethodGet, Path: "sys/health"})
	if err != nil {
		return 0, err
	}
	return r.Status, nil
}

// initialise creates the one unseal key and the root token.
func (v *Vault) initialise(ctx context.Context) error {
	r, err := v.Do(ctx, Call{Method: http.MethodPut, Path: "sys/init", Body: map[string]int{"secret_shares": 1, "secret_threshold": 1}})
	if err == nil {
		err = r.Err()
	}
	var out struct {
		Keys      []string `json:"keys_base64"`
		RootToken string   `json:"root_token"`
	}
	if err == nil {
		err = r.JSON(&out)
	}
	if err == nil && len(out.Keys) != 1 {
		err = errors.New("no key in the answer")
	}
	if err != nil {
		return fmt.Errorf("initialise Vault: %w\n%s", err, v.Process().Tail(2000))
	}
	v.unsealKey, v.rootToken = out.Keys[0], out.RootToken
	return nil
}

// Addr is the address with scheme: http://127.0.0.1:port, or https for a node of
// a cluster with TLS.
func (v *Vault) Addr() string {
	if v.tls != "" {
		return "https://" + v.addr
	}
	return "http://" + v.addr
}

// ClusterAddr is host:port of the cluster listener; empty for dev.
func (v *Vault) ClusterAddr() string { return v.clusterAddr }

// RootToken is a token of the root policy.
func (v *Vault) RootToken() string { return v.rootToken }

// UnsealKey is the one key share; empty for dev.
func (v *Vault) UnsealKey() string { return v.unsealKey }

// Binary is the program that runs.
func (v *Vault) Binary() string { return v.cfg.Binary }

// Process is the server's process, the last one after a restart.
func (v *Vault) Process() *Process {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.proc
}

// Kill ends the server with SIGKILL and waits. Its port stays unused.
func (v *Vault) Kill() {
	if p := v.Process(); p != nil {
		p.Kill()
	}
	v.client.CloseIdleConnections()
}

// Stop ends the server with SIGTERM and waits.
func (v *Vault) Stop() {
	if p := v.Process(); p != nil {
		p.Stop(15 * time.Second)
	}
	v.client.CloseIdleConnections()
}

// Restart ends the server if it runs and starts it again on the same ports
// and with the same data, unsealed. A dev server has lost its data.
func (v *Vault) Restart(ctx context.Context) error {
	v.Kill()
	if err := v.StartSealed(ctx); err != nil {
		return err
	}
	return v.Unseal(ctx)
}

// StartSealed starts a server that was killed or stopped, and leaves it
// sealed. (A dev server unseals itself.)
func (v *Vault) StartSealed(ctx context.Context) error {
	var last error
	for range startTries {
		last = v.start(ctx)
		if last == nil {
			return nil
		}
		v.Kill()
		if !errors.Is(last, errPortTaken) {
			break
		}
	}
	return last
}

// Seal seals the server.
func (v *Vault) Seal(ctx context.Context) error {
	if _, err := v.Root(ctx, http.MethodPut, "sys/seal", nil); err != nil {
		return err
	}
	return v.waitHealth(ctx, http.StatusServiceUnavailable)
}

// Unseal unseals the server, if it has a key, and waits until it is active.
func (v *Vault) Unseal(ctx context.Context) error {
	if err := v.giveKey(ctx); err != nil {
		return err
	}
	return v.waitHealth(ctx, http.StatusOK)
}

// giveKey gives the server its unseal key, if it has one.
func (v *Vault) giveKey(ctx context.Context) error {
	if v.unsealKey != "" {
		r, err := v.Do(ctx, Call{Method: http.MethodPut, Path: "sys/unseal", Body: map[string]string{"key": v.unsealKey}})
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return fmt.Errorf("unseal Vault: %w", err)
		}
	}
	return nil
}

func (v *Vault) waitHealth(ctx context.Context, want int) error {
	is := func() bool { h, err := v.health(ctx); return err == nil && h == want }
	if err := poll(ctx, 20*time.Millisecond, is); err != nil {
		return fmt.Errorf("wait for sys/health %d at %s: %w\n%s", want, v.addr, err, v.Process().Tail(2000))
	}
	return nil
}

// Freeze stops the server with SIGSTOP: connections open, nothing answers.
func (v *Vault) Freeze(ctx context.Context) error { return v.Process().Freeze(ctx) }

// Thaw lets a frozen server go on.
func (v *Vault) Thaw() error { return v.Process().Thaw() }

// Close kills the server and removes its data.
func (v *Vault) Close() {
	v.Kill()
	_ = os.RemoveAll(v.dir)
}
