// Package process is what every program of thaw does first: it hides its
// memory, which will hold secrets, and opens its log.
package process

import (
	"io"
	"log/slog"
	"os"

	"github.com/thaw-project/thaw/extension/config"
)

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
