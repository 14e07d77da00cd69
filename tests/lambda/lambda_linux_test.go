package lambda

import (
	"strconv"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

const app = "secret/data/app"

// gaps are how long nothing happens between an invocation and a rotation.
var gaps = []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second}

func TestG1TheNextInvocationSeesARotationAfterAnyGap(t *testing.T) {
	t.Parallel()
	e := start(t, setup{})
	e.put(app, "0")
	e.value("0", step{Read: app})
	for i, gap := range gaps {
		harness.Pause(t.Context(), gap)
		e.put(app, strconv.Itoa(i+1))
		e.value(strconv.Itoa(i+1), step{Read: app, ID: true})
	}
}
