package shared

import (
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// secretsRead is how many secrets each instance reads.
const secretsRead = 5

// TestStormOfColdStartsWithAGrant: instances that start cold beside a warm
// cache, whose role's grants are in it, neither log in nor read a secret.
func TestStormOfColdStartsWithAGrant(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		maxAge  string
		batch   bool
		allowed func(n int, took time.Duration) int // requests for the cursor; nil: others may be needed
	}{
		"max-age 60s":            {"60s", true, func(_ int, took time.Duration) int { return 1 + int(took/(59*time.Second)) }},
		"max-age 3s":             {"3s", true, func(_ int, took time.Duration) int { return 1 + int(took/(2*time.Second)) }},
		"max-age 0":              {"0", true, func(n int, _ time.Duration) int { return n }},
		"max-age 0, VAULT_TOKEN": {"0", true, func(n int, _ time.Duration) int { return n }},
		// A service token is revoked at shutdown, which moves the cursor. The
		// figures are for the log.
		"max-age 60s, service tokens": {"60s", false, nil},
		"max-age 0, service tokens":   {"0", false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			names := o.fill(secretsRead)
			s := o.login(c.batch).With(harness.Settings{"THAW_MAX_AGE": c.maxAge})
			if strings.HasSuffix(name, "VAULT_TOKEN") {
				token, err := o.vault.CreateToken(t.Context(), harness.TokenSpec{Policies: []string{"app"}, TTL: time.Hour})
				harness.Must(t, err)
				s = o.at().With(harness.Settings{"THAW_MAX_AGE": c.maxAge, "VAULT_TOKEN": token})
			}
			first := cold(t, s)
			first.reads(o, names)
			first.shutdown()
			o.counter.Reset()
			n, began := sized(100, 1000), time.Now()
			storm(t, n, 8, func(int) *instance {
				i := cold(t, s)
				i.reads(o, names)
				return i
			})
			a, took := o.asked(), time.Since(began)
			t.Logf("%d cold starts in %v: %+v", n, took.Round(time.Millisecond), a)
			if c.allowed == nil {
				return
			}
			if a.logins+a.reads+a.capabilities+a.other > 0 {
				t.Errorf("more than the cursor was asked for: %+v", a)
			}
			if allowed := c.allowed(n, took); a.cursors > allowed {
				t.Errorf("%d requests for the cursor, at most %d are owed", a.cursors, allowed)
			}
			if c.maxAge == "0" && a.cursors != n {
				t.Errorf("%d requests for the cursor of %d instances, want one each", a.cursors, n)
			}
		})
	}
}

// TestStormOfColdStartsWithoutACapability: the warm-up filled the cache, and no
// instance's role has read anything. What capabilities-self says is no capability, so
// each role reads once for itself; whoever starts later under it asks for nothing.
func TestStormOfColdStartsWithoutACapability(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	names := o.fill(secretsRead)
	n := sized(100, 1000)
	roles := make([]harness.Settings, n)
	for k := range roles {
		roles[k] = o.login(true).With(harness.Settings{"THAW_MAX_AGE": "0"})
	}
	if s := o.warm(nil); s.Fetched < secretsRead {
		t.Fatalf("warm-up: %+v", s)
	}
	for round, reads := range []int{n * secretsRead, 0} {
		o.counter.Reset()
		storm(t, n, 8, func(k int) *instance {
			i := cold(t, roles[k])
			i.reads(o, names)
			return i
		})
		a := o.asked()
		t.Logf("round %d, %d cold starts: %+v", round, n, a)
		if a.reads > reads || a.logins > reads/secretsRead || a.capabilities > 0 || a.cursors > n || a.other > 1 {
			t.Errorf("round %d: of %d instances %+v, want at most %d reads, a login for each instance that reads, and one request for the cursor each", round, n, a, reads)
		}
	}
}
