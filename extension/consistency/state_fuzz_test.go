package consistency

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func vaultState(cluster string, local, replicated uint64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "v1:%s:%d:%d:00ff", cluster, local, replicated))
}

// FuzzMerge merges what an origin sends, one after the other. Whoever has seen
// a state requires it from then on, or more; what is no state changes nothing.
func FuzzMerge(f *testing.F) {
	a, b, c := vaultState("c1", 5, 1), vaultState("c1", 1, 5), vaultState("c2", 9, 9)
	for _, s := range []string{
		a, a + "," + b, b + "," + a + "," + vaultState("c1", 5, 5), a + "," + c, c + "," + a + "," + b, "raft:5,raft:7,raft:6", "write:1," + a, a + ",garbage",
		",,,", "raft:18446744073709551615,raft:18446744073709551616", base64.StdEncoding.EncodeToString([]byte("v1::1:1:00")), a + "\n", vaultState("a:b", 1, 1),
		vaultState("\x00raft", 7, 7) + ",raft:3",
	} {
		f.Add(s)
	}
	var many []string // of which none is older than another, and more than are kept
	for n := range uint64(10) {
		many = append(many, vaultState("c1", n, 10-n))
	}
	f.Add(strings.Join(many, separator))
	f.Fuzz(func(t *testing.T, sent string) {
		var kept []string
		for new := range strings.SplitSeq(sent, separator) {
			n, ok := parse(new)
			merged := Merge(kept, new)
			if !ok {
				if !slices.Equal(merged, kept) {
					t.Fatalf("%q is no state and made %q of %q", new, merged, kept)
				}
				continue
			}
			now, before := strings.Join(merged, separator), strings.Join(kept, separator)
			if !Covers(now, new) {
				t.Fatalf("%q was seen and is not required: %q", new, merged)
			}
			if len(kept) < maxStates && len(kept) > 0 {
				if o, _ := parse(kept[0]); o.cluster == n.cluster && !Covers(now, before) {
					t.Fatalf("%q was required, and after %q only %q", kept, new, merged)
				}
			}
			if again := Merge(merged, new); !slices.Equal(again, merged) {
				t.Fatalf("%q merged twice: %q, then %q", new, merged, again)
			}
			for i, x := range merged {
				for j, y := range merged {
					sx, okX := parse(x)
					sy, okY := parse(y)
					if !okX || !okY || sx.cluster != sy.cluster || i != j && sx.reached(sy) {
						t.Fatalf("required at once: %q", merged)
					}
				}
			}
			if len(merged) > maxStates {
				t.Fatalf("%d states are required", len(merged))
			}
			if strings.ContainsAny(now, "\r\n") {
				t.Fatalf("a header's value with a line's end: %q", now)
			}
			kept = merged
		}
		// Texts as they are, whatever they hold.
		if !Covers(sent, "") || !Covers(sent, sent) {
			t.Fatalf("%q does not cover itself", sent)
		}
		raftIndex(sent)
	})
}
