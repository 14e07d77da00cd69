package warmup

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// newBao is a scene with an OpenBao, which lists recursively with metadata
// (https://openbao.org/api-docs/secret/kv/kv-v2/), and three secrets.
func newBao(t testing.TB, o standin.Options) *scene {
	t.Helper()
	o.OpenBao = true
	s := newSceneOf(t, o)
	for _, name := range []string{"a", "b/c", "b/d/e"} {
		s.put(name, "1")
	}
	return s
}

// TestAScanThatIsNotOfferedIsAGetWithAParameter: something before OpenBao may answer
// 501 to a method that it does not know.
func TestAScanThatIsNotOfferedIsAGetWithAParameter(t *testing.T) {
	t.Parallel()
	s := newBao(t, standin.Options{NoScan: true})
	w := s.warmer(nil, "secret/")
	expect(t, s.run(w, Order{}), "full", 3, 3, 0, 0)
	scans := len(s.took("SCAN "))
	s.reads()
	s.put("b/c", "2")
	s.run(w, Order{})
	scans += len(s.took("SCAN "))
	if got := s.reads(); got != "b/c" {
		t.Errorf("read %q, want what changed alone", got)
	}
	if scans != 1 {
		t.Errorf("the method was tried %d times, want once", scans)
	}
}

// TestOpenBaosMetadataSparesReads: what one listing shows to be unchanged is
// not read, whatever else was written meanwhile.
func TestOpenBaosMetadataSparesReads(t *testing.T) {
	t.Parallel()
	t.Run("raft", func(t *testing.T) {
		t.Parallel()
		openBaosMetadataSparesReads(t, standin.Options{})
	})
	t.Run("storage without an index", func(t *testing.T) {
		t.Parallel()
		openBaosMetadataSparesReads(t, standin.Options{NoIndex: true})
	})
}

// TestTheDocumentedPolicyForOpenBaoSparesRequests: docs/warm-up.md has a policy of the
// warm-up and what to add to it in OpenBao, with the figures.
func TestTheDocumentedPolicyForOpenBaoSparesRequests(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/warm-up.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(begin, end string) string {
		_, rest, ok := strings.Cut(string(page), begin)
		b, _, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("docs/warm-up.md has no block that begins with %s", begin)
		}
		return b
	}
	base, more := block("vault policy write thaw-warmup - <<'HCL'\n", "HCL\n"), block("```hcl\n", "```\n")
	rest := base[strings.Index(base, `path "secret/data/`):] // behind its first two lines
	for policy, want := range map[string]int{base: 73, rest + more: 1} {
		s := newSceneOf(t, standin.Options{OpenBao: true})
		for i := range 60 {
			s.put(fmt.Sprintf("f%d/s%d", i%10, i), "1")
		}
		s.do(http.MethodPut, "sys/policies/acl/warm", map[string]string{"policy": policy})
		s.do(http.MethodPost, "auth/token/create", map[string]any{"id": "warm", "policies": []string{"warm"}})
		w := s.warmerAs("warm", nil, "secret/")
		expect(t, s.run(w, Order{}), "full", 60, 60, 0, 0)
		s.put1("x", "1") // elsewhere, so that the index moves
		s.origin.ResetCounts()
		sum := s.run(w, Order{})
		if n := s.origin.Requests(); n != want || !sum.Complete || sum.Unchanged != 60 {
			t.Errorf("%d requests, want %d: %v; %+v, under\n%s", n, want, s.origin.Counts(), sum, policy)
		}
	}
}

func openBaosMetadataSparesReads(t *testing.T, o standin.Options) {
	s := newBao(t, o)
	w := s.warmer(nil, "secret/")
	expect(t, s.run(w, Order{}), "full", 3, 3, 0, 0)
	s.reads()
	own := func() {
		s.do(http.MethodPost, "secret/metadata/a", map[string]any{"custom_metadata": map[string]string{"owner": "x"}})
	}
	for _, c := range []struct {
		what           string
		change         func()
		read           string
		changed, there int
	}{
		{"elsewhere", func() { s.put1("x", "1") }, "", 0, 3},
		{"a new version", func() { s.put("b/c", "2") }, "b/c", 1, 3},
		{"custom metadata", own, "a", 1, 3},
		{"written anew under the same version", func() {
			s.do(http.MethodDelete, "secret/metadata/a", nil)
			s.put("a", "3")
			own()
		}, "a", 1, 3},
		{"a new secret", func() { s.put("f", "1") }, "f", 1, 4},
		{"a deleted version", func() { s.do(http.MethodDelete, "secret/data/f", nil) }, "f", 0, 3},
		{"a secret that is no more", func() { s.do(http.MethodDelete, "secret/metadata/b/d/e", nil) }, "f", 0, 2},
	} {
		c.change()
		began := time.Now()
		sum := s.run(w, Order{})
		if got := s.reads(); got != c.read || sum.Changed != c.changed || s.tier.secrets() != c.there || !sum.Complete || sum.Pass != "modified" {
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
	if got := s.reads(); got != "a b/c f" {
		t.Errorf("a full pass read %q", got)
	}
	s.put1("x", "2")
	s.origin.SetFault(refusing("SCAN", "/detailed-metadata/", http.StatusForbidden))
	s.run(w, Order{})
	if got := s.reads(); got != "a b/c f" {
		t.Errorf("without metadata it read %q", got)
	}
}

// TestWhatIsTooMuchForOneListIsListedByFolders: an answer that is too large ends no pass.
func TestWhatIsTooMuchForOneListIsListedByFolders(t *testing.T) {
	t.Parallel()
	s := newBao(t, standin.Options{})
	s.origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "SCAN" {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"data":{"keys":["%s"]}}`, strings.Repeat("x", maxAnswer))
		return true
	})
	sum := s.run(s.warmer(nil, "secret/"), Order{})
	if expect(t, sum, "full", 3, 3, 0, 0); !sum.Complete {
		t.Errorf("%+v", sum)
	}
}
