package differential

import (
	"flag"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var startsFlag = flag.Int("starts", 96, "cold `starts` in each round of a storm")

const (
	together    = 8 // instances start
	secretsRead = 5 // by each
)

// TestColdStartsShareWhatTheyAsk counts what instances ask that start together, a few at
// a time. Where a capability was confirmed within the interval they ask nothing but the
// index; an older one is confirmed once, by one login and one call, for all of them.
func TestColdStartsShareWhatTheyAsk(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []string{"0s", "60s"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, 1, "THAW_MAX_AGE="+maxAge)
			defer f.end()
			if err := f.origin.SetPolicyText("one", everything); err != nil {
				t.Fatal(err)
			}
			f.lag = 5 * time.Millisecond
			for _, round := range []struct {
				name  string
				after time.Duration
				most  asked
			}{
				{"nothing is there", 0, asked{logins: together, reads: together * secretsRead, indexes: *startsFlag, other: together}}, // those that start first
				{"confirmed within the interval", time.Minute, asked{indexes: *startsFlag}},
				{"confirmed longer ago", 6 * time.Minute, asked{logins: 1, capabilities: 1, indexes: *startsFlag}},
				// One renews what is due soon, and what is left over one more. What the origin is was
				// told longer ago than ten minutes, and it may have been upgraded since: those that
				// start first ask for it.
				{"read eleven intervals ago", 48 * time.Minute, asked{logins: 2, capabilities: 1, reads: secretsRead, indexes: *startsFlag, other: together}},
			} {
				time.Sleep(round.after)
				f.origin.ResetCounts()
				f.storm(*startsFlag)
				a := f.asked()
				t.Logf("max-age %s, %s: %d starts: %+v", maxAge, round.name, *startsFlag, a)
				if most := round.most; a.logins > most.logins || a.capabilities > most.capabilities || a.reads > most.reads || a.indexes > most.indexes || a.other > most.other {
					t.Errorf("max-age %s, %s: %+v, want at most %+v", maxAge, round.name, a, most)
				}
			}
		})
	}
}

// storm starts n instances of one identity, eight at a time; each reads the same.
func (f *fleet) storm(n int) {
	for first := 0; first < n; first += together {
		var batch sync.WaitGroup
		for k := first; k < min(n, first+together); k++ {
			batch.Go(func() {
				m := f.another(f.members[0], k%90)
				m.app.Invoke(time.Now(), time.Now().Add(time.Minute))
				var reads sync.WaitGroup
				for _, s := range secrets[:secretsRead] {
					reads.Go(func() {
						if a := m.read(s.reads()[0]); a.status != 200 || a.stale {
							f.t.Errorf("start %d, %v: %+v", k, s, a)
						}
					})
				}
				reads.Wait()
				time.Sleep(100 * time.Millisecond) // its function works
				m.stop()
			})
		}
		batch.Wait()
	}
}

// asked is what reached the origin since its counters were reset.
type asked struct{ logins, capabilities, reads, indexes, other int }

func (f *fleet) asked() (a asked) {
	for what, n := range f.origin.Counts() {
		switch {
		case strings.HasSuffix(what, "/login"):
			a.logins += n
		case strings.HasSuffix(what, "sys/capabilities-self"):
			a.capabilities += n
		case strings.HasSuffix(what, "sys/leader"):
			a.indexes += n
		case strings.Contains(what, "/v1/secret/"), strings.Contains(what, "/v1/kv/"), strings.Contains(what, "/v1/nested/"):
			a.reads += n
		default:
			a.other += n
		}
	}
	return a
}
