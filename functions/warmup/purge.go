package warmup

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// versionsPurged is how many versions of a secret are removed unless more are
// known. Vault keeps 10 unless it is told otherwise
// (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#max_versions).
const versionsPurged = 100

// ErrUntaken says that a Purge or a Revoke is not done.
var ErrUntaken = errors.New("memcached did not take all of it: try again when it can be reached")

// Purged is what a purge did.
type Purged struct {
	Path      string `json:"path"`
	Audiences int    `json:"audiences"`
	Keys      int    `json:"keys"` // that may have held something of it
}

// Purge removes what the tier holds of one secret, for every audience: its
// data, versions, metadata and subkeys, and the lists above it. Whatever was
// read before now does not come back. Instances drop their own copies when they
// next verify them. The error is ErrUntaken, or what is wrong with the path. path is one of the API, or of the command line without
// data/.
func Purge(ctx context.Context, audiences []Audience, path string, now time.Time) (Purged, error) {
	path = strings.Trim(strings.TrimPrefix(path, "/v1/"), "/")
	if !cache.Classify(http.MethodGet, &url.URL{Path: "/v1/" + path}, "").Cacheable {
		return Purged{}, errors.New("this cannot be the path of a cached secret: it has an empty or dot segment, a percent sign, a backslash or a control character")
	}
	p, lost := Purged{Path: path, Audiences: len(audiences)}, 0
	for _, a := range audiences {
		versions := versionsPurged
		for _, r := range a.Entries(ctx, cache.ResourceKeys(a.Namespace, path, 0)) {
			versions = max(versions, min(r.Version, 10*versionsPurged))
		}
		for keys := range slices.Chunk(cache.ResourceKeys(a.Namespace, path, versions), 100) {
			lost += a.Remove(ctx, keys, now)
			p.Keys += len(keys)
		}
	}
	if lost > 0 {
		return p, ErrUntaken
	}
	return p, nil
}
