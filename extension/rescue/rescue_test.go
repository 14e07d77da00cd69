package rescue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const planted = "planted-value"

func logTo(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func TestTryMakesAnErrorOfAPanic(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	if err := Try(func() error { return mine }); err != mine {
		t.Error(err)
	}
	err := Try(func() error { panic(planted) })
	var p *Error
	if !errors.As(err, &p) || len(p.Stack) == 0 || strings.Contains(err.Error(), planted) {
		t.Errorf("%v", err)
	}
	var none []int
	if err := Try(func() error { none[len(t.Name())] = 1; return nil }); !strings.Contains(err.Error(), "out of range") {
		t.Errorf("the runtime's own words are not shown: %v", err)
	}
}

// TestKeepRunsAgainAfterAPanic: after a pause, until its context ends.
func TestKeepRunsAgainAfterAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var at []time.Duration
		began := time.Now()
		Keep(t.Context(), logTo(&log), "the work", func(context.Context) {
			if at = append(at, time.Since(began)); len(at) < 3 {
				panic(planted)
			}
		})
		if len(at) != 3 || at[2] != 2*pause || strings.Contains(log.String(), planted) || strings.Count(log.String(), "the work") != 2 {
			t.Errorf("it ran at %v:\n%s", at, log.String())
		}
		ctx, cancel := context.WithCancel(t.Context())
		Keep(ctx, logTo(&log), "the work", func(context.Context) {
			cancel()
			panic(planted)
		})
	})
}

func TestARequestWhoseHandlerPanicsIsAnswered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handle func(http.ResponseWriter)
		status int // 0: the connection is cut off
		logged bool
	}{
		"before an answer": {func(http.ResponseWriter) { panic(planted) }, http.StatusInternalServerError, true},
		"after a header was set": {func(w http.ResponseWriter) {
			w.Header().Set("X-Half", "1")
			panic(planted)
		}, http.StatusInternalServerError, true},
		"after an interim answer": {func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusEarlyHints)
			panic(planted)
		}, http.StatusInternalServerError, true},
		"after the answer began": {func(w http.ResponseWriter) {
			io.WriteString(w, "half")
			panic(planted)
		}, 0, true},
		"on purpose": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, 0, false},
		"never":      {func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }, http.StatusTeapot, false},
	} {
		var log bytes.Buffer
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			Handler(logTo(&log), w, func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }, c.handle)
		}))
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.Start()
		status := 0
		if res, err := server.Client().Get(server.URL); err == nil {
			if _, err := io.ReadAll(res.Body); err == nil {
				status = res.StatusCode
			}
			if res.Body.Close(); res.Header.Get("X-Half") != "" {
				t.Errorf("%s: a header of the answer that was not given", name)
			}
		}
		server.Close()
		if status != c.status || (log.Len() > 0) != c.logged || strings.Contains(log.String(), planted) {
			t.Errorf("%s: %d, want %d; the log: %s", name, status, c.status, log.String())
		}
	}
}

// TestEachGoesOnAfterAPanic: all numbers are through when Each returns, the one whose
// call panicked logged, and never more than so many at a time.
func TestEachGoesOnAfterAPanic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ most, n int }{{0, 0}, {0, 3}, {1, 3}, {2, 7}, {9, 4}} {
		var log bytes.Buffer
		var mu sync.Mutex
		seen, running, top := map[int]int{}, 0, 0
		Each(logTo(&log), "count", c.most, c.n, func(i int) {
			mu.Lock()
			seen[i]++
			running++
			top = max(top, running)
			mu.Unlock()
			runtime.Gosched()
			mu.Lock()
			running--
			mu.Unlock()
			if i == 1 {
				panic("planted")
			}
		})
		if len(seen) != c.n || top > max(c.most, min(c.n, 1)) || strings.Contains(log.String(), "count") != (c.n > 1) {
			t.Errorf("%d at a time: %v, %d at once, log %q", c.most, seen, top, log.String())
		}
		for i, times := range seen {
			if times != 1 {
				t.Errorf("%d was called %d times", i, times)
			}
		}
	}
}
