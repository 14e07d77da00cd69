package standin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// volatile are keys whose values are never the same twice: only their type,
// and whether they are empty, is compared.
func volatile(key string) bool {
	switch key {
	case "request_id", "accessor", "uuid", "client_token", "token", "id", "client_id", "entity_id", "role_id", "secret_id",
		"secret_id_accessor", "creation_time", "created_time", "updated_time", "deletion_time", "expire_time", "issue_time",
		"last_renewal", "last_renewal_time", "active_time", "leader_address", "leader_cluster_address", "raft_committed_index",
		"raft_applied_index", "ttl", "cluster_id", "cluster_name", "wrapped_accessor":
		return true
	}
	return false
}

// shape reduces an answer to what must be alike.
func shape(v any, typesOnly bool) any {
	kind := func(v any) string {
		if v == "" {
			return "string, empty"
		}
		return fmt.Sprintf("%T", v)
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			_, isMap := e.(map[string]any)
			if volatile(k) && !isMap {
				out[k] = kind(e)
			} else {
				out[k] = shape(e, typesOnly)
			}
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, shape(e, typesOnly))
		}
		return out
	}
	if typesOnly {
		return kind(v)
	}
	return v
}

// run asks one origin the whole script and gives back what each step showed and
// whether it moved the cursor.
func run(t *testing.T, addr, root string) (shown []string, moved []bool) {
	t.Helper()
	kept := map[string]string{"root": root}
	fill := func(s string) string {
		for k, v := range kept {
			s = strings.ReplaceAll(s, "{"+k+"}", v)
		}
		return s
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(client.CloseIdleConnections)
	index := func() uint64 {
		r, err := harness.Send(t.Context(), client, addr, harness.Call{Method: "GET", Path: "sys/leader"})
		if err != nil {
			t.Fatal(err)
		}
		var leader struct {
			Committed uint64 `json:"raft_committed_index"`
		}
		_ = json.Unmarshal(r.Body, &leader)
		return leader.Committed
	}
	for _, s := range script() {
		before := index()
		call := harness.Call{Method: s.method, Path: fill(s.path), Header: http.Header{}}
		if s.token != "-" {
			call.Token = fill(s.token)
		}
		if s.body != "" {
			call.Body = []byte(fill(s.body))
		}
		if name, value, ok := strings.Cut(s.header, ": "); ok {
			call.Header.Set(name, fill(value))
		}
		r, err := harness.Send(t.Context(), client, addr, call)
		if err != nil {
			t.Fatalf("%s %s: %v", s.method, s.path, err)
		}
		show := fmt.Sprintf("%d %s %s", r.Status, r.Header.Get("Content-Type"), r.Header.Get("Cache-Control"))
		var body any
		if err := json.Unmarshal(r.Body, &body); err == nil {
			if name, path, ok := strings.Cut(s.keep, "="); ok {
				kept[name] = dig(body, path)
			}
			text, err := json.Marshal(shape(body, s.shapeOnly))
			if err != nil {
				t.Fatal(err)
			}
			show += " " + string(text)
		} else {
			show += fmt.Sprintf(" %q", r.Body)
		}
		if len(r.Body) > 0 && r.Body[len(r.Body)-1] == '\n' {
			show += "\\n"
		}
		after := index()
		moved = append(moved, before != 0 && after > before)
		for name, v := range kept { // error texts repeat what was sent
			if name != "root" && v != "" {
				show = strings.ReplaceAll(show, v, "{"+name+"}")
			}
		}
		shown = append(shown, show)
	}
	return shown, moved
}

func dig(v any, path string) string {
	for p := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	s, _ := v.(string)
	return s
}

// TestTheStandInAnswersAsVaultDoes asks a real Vault with integrated storage
// and the stand-in the same things and compares the answers, values included
// where they are not ids or times.
func TestTheStandInAnswersAsVaultDoes(t *testing.T) {
	t.Parallel()
	v := harness.Raft(t)
	s := httptest.NewServer(standin.New(standin.Options{}))
	t.Cleanup(s.Close)

	real, realMoved := run(t, v.Addr(), v.RootToken())
	ours, oursMoved := run(t, s.URL, "root")
	for i, st := range script() {
		if real[i] != ours[i] {
			t.Errorf("%s %s %s %s\n   Vault: %s\nstand-in: %s", st.method, st.path, st.body, st.header, real[i], ours[i])
		}
		// Not the other way round: Vault also writes things of its own, such
		// as the end of a token that was revoked a moment ago.
		if oursMoved[i] && !realMoved[i] {
			t.Errorf("%s %s %s moves the stand-in's cursor and not Vault's", st.method, st.path, st.body)
		}
	}
}
