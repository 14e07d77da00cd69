package shared

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// latencies are those of reads, for the log: a busy machine has a say in them.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration // guarded by mu
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

// cut describes what was added since the last cut.
func (l *latencies) cut() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	if len(all) == 0 {
		return "no reads"
	}
	slices.Sort(all)
	at := func(share float64) time.Duration {
		return all[int(share*float64(len(all)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%d reads, p50 %v, p99 %v, longest %v", len(all), at(0.5), at(0.99), at(1))
}

// metric is one number of the instance's /proxy/v1/metrics.
func (i *instance) metric(name string) (value float64) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.base+"/proxy/v1/metrics", nil)
	harness.Must(i.t, err)
	res, err := i.client.Do(req)
	harness.Must(i.t, err)
	defer res.Body.Close()
	var text strings.Builder
	if err := res.Write(&text); err != nil {
		i.t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(v, &value); err != nil {
				i.t.Fatal(err)
			}
			return value
		}
	}
	i.t.Fatalf("no %s in\n%s", name, text.String())
	return 0
}
