package shared

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestG4AnEnvironmentThatStartsInAnOutageServesWhatItsRoleHadRead: with the cache
// full, and its role's capabilities confirmed longer ago than the interval.
func TestG4AnEnvironmentThatStartsInAnOutageServesWhatItsRoleHadRead(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*harness.Counter){
		"refused":      (*harness.Counter).Cut,
		"silent":       (*harness.Counter).Stall,
		"sealed":       func(c *harness.Counter) { c.Inject(harness.Fault{Status: http.StatusServiceUnavailable}) },
		"rate limited": func(c *harness.Counter) { c.Inject(harness.Fault{Status: http.StatusTooManyRequests}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newSite(t)
			names := o.fill(4)
			more := harness.Settings{"THAW_CAPABILITY_REFRESH_INTERVAL": "1s", "THAW_POLL_TIMEOUT": "500ms", "VAULT_MAX_RETRIES": "0", "VAULT_CLIENT_TIMEOUT": "3s"}
			s, other := o.login(true).With(more), o.login(true).With(more)
			first := cold(t, s)
			first.reads(o, names[:3])
			first.shutdown()
			o.warm(nil) // has the fourth secret, too
			harness.Pause(t.Context(), 1200*time.Millisecond)
			away(o.counter)
			starts := func(s harness.Settings, serves int) {
				t.Helper()
				i := cold(t, s)
				for range 2 {
					i.invoke(func(ctx context.Context) {
						for k, name := range names {
							switch a := i.get(ctx, name); {
							case k < serves && (a.Status != http.StatusOK || a.value() != o.value(name) || !a.stale()):
								t.Errorf("%s: %d %v %.200s, want it marked stale", name, a.Status, a.Header, a.Body)
							case k >= serves && (a.err == nil && a.Status < 400 || a.value() != ""):
								t.Errorf("%s, which the role never read: %d", name, a.Status)
							}
						}
					})
				}
				i.shutdown()
			}
			starts(s, 3)
			starts(s.With(harness.Settings{"THAW_CAPABILITY_REFRESH_BEHAVIOR": "pessimistic"}), 0)
			starts(other, 0)
			starts(s, 3)
			harness.Must(t, o.counter.Mend())
			o.counter.Reset()
			again := cold(t, s)
			again.reads(o, names[:3])
			again.shutdown()
			if a := o.asked(); a.logins != 1 || a.capabilities != 1 || a.reads != 0 {
				t.Errorf("after the outage a cold start asks %+v, want one login, one call for capabilities and no read", a)
			}
		})
	}
}

// TestG4ARestoredCacheServesInAnOutage: memcached lost everything, the warm-up restored
// its backup, and Vault is away. What a role may read and what has ended came back with
// the secrets; -revoke shuts a role out all the same.
func TestG4ARestoredCacheServesInAnOutage(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	ctx := t.Context()
	names := o.fill(3)
	more := harness.Settings{"VAULT_MAX_RETRIES": "0", "VAULT_CLIENT_TIMEOUT": "3s"}
	mine, lost, bystander := o.login(true).With(more), o.login(true).With(more), o.login(true).With(more)
	for _, s := range []harness.Settings{mine, lost, bystander} {
		i := cold(t, s)
		i.reads(o, names)
		i.shutdown()
	}
	if out, log, err := o.warmup(nil, "-revoke", lost["THAW_ROLE_ID"]); err != nil || !strings.Contains(string(out), `"identities":1`) {
		t.Fatalf("%v %s\n%s", err, out, log)
	}
	dump := harness.Settings{
		"NEW_PROACTIVE_CACHE_ENABLE": "false", "PROACTIVE_CACHE_DUMP_INTERVAL": "1", "THAW_DUMP": filepath.Join(t.TempDir(), "dump"),
		"VAULT_ADDR": o.counter.Addr(), "VAULT_MAX_RETRIES": "0", "VAULT_CLIENT_TIMEOUT": "3s",
	}
	o.warm(dump)
	harness.Must(t, o.cache.Flush(ctx))
	o.counter.Cut()
	if out, log, _ := o.warmup(dump, "-for", "12s"); !strings.Contains(log.String(), "restored from its backup") {
		t.Fatalf("%s\n%s", out, log)
	}
	serves := func(what string, s harness.Settings, want bool) {
		t.Helper()
		i := cold(t, s)
		i.invoke(func(ctx context.Context) {
			for _, name := range names {
				if a := i.get(ctx, name); (a.value() == o.value(name) && a.stale()) != want {
					t.Errorf("%s: %s: %d %v %.200s", what, name, a.Status, a.Header, a.Body)
				}
			}
		})
		i.shutdown()
	}
	serves("restored", mine, true)
	serves("ended before the backup", lost, false)
	if out, log, err := o.warmup(nil, "-revoke", mine["THAW_ROLE_ID"]); err != nil {
		t.Fatalf("%v %s\n%s", err, out, log)
	}
	serves("ended during the outage", mine, false)
	serves("another role", bystander, true)
}

// TestG2AnEndReachesLivingInstancesInAnOutage: an instance that holds a secret in
// memory looks for ends when it cannot ask Vault.
func TestG2AnEndReachesLivingInstancesInAnOutage(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	names := o.fill(1)
	s := o.login(true).With(harness.Settings{"THAW_CAPABILITY_REFRESH_INTERVAL": "1s", "VAULT_MAX_RETRIES": "0", "VAULT_CLIENT_TIMEOUT": "3s"})
	i := cold(t, s)
	i.reads(o, names)
	o.counter.Cut()
	if out, log, err := o.warmup(nil, "-revoke", s["THAW_ROLE_ID"]); err != nil {
		t.Fatalf("%v %s\n%s", err, out, log)
	}
	harness.Pause(t.Context(), 1200*time.Millisecond)
	harness.Eventually(t, 20*time.Second, "the end", func() bool {
		var got answer
		i.invoke(func(ctx context.Context) { got = i.get(ctx, names[0]) })
		return got.Status >= 500
	})
}
