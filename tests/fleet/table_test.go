package fleet

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

var update = flag.Bool("update", false, "write the table of docs/operations.md and docs/fleet.json anew")

// picture is what tests/bench/report draws.
type picture struct {
	Title  string
	X, Y   axis
	Series []series
}

type axis struct {
	Label string
	Log   bool
}

type series struct {
	Name   string
	Points []point
	Marked bool
}

type point struct{ X, Y float64 }

// TestOperationsShowTheModel holds the table of docs/operations.md, and the numbers of
// its picture, to the model.
func TestOperationsShowTheModel(t *testing.T) {
	t.Parallel()
	root, err := harness.Root()
	harness.Must(t, err)
	var b, alone strings.Builder
	b.WriteString("| environments | invocations a second of each | Vault, steady | Vault, a storm of cold starts | Vault, worst second as a memcached node dies | Vault, while it is away | Vault, worst second as it is back | the same under another leader | calls a node, steady | connections a node, of three and of two |\n|---|---|---|---|---|---|---|---|---|---|\n")
	alone.WriteString("| environments | invocations a second of each | Vault, steady | Vault, while it is away | Vault, worst second as it is back | the same under another leader | over the steady state |\n|---|---|---|---|---|---|---|\n")
	p := picture{Title: "What a fleet costs, with three nodes of memcached", X: axis{"environments", true}, Y: axis{"a second, or open", true}}
	for _, rate := range []float64{1, 10} {
		often := map[float64]string{1: "one invocation", 10: "10 invocations"}[rate]
		calls := series{Name: "calls a node, " + often + " a second of each", Marked: true}
		connections, vault := series{Name: "connections a node (on the same line as the first)", Marked: true}, series{Name: "requests to Vault", Marked: true}
		for _, n := range []int{1000, 10_000, 100_000} {
			s := Setup{Environments: n, Nodes: 3, Rate: rate, MaxAge: 10 * time.Second, Skew: time.Second, Secrets: 4, Length: 20 * time.Second, Verifying: 5 * time.Millisecond}
			each := func(v float64) float64 { return v / s.Length.Seconds() }
			f := played(s)
			fmt.Fprintf(&b, "| %s | %.0f | %.1f | %.1f | %.0f | %s | %.0f | %.0f | %s | %s and %s |\n", whole(float64(n)), rate,
				each(f[Steady].Vault), each(f[Cold].Vault), f[Death].Peak, round(each(f[Outage].Vault)), f[Return].Peak, f[Elected].Peak,
				round(each(f[Steady].Calls)/3), round(f[Steady].Connections/3), round(f[Death].Connections/2))
			calls.Points = append(calls.Points, point{float64(n), each(f[Steady].Calls) / 3})
			connections.Points = append(connections.Points, point{float64(n), f[Steady].Connections / 3})
			vault.Points = append(vault.Points, point{float64(n), each(f[Steady].Vault)})
			f = played(Setup{Environments: n, Rate: rate, Secrets: s.Secrets, Length: s.Length})
			fmt.Fprintf(&alone, "| %s | %.0f | %s | %s | %s | %s | %.1f |\n", whole(float64(n)), rate, round(each(f[Steady].Vault)), round(each(f[Outage].Vault)),
				round(f[Return].Peak), round(f[Elected].Peak), f[Elected].Peak/each(f[Steady].Vault))
		}
		if p.Series = append(p.Series, calls); rate == 10 {
			p.Series = append(p.Series, connections, vault)
		}
	}
	raw, err := json.MarshalIndent(p, "", "  ")
	harness.Must(t, err)
	same(t, filepath.Join(root, "docs", "fleet.json"), "", string(raw)+"\n", "")
	for name, text := range map[string]string{"fleet": b.String(), "alone": alone.String()} {
		page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
		harness.Must(t, err)
		begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->\n"
		before, rest, ok := strings.Cut(string(page), begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("docs/operations.md lacks the marks of its table %s", name)
		}
		same(t, filepath.Join(root, "docs", "operations.md"), before+begin, text, end+after)
	}
}

// played are the figures of each phase; a node of memcached dies in a fleet that is
// well otherwise.
func played(s Setup) (f [phases]Figures) {
	m, dying := New(s), New(s)
	for _, p := range []Phase{Cold, Steady, Outage, Return, Elected} {
		f[p] = m.Run(p)
	}
	for _, p := range []Phase{Cold, Steady, Death} {
		if s.Nodes > 0 {
			f[p] = dying.Run(p)
		}
	}
	return f
}

// same holds a file to what it is to be; with -update it writes it.
func same(t *testing.T, path, before, text, after string) {
	t.Helper()
	if *update {
		harness.Must(t, os.WriteFile(path, []byte(before+text+after), 0o644))
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != before+text+after {
		t.Errorf("%s is not what the model says (%v); write it anew with: go test ./tests/fleet -run TestOperations -update\n%s", filepath.Base(path), err, text)
	}
}

// round is to two digits.
func round(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	unit := math.Pow(10, math.Floor(math.Log10(v))-1)
	return whole(math.Round(v/unit) * unit)
}

// whole writes a number of things, with commas.
func whole(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
