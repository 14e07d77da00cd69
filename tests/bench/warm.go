package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/harness"
)

// Sizes of the warm-up.
const (
	warmSecrets = 5000
	warmQuota   = 500 // requests a second
	warmRuns    = 10  // of one that leaves some out
	warmLongest = 2 * time.Minute
)

// warmed is what one implementation needed until nothing was missing.
type warmed struct {
	Fetched     int     `json:"fetched"`
	Requests    int     `json:"requests"`
	RateLimited int     `json:"rate_limited"`
	Seconds     float64 `json:"seconds"`
	Complete    bool    `json:"complete"`
	runs        int
	first       int     // secrets that the first run read
	filled      []Point // seconds of running, records in memcached
}

// warmUp has both implementations of the warm-up load some thousand secrets
// from a real Vault with a rate limit, each into a cache of its own. One that
// leaves some out runs again, up to ten times.
func (b *bench) warmUp(ctx context.Context) error {
	if b.noVault {
		b.report.note("warm-up: left out, it needs a real Vault")
		return nil
	}
	o, v, err := realVault(ctx, b.vault)
	if errors.Is(err, harness.ErrMissing) {
		b.report.note("warm-up: left out: %v", err)
		return nil
	} else if err != nil {
		return err
	}
	defer o.close()
	bin := filepath.Join(b.bin.dir, "warmup")
	if err := harness.Build(ctx, bin, "./functions/warmup/lambda"); err != nil {
		return err
	}
	secrets := b.rounds(warmSecrets)
	if err := fillVault(ctx, o, secrets); err != nil {
		return err
	}
	if _, err := v.Root(ctx, http.MethodPost, "sys/quotas/rate-limit/bench", map[string]any{"rate": warmQuota}); err != nil {
		return err
	}
	title := fmt.Sprintf("Warm-up of %d secrets under a rate limit of %d requests a second", secrets, warmQuota)
	seconds, requests, refused := b.report.table(title, "s"), b.report.table(title, "requests"), b.report.table(title, "refused")
	seconds.Remarks = append(seconds.Remarks, fmt.Sprintf("the limit alone makes %.1f s of %d secrets; memcached is the stand-in of tests/fakes/memcache", float64(secrets)/warmQuota, secrets))
	p := &Plot{Title: title, X: Axis{"s", false}, Y: Axis{"records in memcached", false}}
	for _, c := range []struct {
		name        string
		recommended string
		most        float64 // seconds; 0: no target
	}{{"recommended", "true", 1.05*float64(secrets)/warmQuota + 2}, {"legacy", "false", 0}} {
		got, err := warmBy(ctx, bin, v, c.recommended, secrets)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		note := fmt.Sprintf("%d read in the first of %d runs", got.first, got.runs)
		if !got.Complete {
			note += ", and still not complete"
		}
		p.Series = append(p.Series, Series{Name: c.name, Points: got.filled})
		one := func(n float64) Sample { return sample([]float64{n}) }
		row := Row{Name: c.name, Value: one(got.Seconds), Note: note, Most: c.most}
		if c.most > 0 {
			row.Target = fmt.Sprintf("at most %.1f s", c.most)
		}
		seconds.Rows = append(seconds.Rows, row)
		requests.Rows = append(requests.Rows, Row{Name: c.name, Value: one(float64(got.Requests))})
		refused.Rows = append(refused.Rows, Row{Name: c.name, Value: one(float64(got.RateLimited))})
	}
	p.Series = append(p.Series, Series{Name: "the limit", Limit: true, Points: []Point{{0, 0}, {float64(secrets) / warmQuota, float64(secrets)}}})
	b.report.plot(p)
	return nil
}

// watch notes how many records m holds, ten times a second, until it is told
// to stop. The times go on where the last points ended.
func watch(points *[]Point, m *memcache.Server) (stop func()) {
	from := 0.0
	if n := len(*points); n > 0 {
		from = (*points)[n-1].X
	}
	began, over, done := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			*points = append(*points, Point{from + time.Since(began).Seconds(), float64(m.Len())})
			select {
			case <-tick.C:
			case <-over:
				*points = append(*points, Point{from + time.Since(began).Seconds(), float64(m.Len())})
				return
			}
		}
	}()
	return func() { close(over); <-done }
}

// fillVault writes the secrets.
func fillVault(ctx context.Context, o *origin, n int) error {
	next, errs := make(chan int), make(chan error, 1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				if err := o.put(ctx, fmt.Sprintf("team%02d/app%05d", i%20, i), secretOf(100)); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	select {
	case err := <-errs:
		return fmt.Errorf("fill Vault: %w", err)
	default:
		return nil
	}
}

// warmBy runs one implementation until it is complete, or has had its runs.
func warmBy(ctx context.Context, bin string, v *harness.Vault, recommended string, secrets int) (all warmed, err error) {
	m, err := memcache.Start(memcache.Options{})
	if err != nil {
		return all, err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(ctx, warmLongest)
	defer cancel()
	for !all.Complete && all.runs < warmRuns {
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, bin, "-once")
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Env = []string{
			"VAULT_ADDR=" + v.Addr(), "VAULT_TOKEN=" + v.RootToken(), "CACHE_ENABLE=true", "PROACTIVE_CACHE_ENABLE=true", "NEW_PROACTIVE_CACHE_ENABLE=" + recommended,
			"THAW_MEMCACHED=" + m.Addr(), "THAW_CACHE_KEY=" + stormKey, "THAW_AUDIENCE=bench", "THAW_WARM_PATHS=secret/bench/", "PROACTIVE_CACHE_MINIMUM_FETCHING_TIME=0",
		}
		watched := watch(&all.filled, m)
		runErr := cmd.Run()
		watched()
		var one warmed
		if err := json.Unmarshal(stdout.Bytes(), &one); err != nil {
			return all, fmt.Errorf("the warm-up's summary %q: %w\n%s", stdout.String(), errors.Join(runErr, err), stderr.String())
		}
		if all.runs++; all.runs == 1 {
			all.first = one.Fetched
		}
		all.Fetched, all.Complete = all.Fetched+one.Fetched, one.Complete
		all.Requests, all.RateLimited, all.Seconds = all.Requests+one.Requests, all.RateLimited+one.RateLimited, all.Seconds+one.Seconds
	}
	if all.Complete && all.Fetched < secrets {
		return all, fmt.Errorf("complete with %d of %d secrets", all.Fetched, secrets)
	}
	return all, nil
}
