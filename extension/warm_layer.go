//go:build layer

package main

import (
	"errors"
	"io"
	"log/slog"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/tier"
)

// newWarmUp refuses a warm-up in the layer's binary.
func newWarmUp(config.Config, *slog.Logger, io.Writer, tier.Unwrap) (warmUp, error) {
	return nil, errors.New("PROACTIVE_CACHE_ENABLE: this is the binary of the Lambda layer, which is built without the warm-up; run thaw of `make build` or `make build-linux` (dist/thaw, dist/linux-*/thaw)")
}
