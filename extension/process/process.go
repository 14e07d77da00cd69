// Package process is what every program of thaw does first: it hides its
// memory, which will hold secrets, and opens its log.
package process

import (
	"io"
	"log/slog"
	"os"
	"runtime"

	"github.com/thaw-project/thaw/extension/config"
)

// Open reads the settings, opens the log and says the settings' warnings. terminal
// reports whether a person reads the log. err is config.Load's: the log is there
// all the same.
func Open(src config.Source, stderr io.Writer) (cfg config.Config, log *slog.Logger, terminal bool, err error) {
	cfg, warnings, err := config.Load(src)
	log, terminal = Log(cfg, stderr)
	for _, w := range warnings {
		log.Warn(w.Message)
	}
	return cfg, log, terminal, err
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

// Log logs JSON, or text to a person at a terminal, from cfg.LogLevel up.
func Log(cfg config.Config, w io.Writer) (log *slog.Logger, terminal bool) {
	o := &slog.HandlerOptions{Level: cfg.LogLevel, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey {
			if l, ok := a.Value.Any().(slog.Level); ok && l == config.LevelTrace {
				a.Value = slog.StringValue("TRACE")
			}
		}
		return a
	}}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return slog.New(slog.NewTextHandler(w, o)), true
		}
	}
	return slog.New(slog.NewJSONHandler(w, o)), false
}
