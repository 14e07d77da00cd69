package consistency

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// text is a state as the origin would send it.
func text(cluster string, local, replicated int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "v1:%s:%d:%d:%02x", cluster, local, replicated, 7))
}

func texts(states ...string) []string {
	var out []string
	for _, s := range states {
		out = append(out, base64.StdEncoding.EncodeToString([]byte(s)))
	}
	slices.Sort(out)
	return out
}

// The table of hashicorp/vault/api's own test, and what differs. The oracle
// itself is asked in tests/compat/goclient.
func TestMergeKeepsTheNewest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		old  []string
		new  string
		want []string
	}{
		{"nothing was known", nil, "v1:c:1:0:", []string{"v1:c:1:0:"}},
		{"newer", []string{"v1:c:1:0:"}, "v1:c:2:0:", []string{"v1:c:2:0:"}},
		{"older", []string{"v1:c:2:0:"}, "v1:c:1:0:", []string{"v1:c:2:0:"}},
		{"the same", []string{"v1:c:2:0:"}, "v1:c:2:0:", []string{"v1:c:2:0:"}},
		{"mixed", []string{"v1:c:1:0:"}, "v1:c:0:1:", []string{"v1:c:0:1:", "v1:c:1:0:"}},
		{"mixed with two", []string{"v1:c:0:1:", "v1:c:1:0:"}, "v1:c:2:0:", []string{"v1:c:0:1:", "v1:c:2:0:"}},
		{"newer than both", []string{"v1:c:0:1:", "v1:c:1:0:"}, "v1:c:2:1:", []string{"v1:c:2:1:"}},
		{"another cluster's", []string{"v1:c:9:9:"}, "v1:d:1:1:", []string{"v1:d:1:1:"}},
		{"another cluster's beside two", []string{"v1:c:0:1:", "v1:c:1:0:"}, "v1:d:1:1:", []string{"v1:d:1:1:"}},
		{"none of three is older", []string{"v1:c:0:2:", "v1:c:2:0:"}, "v1:c:1:1:", []string{"v1:c:0:2:", "v1:c:1:1:", "v1:c:2:0:"}},
		{"a fourth", []string{"v1:c:0:3:", "v1:c:1:2:", "v1:c:3:0:"}, "v1:c:2:1:", []string{"v1:c:0:3:", "v1:c:1:2:", "v1:c:2:1:", "v1:c:3:0:"}},
		{"numbers, not texts", []string{"v1:c:9:0:"}, "v1:c:10:0:", []string{"v1:c:10:0:"}},
		{"no state", []string{"v1:c:9:0:"}, "v2:c:10:0:", []string{"v1:c:9:0:"}},
	} {
		if got := Merge(texts(tt.old...), texts(tt.new)[0]); !slices.Equal(slices.Sorted(slices.Values(got)), texts(tt.want...)) {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

// Whatever the order: what was ever required of one cluster stays required.
func TestMergeForgetsNothingOfACluster(t *testing.T) {
	t.Parallel()
	for range 2000 {
		var all, kept []string
		for range rand.N(6) + 1 {
			s := text("c", rand.N(4), rand.N(4))
			all = append(all, s)
			kept = Merge(kept, s)
		}
		if required := strings.Join(all, separator); !Covers(strings.Join(kept, separator), required) {
			t.Fatalf("%q of %q", kept, all)
		}
		for i := range kept {
			if Covers(strings.Join(slices.Delete(slices.Clone(kept), i, i+1), separator), kept[i]) {
				t.Fatalf("%q holds one that another covers", kept)
			}
		}
	}
}

func TestCoversComparesBothIndexesOfOneCluster(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		readAt, required string
		want             bool
	}{
		{"", "", true},
		{text("c", 1, 1), "", true},
		{"", text("c", 1, 1), false},
		{text("c", 1, 1), text("c", 1, 1), true},
		{text("c", 2, 1), text("c", 1, 1), true},
		{text("c", 2, 0), text("c", 1, 1), false},
		{text("d", 9, 9), text("c", 1, 1), false},
		{text("c", 2, 0) + "," + text("c", 0, 2), text("c", 1, 0) + "," + text("c", 0, 1), true},
		{text("c", 2, 0) + "," + text("c", 0, 2), text("c", 1, 1), false},
		{"raft:9", "raft:8", true},
		{"raft:7", "raft:8", false},
		{"raft:9", "write:8", false},
		{"write:9", "write:8", true},
		{"raft:9", text("c", 1, 1), false},
		{"rubbish", "rubbish", true}, // the same, whatever it is
		{"rubbish", "raft:1", false},
		{"raft:1", "rubbish", false},
	} {
		if got := Covers(tt.readAt, tt.required); got != tt.want {
			t.Errorf("Covers(%q, %q) = %v", tt.readAt, tt.required, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		text("7f3a4470-7e12-7807-51bd-fbb2b9c2ab51", 68, 68), "raft:1", "write:18446744073709551615", "djE6", "", "djE6YzoxOjE=",
		base64.StdEncoding.EncodeToString([]byte("v1:c:18446744073709551616:1:")), base64.StdEncoding.EncodeToString([]byte("v1::1:1:")),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		s, ok := parse(raw)
		if !ok {
			if got := Merge([]string{"raft:1"}, raw); !slices.Equal(got, []string{"raft:1"}) {
				t.Errorf("a text that is no state was merged: %q", got)
			}
			return
		}
		if strings.Contains(raw, separator) || strings.ContainsAny(raw, "\r\n") {
			t.Errorf("%q would not survive a header or a list", raw)
		}
		if !s.reached(s) || !Covers(raw, raw) {
			t.Errorf("%q is not what it is", raw)
		}
		if slices.Contains(only([]string{raw}, sendable), raw) && strings.HasPrefix(s.cluster, "\x00") {
			t.Errorf("the origin's header could name %q", s.cluster)
		}
	})
}
