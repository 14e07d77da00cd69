package origin

import (
	"maps"
	"net/http"
	"testing"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
)

// between is a cache in front of the origin.
type between struct {
	tells
	header http.Header
}

func (a between) Do(r *http.Request) (*http.Response, error) {
	res, err := a.tells.Do(r)
	maps.Copy(res.Header, a.header)
	return res, err
}

func (a between) DoOnce(r *http.Request) (*http.Response, error) { return a.Do(r) }

// TestG2WhatACacheInBetweenSaysOfATokenMayBeAboutAnother: it looks at the URL, and all
// tokens ask at the same one.
func TestG2WhatACacheInBetweenSaysOfATokenMayBeAboutAnother(t *testing.T) {
	t.Parallel()
	tokens, err := auth.New(auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const genuine = `{"request_id":"r","data":{"p":["read"],"ttl":60,"orphan":true},"wrap_info":null,"auth":null}`
	const ended = `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`
	for _, h := range []http.Header{{"Age": {"0"}}, {"X-Cache": {"Hit from x"}}, {"Cache-Status": {"x; hit"}}, {}} {
		for _, c := range []struct {
			status int
			body   string
			want   int
		}{{200, genuine, 200}, {403, ended, 403}, {404, `{"errors":[]}`, 404}, {503, `{"errors":["Vault is sealed"]}`, 503}} {
			s := New(Options{Client: between{tells{c.status, "application/json", c.body}, h}, Tokens: tokens})
			want, cached := c.want, len(h) > 0
			if cached && want < 500 {
				want = http.StatusUnprocessableEntity
			}
			id := &cache.Identity{Token: "x"}
			if status, held, err := s.Capabilities(t.Context(), id, "", []string{"p"}); status != want || err != nil || (len(held) > 0) != (want == 200) {
				t.Errorf("capabilities, %d with %v: %d %v %v", c.status, h, status, held, err)
			}
			if !cached && c.status == 403 {
				want = 200 // the token has ended: that is known of it
			}
			status, token, err := s.LookUp(t.Context(), id, "")
			if status != want || err != nil || token.Expires.IsZero() != (want != 200) || token.Orphan != (want == 200 && c.status == 200) {
				t.Errorf("look-up, %d with %v: %d %+v %v", c.status, h, status, token, err)
			}
		}
	}
}
