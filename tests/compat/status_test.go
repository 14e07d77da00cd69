package compat

import (
	"regexp"
	"testing"
)

// TestVaultStatusThroughTheProxyAnswersAsDirect: the command asks sys/seal-status
// and sys/leader, and its exit code says whether Vault is sealed
// (https://developer.hashicorp.com/vault/docs/commands/status).
func TestVaultStatusThroughTheProxyAnswersAsDirect(t *testing.T) {
	t.Parallel()
	o := shared(t)
	p := o.start()
	direct := *p
	direct.base = o.Addr()
	// Other tests write meanwhile.
	moving := regexp.MustCompile(`(?m)^(Raft (Committed|Applied) Index +|.*[Ii]ndex": ?)\d+,?$`)
	for _, args := range [][]string{{"status"}, {"status", "-format=json"}} {
		want := (&cli{t: t, p: &direct, home: t.TempDir()}).run(args...)
		for name, token := range map[string]string{"with its token": o.token, "without a token": ""} {
			got := (&cli{t: t, p: p, token: token, home: t.TempDir()}).run(args...)
			if moving.ReplaceAllString(got, "$1") != moving.ReplaceAllString(want, "$1") {
				t.Errorf("vault %v %s:\n%s\ndirect:\n%s", args, name, got, want)
			}
		}
	}
	contains(t, (&cli{t: t, p: p, home: t.TempDir()}).run("status"), "Sealed")
}
