package vault

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

func answer200(header http.Header, status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// raftLeader is what Vault 1.21.0 answers on one raft node.
const raftLeader = `{"ha_enabled":true,"is_self":true,"active_time":"2026-01-09T00:11:46.439409062Z",` +
	`"leader_address":"http://127.0.0.1:8200","leader_cluster_address":"https://127.0.0.1:8201","performance_standby":false,` +
	`"performance_standby_last_remote_wal":0,"raft_committed_index":67,"raft_applied_index":66}`

func TestLeader(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		header http.Header
		status int
		body   string
		want   Leader
		kind   Kind
	}{
		"raft": {nil, 200, raftLeader, Leader{Status: 200, HAEnabled: true, IsSelf: true, ActiveTime: "2026-01-09T00:11:46.439409062Z",
			LeaderAddress: "http://127.0.0.1:8200", Committed: 67, Applied: 66}, ""},
		"no high availability": {nil, 200, `{"ha_enabled":false,"is_self":false,"active_time":"0001-01-01T00:00:00Z","leader_address":"","leader_cluster_address":""}`,
			Leader{Status: 200, ActiveTime: "0001-01-01T00:00:00Z"}, ""},
		"OpenBao leaves out what is empty": {nil, 200, `{"ha_enabled":true,"raft_committed_index":5,"raft_applied_index":5}`,
			Leader{Status: 200, HAEnabled: true, Committed: 5, Applied: 5}, ""},
		"sealed":          {nil, 503, `{"errors":["Vault is sealed"]}`, Leader{Status: 503}, ""},
		"quota":           {nil, 429, `{"errors":["request path \"sys/leader\": rate limit quota exceeded"]}`, Leader{Status: 429}, ""},
		"moved":           {http.Header{"Location": {"http://evil/"}}, 307, "", Leader{Status: 307}, ""},
		"from a cache":    {http.Header{"Age": {"0"}}, 200, `{"ha_enabled":false}`, Leader{Status: 200, Cached: true}, ""},
		"from X-Cache":    {http.Header{"X-Cache": {"Hit from cloudfront"}}, 200, `{"ha_enabled":false}`, Leader{Status: 200, Cached: true}, ""},
		"past a cache":    {http.Header{"X-Cache": {"MISS"}}, 200, `{"ha_enabled":false}`, Leader{Status: 200}, ""},
		"a login page":    {nil, 200, "<html>", Leader{}, Protocol},
		"as a page":       {http.Header{"Content-Type": {"text/html"}}, 200, `{"ha_enabled":true}`, Leader{}, Protocol},
		"of another type": {nil, 200, `{"ha_enabled":"true"}`, Leader{}, Protocol},
		"another object":  {nil, 200, `{"ok":true}`, Leader{}, Protocol},
		"not a number":    {nil, 200, `{"ha_enabled":true,"raft_committed_index":-1}`, Leader{}, Protocol},
		"very long":       {nil, 200, `{"ha_enabled":true,"x":"` + strings.Repeat("x", maxReply) + `"}`, Leader{}, Protocol},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newClock()
			c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, answer200(tt.header, tt.status, tt.body))}, MaxRetries: 3}, Now: cl.Now})
			got, err := c.Leader(t.Context())
			if tt.kind != "" {
				wantKind(t, err, tt.kind)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !got.SentAt.Equal(cl.Now()) || !got.ReceivedAt.Equal(cl.Now()) {
				t.Errorf("times %v, %v", got.SentAt, got.ReceivedAt)
			}
			got.SentAt, got.ReceivedAt = time.Time{}, time.Time{}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if c.Requests() != 1 {
				t.Errorf("%d requests", c.Requests())
			}
		})
	}
}

func TestQuestionsCarryNoTokenAndNoNamespace(t *testing.T) {
	t.Parallel()
	f := newNode(t)
	for auth, kept := range map[string]bool{"Bearer hvs.x": false, "bearer hvs.x": false, "Basic Z2F0ZTp3YXk=": true} {
		c := newClient(t, Options{Config: config.Config{Addrs: []string{f.addr + "/base"}, Headers: http.Header{
			"X-Vault-Token": {theToken}, "X-Vault-Namespace": {"team"}, "Authorization": {auth}, "X-Gateway": {"g"},
		}}})
		if _, err := c.Leader(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Health(t.Context()); err != nil {
			t.Fatal(err)
		}
		h := f.last(t).Header
		if h.Get("X-Vault-Token") != "" || h.Get("X-Vault-Namespace") != "" || (h.Get("Authorization") != "") != kept || h.Get("X-Gateway") != "g" {
			t.Errorf("%s: %v", auth, h)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	// Vault's statuses: https://developer.hashicorp.com/vault/api-docs/system/health
	for _, status := range []int{200, 429, 472, 473, 474, 501, 503, 530} {
		c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, answer200(nil, status,
			`{"initialized":true,"sealed":false,"standby":true,"performance_standby":true,"replication_performance_mode":"primary","replication_dr_mode":"secondary",`+
				`"server_time_utc":1767917506,"version":"1.21.0+ent","enterprise":true,"cluster_name":"n","cluster_id":"i"}`))}, MaxRetries: 3}})
		got, err := c.Health(t.Context())
		want := Health{Status: status, Initialized: true, Standby: true, PerformanceStandby: true, ReplicationPerformanceMode: "primary", ReplicationDRMode: "secondary",
			ServerTime: time.Unix(1767917506, 0), Version: "1.21.0+ent", Enterprise: true, ClusterName: "n", ClusterID: "i", edition: true}
		if err != nil || got != want {
			t.Errorf("%d: got %+v, %v", status, got, err)
		}
		if c.Requests() != 1 {
			t.Errorf("%d: %d requests", status, c.Requests())
		}
	}
	for status, body := range map[int]string{503: "<html>", 429: `{"errors":["rate limit quota exceeded"]}`, 404: healthJSON("c"), 200: "{"} {
		c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, answer200(nil, status, body))}}})
		h, err := c.Health(t.Context())
		wantKind(t, err, Protocol)
		if h.Status != status {
			t.Errorf("%d: %+v", status, h)
		}
	}
}

func TestWhichServerItIs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		fields                       string
		community, forwards, openbao bool
	}{
		{`"version":"1.21.0","enterprise":false`, true, true, false},
		{`"version":"1.21.0+ent","enterprise":true`, false, false, false},
		{`"version":"1.21.0+ent.hsm.fips1403","enterprise":true`, false, false, false},
		{`"version":"1.15.6"`, true, true, false},
		{`"version":"1.15.6+ent"`, false, false, false},
		{`"version":"2.0.0","enterprise":false`, true, true, false}, // a Vault that counts on
		{`"version":"","enterprise":false`, true, true, false},      // redacted
		{`"version":""`, false, false, false},
		{`"version":"(version unknown)"`, false, false, false},
		{`"version":"2.0.0"`, false, true, true},
		{`"version":"2.4.4"`, false, true, true},
		{`"version":"2.5.0-beta20251125"`, false, false, true},
		{`"version":"2.5.0"`, false, false, true},
		{`"version":"2.10.1"`, false, false, true},
		{`"version":"3.0.0"`, false, false, true},
	}
	for _, tt := range tests {
		c := newClient(t, Options{Config: config.Config{Addrs: []string{serve(t, answer200(nil, 200, `{"initialized":true,"sealed":false,`+tt.fields+`}`))}}})
		h, err := c.Health(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if h.Community() != tt.community || h.ForwardsReads() != tt.forwards || h.OpenBao != tt.openbao {
			t.Errorf("%s: community %v, forwards %v, OpenBao %v", tt.fields, h.Community(), h.ForwardsReads(), h.OpenBao)
		}
	}
	if (Health{}).Community() || (Health{}).ForwardsReads() {
		t.Error("nothing known is taken for something")
	}
	if h := (Health{Version: "1.21.0"}); !h.Community() || !h.ForwardsReads() {
		t.Error("a literal of the community edition is not one")
	}
}

func FuzzMajorMinor(f *testing.F) {
	for _, s := range []string{"1.21.0", "v2.5.0-beta1", "", ".", "1.", "99999999999999999999.1", "-1.2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if major, minor, ok := majorMinor(s); !ok && (major != 0 || minor != 0) {
			t.Errorf("%q: %d.%d %v", s, major, minor, ok)
		}
	})
}
