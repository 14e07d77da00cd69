package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

// clock makes moments from milliseconds.
func clock(ms int) time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(ms) * time.Millisecond)
}

func TestCheckerJudgesOneRead(t *testing.T) {
	t.Parallel()
	type write struct {
		answer     string
		begin, end int
	}
	sequence := []write{{"one", 0, 0}, {"two", 100, 110}, {"three", 200, 210}}
	for _, c := range []struct {
		name           string
		writes         []write
		answer         string
		from, to       int
		marked, cutOff bool
		want           string
	}{
		{"the current value", sequence, "two", 120, 130, false, false, ""},
		{"the value before, read while it was being replaced", sequence, "one", 105, 108, false, false, ""},
		{"the new value, read while it was being written", sequence, "two", 105, 108, false, false, ""},
		{"the value before, the write ended after the INVOKE", sequence, "one", 109, 150, false, false, ""},
		{"the value before, the write ended just at the INVOKE", sequence, "one", 110, 150, false, false, ""},
		{"the value before, the write ended before the INVOKE", sequence, "one", 111, 150, false, false, "stale"},
		{"two writes ago", sequence, "one", 215, 220, false, false, "stale"},
		{"a value of the future", sequence, "three", 120, 130, false, false, "wrong"},
		{"a value that never was", sequence, "four", 120, 130, false, false, "wrong"},
		{"a resource that nobody wrote", nil, "one", 120, 130, false, false, "wrong"},
		{"a value that came back", []write{{"one", 0, 0}, {"gone", 100, 110}, {"one", 200, 210}}, "one", 220, 230, false, false, ""},
		{"a value that came back, read between", []write{{"one", 0, 0}, {"gone", 100, 110}, {"one", 200, 210}}, "one", 120, 130, false, false, "stale"},
		{"of two writes that overlap either may be last: first", []write{{"one", 0, 0}, {"two", 100, 150}, {"three", 140, 160}}, "two", 300, 310, false, false, ""},
		{"of two writes that overlap either may be last: second", []write{{"one", 0, 0}, {"two", 100, 150}, {"three", 140, 160}}, "three", 300, 310, false, false, ""},
		{"but not what both replaced", []write{{"one", 0, 0}, {"two", 100, 150}, {"three", 140, 160}}, "one", 155, 310, false, false, "stale"},
		{"a long write does not hide the short one that replaced it", []write{{"one", 0, 0}, {"two", 100, 400}, {"three", 140, 160}}, "one", 200, 210, false, false, "stale"},
		{"marked stale, cut off", sequence, "one", 215, 220, true, true, "marked"},
		{"marked stale, not cut off", sequence, "one", 215, 220, true, false, "unexpected"},
		{"marked stale, and never true", sequence, "four", 215, 220, true, true, "wrong"},
		{"marked stale, and not yet true", sequence, "three", 120, 130, true, true, "wrong"},
		{"not marked, although cut off", sequence, "one", 215, 220, false, true, "stale"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := NewChecker()
			for _, w := range c.writes {
				k.Wrote("r", w.answer, clock(w.begin), clock(w.end))
			}
			k.Read(Read{Resource: "r", Answer: c.answer, From: clock(c.from), To: clock(c.to), Marked: c.marked, CutOff: c.cutOff})
			j := k.Judge()
			got := ""
			switch {
			case len(j.Stale) == 1:
				got = "stale"
			case len(j.Wrong) == 1:
				got = "wrong"
			case len(j.Unexpected) == 1:
				got = "unexpected"
			case j.Marked == 1:
				got = "marked"
			}
			if got != c.want || j.Reads != 1 {
				t.Errorf("got %q, want %q: %v %v", got, c.want, j, j.Failures())
			}
		})
	}
}

// TestCheckerFindsEachPlantedAnswer plants one bad answer among thousands of
// good ones, at a random place, and wants exactly that one.
func TestCheckerFindsEachPlantedAnswer(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		k := NewChecker()
		value := func(n int) string { return "value " + string(rune('A'+n)) }
		const writes = 40
		for n := range writes {
			k.Wrote("r", value(n), clock(n*100), clock(n*100+random.IntN(60)))
		}
		bad := random.IntN(500)
		for n := range 500 {
			at := random.IntN(writes * 100)
			from, to := clock(at), clock(at+random.IntN(30))
			sees := at / 100 // begun, so it may be true
			if n == bad {
				if random.IntN(2) == 0 {
					sees = (sees + 2 + random.IntN(writes)) % (writes + 2)
					if sees <= at/100+1 && sees >= at/100-1 {
						sees = writes + 5
					}
				} else {
					sees = writes + 1
				}
			}
			k.Read(Read{Resource: "r", Answer: value(sees), From: from, To: to})
		}
		if j := k.Judge(); len(j.Failures()) != 1 {
			t.Fatalf("seed %d: %v, want exactly the planted one: %v", seed, j, j.Failures())
		}
	}
}
