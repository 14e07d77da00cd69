package vault

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// A message names a setting only where that setting ended the wait.
func TestATimeoutNamesTheLimitThatEndedIt(t *testing.T) {
	t.Parallel()
	const setting = "VAULT_CLIENT_TIMEOUT"
	poll := timeoutError("THAW_POLL_TIMEOUT of 10ms is over")
	silent := func(c net.Conn) { readHead(c); readHead(c) }
	for name, c := range map[string]struct {
		step   func(net.Conn)
		ctx    func() (context.Context, context.CancelFunc)
		client time.Duration
		want   string // in the message
	}{
		"ours": {silent, nil, 20 * time.Millisecond, setting},
		"the caller's": {silent, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 20*time.Millisecond)
		}, 0, "deadline"},
		"the caller's cause": {silent, func() (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(t.Context(), 20*time.Millisecond, poll)
		}, 0, "THAW_POLL_TIMEOUT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, c.step)
			o := Options{Addrs: []string{s.url()}, ClientTimeout: c.client, MaxRetries: 1}
			client := newClient(t, o)
			req := request(t, "GET", "/v1/x", "")
			if c.ctx != nil {
				ctx, cancel := c.ctx()
				defer cancel()
				req = req.WithContext(ctx)
			}
			_, err := client.Do(req)
			k := client.begin(req.WithContext(context.WithoutCancel(req.Context())), false)
			defer k.end()
			k.deadline, k.ours = time.Now(), c.want == setting
			for _, e := range []*Error{wantKind(t, err, Timeout), k.outOfTime(client.seeds[0])} { // while it was sent, and between two steps
				if got := strings.Contains(e.Error(), setting); got != (c.want == setting) {
					t.Errorf("%v", e)
				}
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
		})
	}
}
