// Package process is what every program of thaw does first: it hides its
// memory, which will hold secrets, and opens its log.
package process

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/journal"
	"github.com/thaw-project/thaw/extension/rescue"
)

// Open reads the settings, opens the log and says the settings' warnings. terminal
// reports whether a person reads the log. err is config.Load's: the log is there
// all the same. Hangups are ignored until OnHangup heeds them: what they have read again
// is not read yet.
func Open(src config.Source, stderr io.Writer) (cfg config.Config, log *slog.Logger, terminal bool, err error) {
	signal.Ignore(syscall.SIGHUP)
	cfg, warnings, err := config.Load(src)
	log, terminal = Log(cfg, stderr)
	for _, w := range warnings {
		log.Warn(w.Message)
	}
	return cfg, log, terminal, err
}

// Log logs JSON, or text to a person at a terminal, from cfg.LogLevel up.
func Log(cfg config.Config, w io.Writer) (log *slog.Logger, terminal bool) {
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return journal.New(w, terminal, cfg.LogLevel, time.Now), terminal
}

// Procs keeps the process to n processors at a time. 0 stands for one on hosts
// that freeze: there the process is a guest beside a function, and with one
// processor a request is answered without waking a second thread, which costs
// more than the answer. Elsewhere 0 leaves the choice to Go.
func Procs(n int, frozen bool) {
	if n == 0 && frozen {
		n = 1
	}
	if n > 0 {
		runtime.GOMAXPROCS(n)
	}
}

// Memory keeps the process to its part of a function's memory: a fifth, and 24 MiB
// at least, unless GOMEMLIMIT says otherwise. Half of that is for the cache, an eighth
// for bodies of requests: they give way first. It changes cfg.
func Memory(cfg *config.Config) {
	limit := debug.SetMemoryLimit(-1)
	if m := cfg.Platform.MemoryMB; m > 0 && limit == math.MaxInt64 {
		limit = max(24<<20, int64(m)<<20/5)
		debug.SetMemoryLimit(limit)
	}
	cfg.CacheBytes = min(cfg.CacheBytes, limit/2)
	cfg.BodyBytes = int(min(16<<20, limit/8))
}

// OnHangup has reload run at each SIGHUP until ctx ends, after the log's level was
// read again.
func OnHangup(ctx context.Context, src config.Source, log *slog.Logger, reload func(context.Context)) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	context.AfterFunc(ctx, func() {
		signal.Stop(hangups) // after which none comes
		close(hangups)
	})
	go func() { // ends with ctx
		for range hangups {
			if cfg, _, err := config.Load(src); err == nil {
				journal.SetLevel(log, cfg.LogLevel)
			} else {
				log.Warn("read the settings again: the level of the log stays as it is", "error", err)
			}
			rescue.Do(log, "read files again", func() { reload(ctx) })
		}
	}()
}

// Problems logs what is wrong with a configuration, one line for each.
func Problems(log *slog.Logger, err error) {
	all := []error{err}
	if many, ok := errors.AsType[*config.Problems](err); ok {
		all = many.Unwrap()
	}
	for _, one := range all {
		log.Error("configuration", "error", one)
	}
}
