package warmup

import (
	"context"
	"time"
)

// Revoked is what a revocation did.
type Revoked struct {
	Role       string `json:"role"`
	Audiences  int    `json:"audiences"`
	Identities int    `json:"identities"` // of the role that were seen in the shared cache
}

// Revoke ends what the identities of a role may see in the shared cache, for every
// audience, whatever mount the role is on: what was read before now counts no more,
// even while the origin is away. Each reads again what it still may. An instance drops
// its own copies when it next asks the origin. The role of an approle is its role id.
func Revoke(ctx context.Context, audiences []Audience, role string, now time.Time) (Revoked, error) {
	r := Revoked{Role: role, Audiences: len(audiences)}
	for _, a := range audiences {
		if !a.EndRole(ctx, role, now) {
			return r, ErrUntaken
		}
		for _, h := range a.Held(ctx) {
			if h.Role == role {
				r.Identities++
			}
		}
	}
	return r, nil
}
