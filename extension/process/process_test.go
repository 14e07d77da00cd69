package process

import (
	"context"
	"github.com/thaw-project/thaw/extension/config"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
)

// The cache and the bodies get their part of the limit: Lambda's, or the user's.
func TestMemoryIsAPartOfTheFunctions(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	for _, c := range []struct {
		name          string
		user, mb      int64
		cache         int64
		limit, cached int64
		bodies        int
	}{
		{"no function", math.MaxInt64, 0, 1 << 30, math.MaxInt64, 1 << 30, 16 << 20},
		{"the smallest", math.MaxInt64, 128, 16 << 20, 128 << 20 / 5, 128 << 20 / 10, 128 << 20 / 40},
		{"smaller than there is", math.MaxInt64, 64, 16 << 20, 24 << 20, 12 << 20, 3 << 20},
		{"large", math.MaxInt64, 10240, 16 << 20, 10240 << 20 / 5, 16 << 20, 16 << 20},
		{"as the user says", 50 << 20, 128, 1 << 30, 50 << 20, 25 << 20, 50 << 20 / 8},
		{"as the user says, elsewhere", 50 << 20, 0, 1 << 20, 50 << 20, 1 << 20, 50 << 20 / 8},
	} {
		debug.SetMemoryLimit(c.user)
		cfg := config.Config{CacheBytes: c.cache, Platform: config.Platform{MemoryMB: int(c.mb)}}
		Memory(&cfg)
		if limit := debug.SetMemoryLimit(-1); limit != c.limit || cfg.CacheBytes != c.cached || cfg.BodyBytes != c.bodies {
			t.Errorf("%s: limit %d, cache %d, bodies %d; want %+v", c.name, limit, cfg.CacheBytes, cfg.BodyBytes, c)
		}
	}
}

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

// A hangup that comes before anything heeds it does not end the process.
func TestAHangupAtTheStartIsIgnored(t *testing.T) {
	if _, _, _, err := Open(config.Source{Environ: []string{"VAULT_ADDR=http://127.0.0.1:1"}}, io.Discard); err != nil {
		t.Log(err) // no login is set: that is none of this test's
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	reloads := make(chan struct{}, 1)
	OnHangup(t.Context(), config.Source{}, slog.New(slog.DiscardHandler), func(context.Context) { reloads <- struct{}{} })
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	<-reloads
}
