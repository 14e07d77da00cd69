package origin

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
)

// says answers every request with one body.
type says string

func (b says) Do(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(b)))}, nil
}

func (b says) DoOnce(r *http.Request) (*http.Response, error) { return b.Do(r) }

func TestG2TheLastSecondOfATokenIsNotForEver(t *testing.T) {
	t.Parallel()
	tokens, err := auth.New(auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body string
		want       time.Duration
	}{
		{"an hour left", `{"data":{"ttl":3600,"creation_ttl":7200}}`, time.Hour},
		{"a second left", `{"data":{"ttl":1,"creation_ttl":2}}`, time.Second},
		{"less than a second left", `{"data":{"ttl":0,"creation_ttl":2}}`, time.Nanosecond},
		{"no end", `{"data":{"ttl":0,"creation_ttl":0,"expire_time":null}}`, 0},
	} {
		status, got, err := New(says(c.body), tokens, nil).Lifetime(t.Context(), &cache.Identity{Token: "x"}, "")
		if err != nil || status != http.StatusOK || got != c.want {
			t.Errorf("%s: %v, status %d, %v", c.name, got, status, err)
		}
	}
}
