// Package wait lets time pass, unless there is nobody left to wait for.
package wait

import (
	"context"
	"time"
)

// For waits d, or until ctx ends: then the error is its cause.
func For(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
