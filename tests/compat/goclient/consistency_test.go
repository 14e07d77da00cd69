package goclient

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/thaw-project/thaw/extension/consistency"
	"github.com/thaw-project/thaw/tests/standin"
)

// meaning is what a list of states requires: each that no other covers.
func meaning(t *testing.T, raw []string) []string {
	t.Helper()
	var all []*api.WALState
	for _, r := range raw {
		s, err := api.ParseReplicationState(r, nil)
		must(t, err)
		all = append(all, s)
	}
	var out []string
	for _, s := range all {
		covered := slices.IndexFunc(all, func(o *api.WALState) bool {
			return o.ClusterID == s.ClusterID && o.LocalIndex >= s.LocalIndex && o.ReplicatedIndex >= s.ReplicatedIndex && *o != *s
		}) >= 0
		if text := fmt.Sprint(*s); !covered && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

// The oracle for the merge of states is the client's own function. It keeps
// up to two states; with those thaw requires the same.
func TestStatesAreMergedAsTheGoClientMergesThem(t *testing.T) {
	state := func() string {
		return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "v1:%s:%d:%d:", []string{"c", "c", "c", "d"}[rand.N(4)], rand.N(5), rand.N(5)))
	}
	compared := 0
	for range 20000 {
		var theirs, ours []string
		for range rand.N(5) + 1 {
			s := state()
			theirs, ours = api.MergeReplicationStates(theirs, s), consistency.Merge(ours, s)
			if len(theirs) > 2 {
				break // it forgets them with the next one, and thaw does not
			}
			if want, got := meaning(t, theirs), meaning(t, ours); !slices.Equal(got, want) {
				t.Fatalf("%v, the client has %v", got, want)
			}
			compared++
		}
	}
	if compared < 20000 {
		t.Errorf("%d comparisons", compared)
	}
}

// withStandby starts a cluster with a standby that lags, thaw before it, and
// gives a client of the standby itself and one of thaw.
func withStandby(t *testing.T, settings ...string) (cluster *standin.Cluster, direct, through *api.Client) {
	t.Helper()
	cluster = standin.NewCluster(standin.ClusterOptions{
		Origin: standin.New(standin.Options{}), Standbys: 1, Forwarding: true,
		Lag: func() time.Duration { return 200*time.Millisecond + rand.N(100*time.Millisecond) },
	})
	cluster.Serve()
	t.Cleanup(cluster.Close)
	thaw := serve(t, cluster.Standby(0).Addr(), append([]string{"VAULT_TOKEN=root"}, settings...)...)
	client := func(addr string) *api.Client {
		cfg := api.DefaultConfig()
		must(t, cfg.Error)
		cfg.Address, cfg.MaxRetries, cfg.MinRetryWait, cfg.MaxRetryWait = addr, 40, 20*time.Millisecond, 40*time.Millisecond
		c, err := api.NewClient(cfg)
		must(t, err)
		c.SetToken("root")
		return c
	}
	return cluster, client(cluster.Standby(0).Addr()), client(thaw)
}

// Each helper of the client does through thaw what it does directly.
func TestConsistencyHelpersWorkThroughThaw(t *testing.T) {
	cluster, direct, through := withStandby(t)
	for name, c := range map[string]*api.Client{"direct": direct, "through thaw": through} {
		read := func(c *api.Client, key string) (string, error) {
			s, err := c.Logical().ReadWithContext(t.Context(), "secret/data/"+key)
			if err != nil || s == nil {
				return "", err
			}
			return fmt.Sprint(s.Data["data"]), nil
		}
		write := func(c *api.Client, key, v string) {
			t.Helper()
			_, err := c.Logical().WriteWithContext(t.Context(), "secret/data/"+key, map[string]any{"data": map[string]any{"v": v}})
			must(t, err)
		}
		want := "map[v:" + name + "]"
		var state string
		write(c.WithResponseCallbacks(api.RecordState(&state)), "a", name)
		if _, err := api.ParseReplicationState(state, nil); err != nil {
			t.Fatalf("%s: RecordState got %q: %v", name, state, err)
		}
		if got, err := read(c, "a"); err != nil || got == want {
			t.Errorf("%s: an unguarded read gave %q, %v: the standby does not lag, so nothing is tested", name, got, err)
		}
		if got, err := read(c.WithRequestCallbacks(api.RequireState(state)), "a"); err != nil || got != want {
			t.Errorf("%s: RequireState: %q, %v", name, got, err)
		}
		write(c.WithResponseCallbacks(api.RecordState(&state)), "b", name)
		if got, err := read(c.WithRequestCallbacks(api.RequireState(state), api.ForwardInconsistent()), "b"); err != nil || got != want {
			t.Errorf("%s: ForwardInconsistent: %q, %v", name, got, err)
		}
		write(c, "c", name)
		if got, err := read(c.WithRequestCallbacks(api.ForwardAlways()), "c"); err != nil || got != want {
			t.Errorf("%s: ForwardAlways: %q, %v", name, got, err)
		}
		own, err := c.Clone()
		must(t, err)
		own.SetToken("root")
		own.SetReadYourWrites(true)
		for i := range 5 {
			key := fmt.Sprint("d", i)
			write(own, key, name)
			if got, err := read(own, key); err != nil || got != want {
				t.Errorf("%s: ReadYourWrites: %q, %v", name, got, err)
			}
		}
	}
	if c := cluster.Counts(); c["412"] == 0 || c["forwarded"] == 0 || c["old"] == 0 {
		t.Errorf("the cluster was not tried: %v", c)
	}
}

// What a node refuses for want of a state is the same 412 through thaw.
func TestAMissingStateIsTheSame412ThroughThaw(t *testing.T) {
	_, direct, through := withStandby(t, "THAW_ENFORCE_CONSISTENCY=always")
	var said []string
	for _, c := range []*api.Client{direct, through} {
		c.SetMaxRetries(0)
		var state string
		_, err := c.WithResponseCallbacks(api.RecordState(&state)).Logical().WriteWithContext(t.Context(), "secret/data/x", map[string]any{"data": map[string]any{"v": 1}})
		must(t, err)
		_, err = c.WithRequestCallbacks(api.RequireState(state)).Logical().ReadWithContext(t.Context(), "secret/data/x")
		var refused *api.ResponseError
		if !errors.As(err, &refused) || refused.StatusCode != http.StatusPreconditionFailed {
			t.Fatalf("got %v", err)
		}
		said = append(said, fmt.Sprint(refused.Errors))
		if _, err := c.Logical().ReadWithContext(t.Context(), "secret/data/x"); c == through && err == nil {
			t.Error("under always and fail, a read right after a write was answered")
		}
	}
	if said[0] != said[1] {
		t.Errorf("direct %s, through thaw %s", said[0], said[1])
	}
}
