package vault

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// A message names a setting only where that setting ended the wait.
func TestATimeoutNamesTheLimitThatEndedIt(t *testing.T) {
	t.Parallel()
	const setting = "VAULT_CLIENT_TIMEOUT"
	poll := timeoutError("THAW_POLL_TIMEOUT of 10ms is over")
	for name, c := range map[string]struct {
		own, callers time.Duration // limits; 0: none
		cause        error         // of the caller's
		want         string        // in the message
	}{
		"ours":               {20 * time.Millisecond, time.Hour, nil, setting},
		"the caller's":       {0, 20 * time.Millisecond, nil, "deadline"},
		"the caller's cause": {0, 20 * time.Millisecond, poll, "THAW_POLL_TIMEOUT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := newClient(t, Options{Config: config.Config{Addrs: []string{"http://vault.test:8200"}, ClientTimeout: c.own, MaxRetries: 1}, Dial: mute})
				ctx, cancel := context.WithTimeoutCause(t.Context(), c.callers, c.cause)
				defer cancel()
				req := request(t, "GET", "/v1/x", "").WithContext(ctx)
				_, err := client.Do(req)
				k := client.begin(req.WithContext(context.WithoutCancel(req.Context())), false)
				defer k.end()
				if k.deadline = time.Now(); c.want != setting {
					k.late = context.DeadlineExceeded
				}
				for _, e := range []*Error{wantKind(t, err, Timeout), k.outOfTime(client.seeds[0])} { // while it was sent, and between two steps
					if got := strings.Contains(e.Error(), setting); got != (c.want == setting) {
						t.Errorf("%v", e)
					}
				}
				if !strings.Contains(err.Error(), c.want) {
					t.Error(err)
				}
			})
		})
	}
}
