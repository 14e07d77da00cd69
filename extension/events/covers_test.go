package events

import "testing"

// TestG1ASubscriptionCoversItsNamespaceAndThoseBelow: no other is verified by it.
func TestG1ASubscriptionCoversItsNamespaceAndThoseBelow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, namespace string
		want          bool
	}{
		{"", "", true}, {"", "team", true}, {"team", "team", true}, {"team/", "team", true}, {"team", "team/a", true},
		{"team", "", false}, {"team", "teams", false}, {"team", "other", false}, {"team/a", "team", false}, {"team/a", "team/a/b", true},
	} {
		if got := (&Listener{o: Options{Namespace: c.in}}).covers(c.namespace); got != c.want {
			t.Errorf("subscribed in %q: %q is covered: %v", c.in, c.namespace, got)
		}
	}
}
