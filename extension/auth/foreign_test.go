package auth

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// says answers every request alike, as Vault or something before it would.
type says struct {
	status     int
	kind, body string
}

func (a says) Do(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: http.Header{"Content-Type": {a.kind}}, Body: io.NopCloser(strings.NewReader(a.body))}, nil
}

// TestAGatewaysRefusalIsNoRefusal: a login is refused by Vault's word only, which
// ends what the identity may read. Anything else is an origin that could not answer.
func TestAGatewaysRefusalIsNoRefusal(t *testing.T) {
	t.Parallel()
	const asJSON, asHTML = "application/json", "text/html"
	for name, c := range map[string]struct {
		answer says
		status int // of the error; 0: it didn't come to an answer
	}{
		"refused":             {says{400, asJSON, `{"errors":["invalid role or secret ID"]}`}, 400},
		"denied":              {says{403, asJSON, `{"errors":["permission denied"]}`}, 403},
		"not there":           {says{404, asJSON, `{"errors":[]}`}, 404},
		"sealed":              {says{503, asJSON, `{"errors":["Vault is sealed"]}`}, 503},
		"a balancer's 503":    {says{503, asHTML, `<html>`}, 503},
		"a gateway's 403":     {says{403, asJSON, `{"message":"Forbidden"}`}, 0},
		"a page of 403":       {says{403, asHTML, `<html>`}, 0},
		"envoy's 404":         {says{404, "", ``}, 0},
		"a proxy's 407":       {says{407, asHTML, `<html>`}, 0},
		"errors of no JSON":   {says{403, asHTML, `{"errors":["permission denied"]}`}, 0},
		"a foreign 200":       {says{200, asJSON, `{"status":"maintenance"}`}, 0},
		"a foreign 200, auth": {says{200, asJSON, `{"auth":{}}`}, 0},
		"a page that is JSON": {says{200, asHTML, `{"request_id":"x","auth":{"client_token":"hvs.x"}}`}, 0},
		"a token of nobody":   {says{200, asJSON, `{"auth":{"client_token":"hvs.x"}}`}, 0},
	} {
		m, err := New(Options{Config: config.Config{Auth: config.Auth{Method: config.AuthAppRole, RoleID: "r", SecretID: "s"}}, Origin: c.answer})
		if err != nil {
			t.Fatal(err)
		}
		token, err := m.Token(t.Context())
		var refused *LoginError
		if token != "" || !errors.As(err, &refused) || refused.Status != c.status {
			t.Errorf("%s: %q, %v", name, token, err)
		}
		if err != nil && strings.Contains(err.Error(), "<html>") {
			t.Errorf("%s: the error quotes the page", name)
		}
		m.Shutdown(t.Context())
	}
}

// TestAForeignLookUpSaysNothingOfTheToken: neither how long it lasts nor whose it is.
func TestAForeignLookUpSaysNothingOfTheToken(t *testing.T) {
	t.Parallel()
	const asJSON, asHTML = "application/json", "text/html"
	for name, c := range map[string]struct {
		answer says
		known  bool
	}{
		"Vault's":          {says{200, asJSON, `{"request_id":"x","data":{"ttl":60,"creation_ttl":60}}`}, true},
		"refused":          {says{403, asJSON, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`}, true},
		"maintenance":      {says{200, asJSON, `{"status":"maintenance"}`}, false},
		"data alone":       {says{200, asJSON, `{"data":{}}`}, false},
		"data without ttl": {says{200, asJSON, `{"request_id":"x","data":{"status":"ok"}}`}, false},
		"no request_id":    {says{200, asJSON, `{"data":{"ttl":60}}`}, false},
		"a page":           {says{200, asHTML, `{"request_id":"x","data":{"ttl":60}}`}, false},
		"a login":          {says{200, asJSON, `{"request_id":"x","data":null,"auth":{"client_token":"hvs.x"}}`}, false},
		"nothing":          {says{204, "", ``}, false},
		"a gateway's 403":  {says{403, asJSON, `{"message":"Forbidden"}`}, false},
	} {
		m, err := New(Options{Config: config.Config{Auth: config.Auth{Method: config.AuthToken, Token: "hvs.given"}}, Origin: c.answer})
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.source.lookup(t.Context(), &token{value: "hvs.given"})
		if known := err == nil && got.known; known != c.known {
			t.Errorf("%s: known %v, %v", name, known, err)
		}
		m.Shutdown(t.Context())
	}
}
