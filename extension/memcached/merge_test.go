package memcached

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// words is what several records hold together.
func words(records [][]byte) []string {
	var out []string
	for _, r := range records {
		out = append(out, strings.Fields(string(r))...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func adding(word string) func([][]byte) []byte {
	return func(old [][]byte) []byte { return []byte(strings.Join(append(words(old), word), " ")) }
}

func TestOfWritersAtOnceNoneIsLost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var wg sync.WaitGroup
	const writers, each = 6, 5
	for i := range writers {
		tier := s.tier(t, nil)
		wg.Go(func() {
			for k := range each {
				word := fmt.Sprintf("w%d-%d", i, k)
				for tier.Merge(t.Context(), "m", time.Hour, adding(word)) != nil { // a busy machine's deadline
				}
			}
		})
	}
	wg.Wait()
	if got := words(s.tier(t, nil).Merged(t.Context(), "m")); len(got) != writers*each {
		t.Errorf("%d of %d are there: %v", len(got), writers*each, got)
	}
}

func TestWhatIsMergedSurvivesRotationAndOldClocks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ring := func(keys ...byte) *Tier {
		return s.tier(t, func(o *TierOptions) { o.Keys = keyring(t, keys...) })
	}
	added, moved := ring(1, 2), ring(2, 1)
	for word, tier := range map[string]*Tier{"a": added, "b": moved} {
		if err := tier.Merge(t.Context(), "m", time.Hour, adding(word)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tier := range []*Tier{added, moved} {
		if got := words(tier.Merged(t.Context(), "m")); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%v", got)
		}
	}
	if got := ring(3).Merged(t.Context(), "m"); len(got) != 0 {
		t.Errorf("without a key: %q", got)
	}
}

func TestWhatCannotBeKeptIsAnError(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tier := s.tier(t, nil)
	tier.o.Client.Close()
	if err := tier.Merge(t.Context(), "m", time.Hour, adding("x")); err == nil {
		t.Error("kept by a client that is closed")
	}
}
