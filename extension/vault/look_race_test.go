package vault

import (
	"context"
	"net/netip"
	"sync"
	"testing"
)

// TestNamesAreLookedUpWhileRequestsAreNoted is for the race detector: what is known of a
// configured address changes with each request, also while its name is looked up.
func TestNamesAreLookedUpWhileRequestsAreNoted(t *testing.T) {
	t.Parallel()
	o := quick([]string{"http://a.vault.test:8200", "http://b.vault.test:8200"})
	o.LookupIP = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
	}
	client := newClient(t, o)
	var both sync.WaitGroup
	both.Go(func() {
		for range 100 {
			client.note(client.seeds[0], func(s *state) { s.pending++ })
		}
	})
	both.Go(func() {
		for range 100 {
			_, _ = client.expand(t.Context(), client.seeds[0])
		}
	})
	both.Wait()
}
