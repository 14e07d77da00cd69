package process

import (
	"runtime"
	"testing"
)

func TestAGuestOnAHostThatFreezesKeepsToOneProcessor(t *testing.T) {
	was := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(was)
	for _, c := range []struct {
		name   string
		n      int
		frozen bool
		want   int
	}{
		{"elsewhere Go's choice stands", 0, false, 4},
		{"on a host that freezes", 0, true, 1},
		{"as the user says", 3, true, 3},
		{"as the user says, elsewhere", 2, false, 2},
	} {
		runtime.GOMAXPROCS(4)
		Procs(c.n, c.frozen)
		if got := runtime.GOMAXPROCS(0); got != c.want {
			t.Errorf("%s: %d processors, want %d", c.name, got, c.want)
		}
	}
}
