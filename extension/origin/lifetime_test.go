package origin

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
)

// says answers every request with one body.
func says(body string) tells {
	status := http.StatusOK
	if strings.HasPrefix(body, `{"errors"`) {
		status = http.StatusForbidden
	}
	return tells{status, "application/json", body}
}

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
		{"an hour left", `{"request_id":"r","data":{"ttl":3600,"creation_ttl":7200}}`, time.Hour},
		{"a second left", `{"request_id":"r","data":{"ttl":1,"creation_ttl":2}}`, time.Second},
		{"less than a second left", `{"request_id":"r","data":{"ttl":0,"creation_ttl":2}}`, time.Nanosecond},
		{"ended meanwhile", `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, time.Nanosecond},
		{"no end", `{"request_id":"r","data":{"ttl":0,"creation_ttl":0,"expire_time":null}}`, 0},
	} {
		status, token, err := New(Options{Client: says(c.body), Tokens: tokens}).LookUp(t.Context(), &cache.Identity{Token: "x"}, "")
		got := time.Duration(0)
		if !token.Expires.IsZero() {
			got = token.Expires.Sub(token.Asked)
		}
		if err != nil || status != http.StatusOK || got != c.want {
			t.Errorf("%s: %v, status %d, %v", c.name, got, status, err)
		}
	}
}

// anchors counts what a cursor is told.
type anchors struct{ answered chan struct{} }

func (a anchors) Index(context.Context, uint64) cache.Index { return cache.Index{} }
func (a anchors) Ask(context.Context, uint64) error         { return nil }
func (a anchors) Seen(http.Header)                          {}
func (a anchors) Learn(context.Context)                     { a.answered <- struct{}{} }

func TestTheCursorHearsOfTheFirstAnswerWhenItIsRead(t *testing.T) {
	t.Parallel()
	tokens, err := auth.New(auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cursor := anchors{make(chan struct{}, 10)}
	s := New(Options{Client: says(`{}`), Tokens: tokens, Cursor: cursor})
	defer s.Close()
	for i := range 3 {
		res, err := s.Read(t.Context(), cache.Question{Key: cache.Key{Path: "secret/data/a"}, ID: &cache.Identity{}, Retry: true})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && len(cursor.answered) != 0 {
			t.Error("told before the answer was read")
		}
		res.Body.Close()
	}
	<-cursor.answered // the read waits for it, but not for long
	s.Close()
	if n := len(cursor.answered); n != 0 {
		t.Errorf("told %d times, want once", 1+n)
	}
}
