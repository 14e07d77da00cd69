package doctor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// put writes a secret.
func (s *site) put(mount, path string) {
	s.t.Helper()
	_, err := s.vault.Put(s.t.Context(), mount, path, map[string]any{"v": secret()})
	harness.Must(s.t, err)
}

// count is a proxy before the site's Vault that fails on demand.
func (s *site) count() *harness.Counter {
	return harness.Count(s.t, harness.CounterConfig{Origin: s.vault.Addr()})
}

// proxy starts a thaw and returns its address.
func (s *site) proxy() string {
	s.t.Helper()
	addr := harness.FreeAddr(s.t)
	p, err := harness.Start(harness.Command{Path: suite.thaw, Args: []string{"proxy"}, Env: []string{"VAULT_ADDR=" + s.vault.Addr(), "THAW_LISTEN=" + addr}})
	harness.Must(s.t, err)
	s.t.Cleanup(func() { p.Stop(5 * time.Second) })
	harness.AwaitListener(s.t, addr)
	return "http://" + addr
}

func networkFaults() []fault {
	return []fault{
		{name: "a name that does not exist", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=https://vault.thaw-doctor.invalid:8200"), nil // RFC 6761: never resolves
		}, check: "dns", what: "vault.thaw-doctor.invalid cannot be looked up", fix: "VPC", exit: 1},
		{name: "nothing listens", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=http://" + harness.FreeAddr(s.t)), nil
		}, check: "tcp", what: "refused", fix: "VAULT_ADDR", exit: 1},
		{name: "silence", plant: func(s *site) ([]string, []string) {
			c := s.count()
			c.Stall()
			return s.approle("VLE_VAULT_ADDR="+c.Addr(), "VAULT_CLIENT_TIMEOUT=1s"), nil
		}, check: "health", what: "VAULT_CLIENT_TIMEOUT of 1s is over", fix: "see why Vault takes connections and does not answer", exit: 1},
		{name: "an address with a path", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=" + s.vault.Addr() + "/ui"), nil
		}, check: "health", what: "not one of Vault's sys/health", fix: "leave /ui out of VLE_VAULT_ADDR", exit: 1},
		{name: "something that is not Vault", plant: func(s *site) ([]string, []string) {
			server := httptest.NewServer(http.NotFoundHandler())
			s.t.Cleanup(server.Close)
			return s.approle("VLE_VAULT_ADDR=" + server.URL), nil
		}, check: "health", what: "not one of Vault's sys/health", fix: "VLE_VAULT_ADDR names Vault", exit: 1},
		{name: "a node that is away among several", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_VAULT_ADDRS=" + s.vault.Addr() + ",http://" + harness.FreeAddr(s.t)), nil
		}, check: "tcp", level: "advice", what: "refused", fix: "that Vault runs", exit: 0},
	}
}

// healthOf is an answer of sys/health with some parts changed.
func healthOf(s *site, changes ...string) string {
	s.t.Helper()
	r, err := s.vault.Do(s.t.Context(), harness.Call{Method: http.MethodGet, Path: "sys/health"})
	harness.Must(s.t, err)
	body := string(r.Body)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(body, changes[i]) {
			s.t.Fatalf("no %s in %s", changes[i], body)
		}
		body = strings.Replace(body, changes[i], changes[i+1], 1)
	}
	return body
}

// node is the site's Vault behind a proxy that answers sys/health otherwise.
func (s *site) node(status int, changes ...string) string {
	s.t.Helper()
	c := s.count()
	c.Inject(harness.Fault{Path: "/v1/sys/health", Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: healthOf(s, changes...)})
	return c.Addr()
}

func nodeFaults() []fault {
	const enterprise = `"enterprise":true`
	clockOf := func(s *site, off time.Duration) string {
		r, err := s.vault.Do(s.t.Context(), harness.Call{Method: http.MethodGet, Path: "sys/health"})
		harness.Must(s.t, err)
		var h struct {
			ServerTime int64 `json:"server_time_utc"`
		}
		harness.Must(s.t, r.JSON(&h))
		return s.node(200, fmt.Sprintf(`"server_time_utc":%d`, h.ServerTime), fmt.Sprintf(`"server_time_utc":%d`, h.ServerTime+int64(off/time.Second)))
	}
	return []fault{
		{name: "a clock that is two minutes off", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=" + clockOf(s, -2*time.Minute)), nil
		}, check: "clock", level: "advice", what: "behind this host's", fix: "NTP", exit: 0},
		{name: "a clock that is an hour off, with AWS", plant: func(s *site) ([]string, []string) {
			a := newAWS(s, "us-east-1", nil)
			return a.env("VLE_VAULT_ADDR=" + clockOf(s, time.Hour+30*time.Second)), nil
		}, check: "clock", what: "its clock is 1h0m", fix: "NTP", exit: 1},
		{name: "a sealed Vault", plant: func(s *site) ([]string, []string) {
			v := harness.Raft(s.t)
			harness.Must(s.t, v.Seal(s.t.Context()))
			return s.approle("VLE_VAULT_ADDR=" + v.Addr()), nil
		}, check: "health", what: "Vault is sealed", fix: "vault operator unseal", exit: 1},
		{name: "a DR secondary", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_VAULT_ADDRS=" + s.vault.Addr() + "," + s.node(472)), nil
		}, check: "health", level: "advice", what: "disaster recovery secondary", fix: "primary's address", exit: 0},
		{name: "a standby that lost its active node", plant: func(s *site) ([]string, []string) {
			return s.approle("VLE_VAULT_ADDR=" + s.node(474, `"standby":false`, `"standby":true`)), nil
		}, check: "health", what: "has lost its active node", fix: "8201", exit: 1},
		{name: "two clusters", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_VAULT_ADDRS=" + s.vault.Addr() + "," + harness.Dev(s.t).Addr()), nil
		}, check: "nodes", what: "2 different clusters", fix: "one cluster only", exit: 1},
		{name: "nodes that disagree on performance standbys", plant: func(s *site) ([]string, []string) {
			ent := func(status int, more ...string) string {
				return s.node(status, append([]string{`"enterprise":false`, enterprise}, more...)...)
			}
			return s.approle("THAW_VAULT_ADDRS=" + ent(200) + "," + ent(473, `"performance_standby":false`, `"performance_standby":true`, `"standby":false`, `"standby":true`) + "," +
				ent(429, `"standby":false`, `"standby":true`)), nil
		}, check: "standbys", level: "advice", what: "disagree on performance standbys", fix: "disable_performance_standby", exit: 0},
	}
}
