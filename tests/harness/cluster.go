package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Cluster is several Vault nodes with integrated storage, one of them active.
type Cluster struct {
	Nodes  []*Vault
	Fronts []*Counter // one before each node, if asked for; the nodes call these their addresses
	CA     *CA        // nil without TLS
}

// ClusterConfig says what cluster to run.
type ClusterConfig struct {
	VaultConfig
	Nodes int
	TLS   bool // the nodes listen with certificates of CA for 127.0.0.1 and localhost
	Front bool // each node is reached through a Counter, which can cut it off; not with TLS
	// Fronts are addresses with scheme that the nodes call theirs: of what the test
	// put before each. Empty: their own.
	Fronts []string
}

// StartCluster starts the nodes, joins them to the first one and waits until
// every one is active or standby. ctx bounds the start only.
func StartCluster(ctx context.Context, cfg ClusterConfig) (*Cluster, error) {
	c := &Cluster{}
	err := c.start(ctx, cfg)
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, cfg ClusterConfig) (err error) {
	if cfg.TLS {
		if c.CA, err = NewCA(); err != nil {
			return err
		}
	}
	for i := range cfg.Nodes {
		v, err := c.startNode(ctx, cfg, i)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, v)
		if i == 0 {
			if err := errors.Join(v.initialise(ctx), v.Unseal(ctx)); err != nil {
				return err
			}
			if err := v.rootDo(ctx, http.MethodPost, "sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"}); err != nil {
				return err
			}
			continue
		}
		first := c.Nodes[0]
		v.unsealKey, v.rootToken = first.unsealKey, first.rootToken
		// https://developer.hashicorp.com/vault/api-docs/system/storage/raft#join-a-raft-cluster
		join := map[string]any{"leader_api_addr": first.Addr()}
		if c.CA != nil {
			join["leader_ca_cert"] = string(c.CA.PEM())
		}
		r, err := v.Do(ctx, Call{Method: http.MethodPost, Path: "sys/storage/raft/join", Body: join})
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return fmt.Errorf("join node %d: %w", i+1, err)
		}
		if err := c.Unseal(ctx, v); err != nil {
			return err
		}
	}
	return c.awaitVoters(ctx)
}

// awaitVoters waits until every node has a vote: a node that joined gets one
// when it has been healthy for a while, ten seconds by default, and a leader
// that dies before has no heir.
// https://developer.hashicorp.com/vault/api-docs/system/storage/raftautopilot
func (c *Cluster) awaitVoters(ctx context.Context) error {
	err := poll(ctx, 100*time.Millisecond, func() bool {
		r, err := c.Nodes[0].Root(ctx, http.MethodGet, "sys/storage/raft/configuration", nil)
		return err == nil && strings.Count(string(r.Body), `"voter":true`) == len(c.Nodes)
	})
	if err != nil {
		return fmt.Errorf("wait for every node's vote: %w", err)
	}
	return nil
}

func (c *Cluster) startNode(ctx context.Context, cfg ClusterConfig, i int) (*Vault, error) {
	var front *Counter
	if cfg.Front {
		var err error
		// It gets its origin when the node has a port.
		if front, err = StartCounter(CounterConfig{Origin: "http://127.0.0.1:1"}); err != nil {
			return nil, err
		}
		c.Fronts = append(c.Fronts, front)
	}
	return startVault(ctx, cfg.VaultConfig, func(v *Vault, port int) error {
		v.nodeID = fmt.Sprintf("node%d", i+1)
		if c.CA != nil {
			if err := v.certify(c.CA); err != nil {
				return err
			}
		}
		if cfg.Fronts != nil {
			v.apiAddr = cfg.Fronts[i]
		}
		if front != nil {
			v.apiAddr = front.Addr()
			if err := front.SetOrigin(v.Addr()); err != nil {
				return err
			}
		}
		return v.prepareRaft(port)
	})
}

// certify makes the node listen with a certificate of ca.
func (v *Vault) certify(ca *CA) error {
	leaf, err := ca.Leaf("127.0.0.1", "localhost")
	if err != nil {
		return err
	}
	cert, key, err := KeyPairPEM(leaf)
	if err != nil {
		return err
	}
	certFile, keyFile := filepath.Join(v.dir, "cert.pem"), filepath.Join(v.dir, "key.pem")
	if err := errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, key, 0o600)); err != nil {
		return fmt.Errorf("write the node's certificate: %w", err)
	}
	v.tls = fmt.Sprintf("tls_cert_file = %q\n  tls_key_file = %q", certFile, keyFile)
	v.client = tlsClient(ca)
	return nil
}

// Unseal unseals one node and waits until it is active or a standby that knows
// its leader.
func (c *Cluster) Unseal(ctx context.Context, v *Vault) error {
	if err := poll(ctx, 100*time.Millisecond, func() bool {
		if v.giveKey(ctx) != nil {
			return false
		}
		status, err := v.health(ctx)
		return err == nil && (status == http.StatusOK || status == http.StatusTooManyRequests)
	}); err != nil {
		return fmt.Errorf("unseal %s: %w\n%s", v.addr, err, v.Process().Tail(2000))
	}
	return nil
}

// Leader waits until one node is active and every other that runs is its
// standby, and returns it. A node that was stopped or killed counts for nothing.
func (c *Cluster) Leader(ctx context.Context) (*Vault, error) {
	var leader *Vault
	err := poll(ctx, 50*time.Millisecond, func() bool {
		leader = c.Active(ctx)
		return leader != nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for a leader: %w", err)
	}
	return leader, nil
}

// Active returns the node that says it is the leader and that the standbys that
// answer agree on; nil if there is none. A leader that was stopped can go on to
// call itself that for minutes (seen on Vault 1.21.0): who became it last is it.
func (c *Cluster) Active(ctx context.Context) *Vault {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	type said struct {
		self   bool
		leader string
		since  string
		ok     bool
	}
	all := make([]said, len(c.Nodes))
	var wg sync.WaitGroup
	for i, v := range c.Nodes {
		wg.Go(func() {
			r, err := v.Do(ctx, Call{Method: http.MethodGet, Path: "sys/leader"})
			if err != nil || r.Status != http.StatusOK {
				return
			}
			var body struct {
				IsSelf  bool   `json:"is_self"`
				Address string `json:"leader_address"`
				Since   string `json:"active_time"`
			}
			if json.Unmarshal(r.Body, &body) == nil {
				all[i] = said{body.IsSelf, body.Address, body.Since, true}
			}
		})
	}
	wg.Wait()
	var leader *Vault
	address, since := "", ""
	for i, s := range all {
		if s.ok && s.self && s.since > since {
			leader, address, since = c.Nodes[i], s.leader, s.since
		}
	}
	for _, s := range all {
		if s.ok && !s.self && s.leader != address {
			return nil
		}
	}
	return leader
}

// Addrs are the addresses for clients: the fronts', if there are any.
func (c *Cluster) Addrs() []string {
	var out []string
	for i, v := range c.Nodes {
		if c.Fronts != nil {
			out = append(out, c.Fronts[i].Addr())
		} else {
			out = append(out, v.Addr())
		}
	}
	return out
}

// Front returns the Counter before a node.
func (c *Cluster) Front(v *Vault) *Counter {
	for i, n := range c.Nodes {
		if n == v && c.Fronts != nil {
			return c.Fronts[i]
		}
	}
	return nil
}

// String lists the nodes' addresses.
func (c *Cluster) String() string { return strings.Join(c.Addrs(), ",") }

// Close kills every node and removes its data.
func (c *Cluster) Close() {
	for _, f := range c.Fronts {
		f.Close()
	}
	for _, v := range c.Nodes {
		_ = v.Thaw() // a stopped process is killed all the same, but reaped sooner
		v.Close()
	}
}

// Raft3 is StartCluster with three nodes for one test, with KV v2 at secret/
// and KV v1 at kv/.
func Raft3(t testing.TB, cfg ClusterConfig) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*startTimeout)
	defer cancel()
	cfg.Nodes, cfg.Binary = 3, VaultBin(t)
	c, err := StartCluster(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for i, v := range c.Nodes {
				t.Logf("node %d's output:\n%s", i+1, v.Process().Tail(3000))
			}
		}
	})
	v, err := c.Leader(ctx)
	if err == nil {
		err = errors.Join(v.EnableKV(ctx, "secret", 2), v.EnableKV(ctx, "kv", 1))
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}
