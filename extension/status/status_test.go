package status

import (
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/memcached"
	"github.com/thaw-project/thaw/extension/vault"
)

// TestTheTableTellsWhatAnOperatorAsks: of a thaw in trouble, and of one that is
// well no more than that.
func TestTheTableTellsWhatAnOperatorAsks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	until := now.Add(23 * time.Hour)
	ill := Report{
		Version: "v1", Uptime: 3600, Listeners: []string{"127.0.0.1:8200"}, Time: now, Origin: vault.Status{Leader: "https://a:8200"},
		Answers:   Answers{Codes: map[int]uint64{200: 7, 403: 2}, Foreign: 3, Silent: 90},
		Token:     Token{Method: "aws", State: "refused", Refused: 3, Left: 3540},
		Freshness: Freshness{Rule: "at the next invocation", Verified: ago(2 * time.Minute), Stale: 4, Since: ago(time.Hour), Until: &until},
		Cache:     Cache{Capabilities: 5, Confirmed: 60},
		Waiting:   Waiting{Requests: 2, Fills: 1, Places: 64, Limit: 64, Poll: true, Slowest: 1.5},
		Memcached: []memcached.NodeState{{Address: "m:11211", Out: true}},
		Errors:    []Trouble{{At: now.Add(-time.Second), What: "Vault refuses secret/data/x", Count: 9}},
	}
	well := Report{
		Version: "v1", Time: now, Origin: vault.Status{Nodes: []vault.NodeStatus{{LastSeen: ago(0)}}}, Answers: Answers{Silent: -1}, Token: Token{Method: "aws", State: "held", Refused: -1, Left: 60}, Cache: Cache{Confirmed: -1},
	}
	table := func(r Report) string {
		var b strings.Builder
		r.Write(&b)
		return b.String()
	}
	got := table(ill)
	for _, want := range []string{
		"v1, up 1h0m0s", "127.0.0.1:8200", "https://a:8200", "does not answer, for 1m30s; 7 x 200; 2 x 403; 3 not Vault's", "aws, refused by Vault 3s ago",
		"at the next invocation", "2m0s ago", "4 entries, since 2026-11-28T11:00:00Z; served until 2026-11-29T11:00:00Z",
		"5, the oldest of thaw's own confirmed 1m0s ago", "2 requests, 1 reads of Vault, 64 of 64 places in use; slowest read 1.500s; a poll runs",
		"m:11211, out: not asked for now", "Vault refuses secret/data/x, 9 times, 1s ago",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "ends in") {
		t.Errorf("a refused token is told to last:\n%s", got)
	}
	got = table(well)
	for _, no := range []string{"Stale", "refused", "memcached", "Error ", "does not answer", "a poll runs", "Capabilities"} {
		if strings.Contains(got, no) {
			t.Errorf("%q in\n%s", no, got)
		}
	}
	if !strings.Contains(got, "aws, held, ends in 1m0s") {
		t.Errorf("%s", got)
	}
	for name, seen := range map[string]*time.Time{"never": nil, "long ago": ago(time.Minute)} {
		well.Origin.Nodes[0].LastSeen = seen
		if got := table(well); !strings.Contains(got, "does not answer now") {
			t.Errorf("a node that was seen %s, so not for this report:\n%s", name, got)
		}
	}
}
