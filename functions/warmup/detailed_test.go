package warmup

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// openBao is an OpenBao with a KV v2 mount that lists recursively with metadata
// (https://openbao.org/api-docs/secret/kv/kv-v2/). Every change moves its index.
type openBao struct {
	mu      sync.Mutex // guards the fields below
	index   int
	secrets map[string]*openBaoSecret
	refuse  bool // detailed-metadata
	reads   []string
	noScan  bool // 501 for the method SCAN
	scans   int  // that were answered so
}

type openBaoSecret struct {
	Version  int
	Value    string
	Created  time.Time
	Deletion string
	Custom   map[string]string
}

func (b *openBao) change(f func(map[string]*openBaoSecret)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.index++
	f(b.secrets)
}

func (b *openBao) put(name, value string) {
	b.change(func(all map[string]*openBaoSecret) {
		s := all[name]
		if s == nil {
			s = &openBaoSecret{}
			all[name] = s
		}
		s.Version, s.Value, s.Created, s.Deletion = s.Version+1, value, time.Now(), ""
	})
}

// taken returns what was read since the last call.
func (b *openBao) taken() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := slices.Sorted(slices.Values(b.reads))
	b.reads = nil
	return strings.Join(out, " ")
}

func (b *openBao) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := func(v any) {
		_ = json.NewEncoder(w).Encode(v)
	}
	name, read := strings.CutPrefix(r.URL.Path, "/v1/secret/data/")
	names := slices.Sorted(maps.Keys(b.secrets))
	if r.Method == "SCAN" && b.noScan {
		b.scans++
		w.WriteHeader(http.StatusNotImplemented)
		answer(map[string]any{"errors": []string{}})
		return
	}
	if r.Method == http.MethodGet && r.URL.Query().Get("scan") == "true" {
		r.Method = "SCAN"
	}
	switch what := r.Method + " " + r.URL.Path; {
	case what == "GET /v1/sys/health":
		answer(map[string]any{"initialized": true, "sealed": false, "standby": false, "version": "2.4.0", "cluster_id": "c"})
	case what == "GET /v1/sys/leader":
		answer(map[string]any{"ha_enabled": true, "is_self": true, "active_time": "t", "raft_committed_index": b.index, "raft_applied_index": b.index})
	case what == "GET /v1/sys/internal/ui/mounts/secret":
		answer(map[string]any{"request_id": "x", "data": map[string]any{"path": "secret/", "type": "kv", "options": map[string]string{"version": "2"}}})
	case what == "SCAN /v1/secret/metadata":
		answer(map[string]any{"request_id": "x", "data": map[string]any{"keys": names}})
	case what == "SCAN /v1/secret/detailed-metadata" && !b.refuse:
		info := map[string]any{}
		for n, s := range b.secrets {
			info[n] = map[string]any{
				"current_version": s.Version, "custom_metadata": s.Custom, "updated_time": s.Created, "versions": map[string]any{
					fmt.Sprint(s.Version): map[string]any{"created_time": s.Created, "deletion_time": s.Deletion, "destroyed": false},
				},
			}
		}
		answer(map[string]any{"request_id": "x", "data": map[string]any{"keys": names, "key_info": info}})
	case what == "GET "+r.URL.Path && read && b.secrets[name] != nil:
		s := b.secrets[name]
		b.reads = append(b.reads, name)
		if s.Deletion != "" {
			w.WriteHeader(http.StatusNotFound)
		}
		answer(map[string]any{"request_id": "x", "data": map[string]any{"data": map[string]string{"v": s.Value}, "metadata": map[string]any{
			"version": s.Version, "created_time": s.Created, "deletion_time": s.Deletion, "destroyed": false, "custom_metadata": s.Custom,
		}}})
	case b.refuse:
		w.WriteHeader(http.StatusForbidden)
		answer(map[string]any{"errors": []string{"permission denied"}})
	default:
		w.WriteHeader(http.StatusNotFound)
		answer(map[string]any{"errors": []string{}})
	}
}

// TestAScanThatIsNotOfferedIsAGetWithAParameter: something before OpenBao may answer
// 501 to a method that it does not know.
func TestAScanThatIsNotOfferedIsAGetWithAParameter(t *testing.T) {
	t.Parallel()
	b := &openBao{index: 7, secrets: map[string]*openBaoSecret{}, noScan: true}
	for _, name := range []string{"a", "b/c", "b/d/e"} {
		b.put(name, "1")
	}
	s := &scene{t: t, tier: newMemory(t), server: httptest.NewServer(b)}
	t.Cleanup(s.server.Close)
	w := s.warmer(nil, "secret/")
	expect(t, s.run(w, Order{}), "full", 3, 3, 0, 0)
	b.taken()
	b.put("b/c", "2")
	s.run(w, Order{})
	if got := b.taken(); got != "b/c" {
		t.Errorf("read %q, want what changed alone", got)
	}
	if b.scans != 1 {
		t.Errorf("the method was tried %d times, want once", b.scans)
	}
}

// TestOpenBaosMetadataSparesReads: what one listing shows to be unchanged is
// not read, whatever else was written meanwhile.
func TestOpenBaosMetadataSparesReads(t *testing.T) {
	t.Parallel()
	b := &openBao{index: 7, secrets: map[string]*openBaoSecret{}}
	for _, name := range []string{"a", "b/c", "b/d/e"} {
		b.put(name, "1")
	}
	s := &scene{t: t, tier: newMemory(t), server: httptest.NewServer(b)}
	t.Cleanup(s.server.Close)
	w := s.warmer(nil, "secret/")
	expect(t, s.run(w, Order{}), "full", 3, 3, 0, 0)
	b.taken()
	for _, c := range []struct {
		what           string
		change         func(map[string]*openBaoSecret)
		read           string
		changed, there int
	}{
		{"elsewhere", func(map[string]*openBaoSecret) {}, "", 0, 3},
		{"a new version", func(all map[string]*openBaoSecret) {
			all["b/c"].Version, all["b/c"].Value, all["b/c"].Created = 2, "2", time.Now()
		}, "b/c", 1, 3},
		{"custom metadata", func(all map[string]*openBaoSecret) { all["a"].Custom = map[string]string{"owner": "x"} }, "a", 1, 3},
		{"written anew under the same version", func(all map[string]*openBaoSecret) { all["a"].Value, all["a"].Created = "3", time.Now() }, "a", 1, 3},
		{"a new secret", func(all map[string]*openBaoSecret) {
			all["f"] = &openBaoSecret{Version: 1, Value: "1", Created: time.Now()}
		}, "f", 1, 4},
		{"a deleted version", func(all map[string]*openBaoSecret) {
			all["f"].Deletion = time.Now().UTC().Format(time.RFC3339Nano)
		}, "f", 0, 3},
		{"a secret that is no more", func(all map[string]*openBaoSecret) { delete(all, "b/d/e") }, "f", 0, 2},
	} {
		b.change(c.change)
		began := time.Now()
		sum := s.run(w, Order{})
		if got := b.taken(); got != c.read || sum.Changed != c.changed || s.tier.secrets() != c.there || !sum.Complete || sum.Pass != "modified" {
			t.Errorf("%s: read %q, want %q; %d in the tier, want %d; %+v", c.what, got, c.read, s.tier.secrets(), c.there, sum)
		}
		for k, r := range s.tier.records {
			if !r.SentAt.After(began) && r.Status == http.StatusOK && strings.HasPrefix(k.Path, "secret/data/") {
				t.Errorf("%s: %s was not verified", c.what, k.Path)
			}
		}
	}
	// A full pass reads everything, and so does one that may not see metadata.
	s.run(w, Order{Full: true})
	if got := b.taken(); got != "a b/c f" {
		t.Errorf("a full pass read %q", got)
	}
	b.mu.Lock()
	b.refuse, b.index = true, b.index+1
	b.mu.Unlock()
	s.run(w, Order{})
	if got := b.taken(); got != "a b/c f" {
		t.Errorf("without metadata it read %q", got)
	}
}
