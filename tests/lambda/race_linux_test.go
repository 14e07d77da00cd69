package lambda

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

var reads = flag.Int("lambda.reads", 0, "how many first reads after a rotation TestG1AimedRaces makes in each of its rows; 0: it is skipped")

// TestG1AimedRaces counts old values in first reads after a rotation. The
// function's first act is a read, on an open connection, so that many reads are
// at the extension before their INVOKE is. It measures, which a busy machine
// disturbs, so it runs by -lambda.reads=2000 alone.
func TestG1AimedRaces(t *testing.T) {
	if *reads == 0 {
		t.Skip("a benchmark: run it with -lambda.reads=2000")
	}
	for _, c := range []struct {
		name string
		cpu  bool
		read step
		most int // old values
	}{
		{"AllProcessors/ID", false, step{Read: app, ID: true}, 0},
		{"AllProcessors/Silent", false, step{Read: app}, 0},
		{"AllProcessors/Trace", false, step{Read: app, Trace: "own"}, 0},
		{"OneProcessor/ID", true, step{Read: app, ID: true}, 0},
		{"OneProcessor/Silent", true, step{Read: app}, *reads / 200},
		{"OneProcessor/Trace", true, step{Read: app, Trace: "own"}, *reads / 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := start(t, setup{cpu: c.cpu})
			e.put(app, "0")
			e.value("0", c.read)
			old, took := 0, make([]time.Duration, *reads)
			for i := range took {
				// Seven rotations in eight come within 50 ms, where most races are.
				gap := time.Duration(rand.Int64N(int64(50 * time.Millisecond)))
				if i%8 == 0 {
					gap = time.Duration(rand.Int64N(int64(time.Second)))
				}
				harness.Pause(t.Context(), gap)
				want := strconv.Itoa(i + 1)
				e.put(app, want)
				got := e.invoke(c.read).Reads[0]
				took[i] = got.Took
				if got.Value != want {
					old++
				}
			}
			slices.Sort(took)
			t.Logf("old values: %d of %d; a read takes %v at the median, %v at the 99th percentile", old, *reads, took[len(took)/2], took[len(took)*99/100])
			if old > c.most {
				t.Errorf("%d old values, at most %d are expected", old, c.most)
			}
		})
	}
}
