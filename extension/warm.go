//go:build !layer

package main

import (
	"io"
	"log/slog"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/functions/warmup/job"
)

// newWarmUp returns the warm-up that thaw proxy runs beside its proxy. The
// layer's binary is built without (warm_layer.go): in Lambda the warm-up is a
// function of its own, and each cold start would load it.
func newWarmUp(cfg config.Config, log *slog.Logger, metrics io.Writer, unwrap tier.Unwrap) (warmUp, error) {
	if err := job.Check(cfg, false); err != nil {
		return nil, err
	}
	return job.Build(cfg, job.Options{Log: log, Metrics: metrics, Unwrap: unwrap})
}

var _ warmUp = (*job.Job)(nil)
