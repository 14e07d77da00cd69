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

// tells answers every request alike, as Vault or something before it would.
type tells struct {
	status  int
	content string
	body    string
}

func (a tells) Do(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.status, Header: http.Header{"Content-Type": {a.content}}, Body: io.NopCloser(strings.NewReader(a.body)), ContentLength: int64(len(a.body)),
	}, nil
}

func (a tells) DoOnce(r *http.Request) (*http.Response, error) { return a.Do(r) }

// TestOnlyVaultsWordTakesACapability is the table of answers to the questions after
// capabilities and lifetimes. An error is an origin that could not answer.
func TestOnlyVaultsWordTakesACapability(t *testing.T) {
	t.Parallel()
	tokens, err := auth.New(auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const asJSON, asHTML, asText = "application/json", "text/html", "text/plain"
	const failed = 0
	const genuine = `{"request_id":"r","data":{"p":["read"],"ttl":60},"wrap_info":null,"auth":null}`
	for name, c := range map[string]struct {
		answer tells
		want   int // the status; failed: an error
	}{
		"genuine":              {tells{200, asJSON, genuine}, 200},
		"too long":             {tells{200, asJSON, `{"request_id":"r","data":{"ttl":1,"x":"` + strings.Repeat("x", maxAnswer) + `"}}`}, 422},
		"wrapped":              {tells{200, asJSON, `{"request_id":"","data":null,"wrap_info":{"token":"x"}}`}, 422},
		"of another type":      {tells{200, asJSON, `{"request_id":"r","data":{"ttl":"x"}}`}, 422},
		"maintenance":          {tells{200, asJSON, `{"status":"maintenance"}`}, failed},
		"an empty object":      {tells{200, asJSON, `{}`}, failed},
		"null":                 {tells{200, asJSON, `null`}, failed},
		"errors":               {tells{200, asJSON, `{"errors":["x"]}`}, failed},
		"a page":               {tells{200, asHTML, `<html></html>`}, failed},
		"text":                 {tells{200, asText, genuine}, failed},
		"empty":                {tells{200, asJSON, ``}, failed},
		"no content":           {tells{204, asJSON, ``}, failed},
		"cut off":              {tells{200, asJSON, genuine[:40]}, failed},
		"denied":               {tells{403, asJSON, denial}, 403},
		"denied by a gateway":  {tells{403, asJSON, `{"message":"Forbidden"}`}, failed},
		"denied by a page":     {tells{403, asHTML, `<html></html>`}, failed},
		"denied without words": {tells{403, asText, ``}, failed},
		"not found":            {tells{404, asJSON, `{"errors":[]}`}, 404},
		"envoy's not found":    {tells{404, asText, ``}, failed},
		"refused":              {tells{400, asJSON, `{"errors":["x"]}`}, 400},
		"refused by a gateway": {tells{400, asHTML, `<html></html>`}, failed},
		"a timeout":            {tells{408, asHTML, `<html></html>`}, failed},
		"over a quota":         {tells{429, asJSON, `{"errors":["x"]}`}, 429},
		"limited by a gateway": {tells{429, asHTML, `slow down`}, 429},
		"sealed":               {tells{503, asJSON, `{"errors":["Vault is sealed"]}`}, 503},
		"a balancer's 502":     {tells{502, asHTML, `<html></html>`}, 502},
	} {
		s := New(Options{Client: c.answer, Tokens: tokens})
		id := &cache.Identity{Token: "x"}
		status, token, err := s.LookUp(t.Context(), id, "")
		ttl := token.Expires.Sub(token.Asked)
		if (err != nil) != (c.want == failed) || err == nil && status != c.want || err == nil && (status == 200) != (ttl == time.Minute) {
			t.Errorf("%s: lifetime %v, status %d, %v", name, ttl, status, err)
		}
		if name == "of another type" {
			continue // that is about ttl
		}
		status, held, err := s.Capabilities(t.Context(), id, "", []string{"p"})
		if (err != nil) != (c.want == failed) || err == nil && status != c.want || err == nil && (status == 200) != (len(held["p"]) == 1) {
			t.Errorf("%s: capabilities %v, status %d, %v", name, held, status, err)
		}
		if err != nil && strings.Contains(err.Error(), "<html>") {
			t.Errorf("%s: the error quotes the body: %v", name, err)
		}
	}
}
