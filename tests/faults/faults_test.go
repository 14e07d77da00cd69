package faults

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "run this `seed` alone; 0: many")
	firstFlag  = flag.Uint64("faults.first", 1, "the first `seed` of many")
	opsFlag    = flag.Int("faults.ops", 80_000, "`operations` in all")
	sizeFlag   = flag.Int("faults.size", 500, "`operations` of one run")
	repeatFlag = flag.Int("faults.repeat", 2, "`times` that a shorter schedule is tried before it counts as well")
	shrinkFlag = flag.Duration("faults.shrink", time.Minute, "how long a schedule is made shorter")
	traceFlag  = flag.Bool("faults.trace", false, "print what happens in a run; with -seed")
	showFlag   = flag.Bool("faults.show", false, "print the schedule that is run")
)

// runOnce runs a schedule in a bubble of its own.
func runOnce(t *testing.T, s Schedule) []string {
	t.Helper()
	cryptotest.SetGlobalRandom(t, s.Seed)
	var problems []string
	synctest.Test(t, func(*testing.T) { problems = run(s) })
	return problems
}

// TestPromisesHoldThroughFaults is the simulator.
func TestPromisesHoldThroughFaults(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // fewer orders of goroutines: a seed says more
	began, seeds, done := time.Now(), uint64(0), 0
	for seed := *firstFlag; done < *opsFlag; seed++ {
		if *seedFlag != 0 {
			seed = *seedFlag
		}
		s := NewSchedule(seed, *sizeFlag)
		if *showFlag {
			t.Log(s)
		}
		if problems := runOnce(t, s); len(problems) > 0 {
			report(t, s, problems)
			return
		}
		done += len(s.Ops)
		seeds++
		if *seedFlag != 0 {
			break
		}
	}
	t.Logf("%d operations in %d runs from seed %d, in %v", done, seeds, *firstFlag, time.Since(began).Round(time.Millisecond))
}

// TestSeedsThatFoundSomething: what long runs found, and what was mended for it.
func TestSeedsThatFoundSomething(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for seed, what := range map[uint64]string{
		101759:  "a capability that was given back just then does not count yet",
		202046:  "a refusal of Vault's is an answer to others",
		503673:  "a login takes nothing out of the shared cache",
		800157:  "a poll's refused read is a matter of its token",
		1001018: "who needs the leader waits for the answer that another waits for",
		7001210: "a connection to memcached that died in a freeze puts no node out",
	} {
		if problems := runOnce(t, NewSchedule(seed, 500)); len(problems) > 0 {
			t.Errorf("seed %d (%s): %s", seed, what, strings.Join(problems, "\n"))
		}
	}
}

// report says what broke, and the shortest schedule that still breaks it.
func report(t *testing.T, s Schedule, problems []string) {
	t.Helper()
	t.Errorf("seed %d of %d operations broke:\n%s\n(go test ./tests/faults -run Promises -seed=%d -faults.size=%d)",
		s.Seed, len(s.Ops), strings.Join(problems, "\n"), s.Seed, len(s.Ops))
	which := func(problem string) string {
		parts := strings.SplitN(problem, ":", 3)
		return strings.Join(parts[:min(2, len(parts))], ":")
	}
	promise := which(problems[0])
	trace := *traceFlag
	*traceFlag = false
	short := shrink(s, time.Now().Add(*shrinkFlag), func(c Schedule) bool {
		for range *repeatFlag {
			for _, p := range runOnce(t, c) {
				if which(p) == promise {
					problems = []string{p}
					return true
				}
			}
		}
		return false
	})
	if *traceFlag = trace; trace {
		fmt.Println("--- the shortest schedule")
		runOnce(t, short)
	}
	t.Errorf("shortest schedule:\n%s%s", short, strings.Join(problems, "\n"))
}

// shrink leaves out operations while the rest still fails: what comes last,
// then halves, quarters and so on down to single ones, until no single one can
// be spared (delta debugging) or the time is over.
func shrink(s Schedule, end time.Time, fails func(Schedule) bool) Schedule {
	without := func(from, to int) bool {
		c := s
		c.Ops = slices.Concat(s.Ops[:from], s.Ops[min(to, len(s.Ops)):])
		if time.Now().After(end) || !fails(c) {
			return false
		}
		s = c
		return true
	}
	for size := len(s.Ops) / 2; size > 0; size /= 2 {
		for len(s.Ops) > size && without(len(s.Ops)-size, len(s.Ops)) {
		}
	}
	for size := max(1, len(s.Ops)/2); ; size = max(1, size/2) {
		shorter := false
		for from := 0; from < len(s.Ops); {
			if without(from, from+size) {
				shorter = true
			} else {
				from += size
			}
		}
		if size == 1 && !shorter {
			return s
		}
	}
}
