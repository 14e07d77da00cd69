package origin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// server is the stand-in behind what a session sends by. It remembers requests, and
// calls the token of the nth login hvs.n.
type server struct {
	*standin.Origin

	mu     sync.Mutex
	tokens map[string]string // their names
	logins int
	refuse int  // status of logins, if not 0
	bare   bool // an invalid token gets OpenBao's bare "permission denied"
	seen   []request
	other  map[string]string // answers of engines that the stand-in doesn't have, and of no Vault at all, by path
}

type request struct {
	method, path, query, token, body string
	header                           http.Header
	once, harmless                   bool
}

const (
	invalidToken = `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}` + "\n"
	denial       = `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}` + "\n"
	bareDenial   = `{"errors":["permission denied"]}` + "\n"
)

// newServer has secrets, a role whose id and secret id are returned, and the policies
// app, which allows everything, and a, which allows reading secret/data/a.
func newServer(now func() time.Time) (v *server, roleID, secretID string) {
	v = &server{Origin: standin.New(standin.Options{Now: now, Empty: true}), tokens: map[string]string{}, other: map[string]string{}}
	for _, mount := range []string{"secret", "kv", "x"} {
		v.Mount(mount, 2)
	}
	for _, path := range []string{"secret/data/a", "secret/data/b", "secret/data/other", "kv/data/a"} {
		v.Root(http.MethodPost, path, `{"data":{"v":"x"}}`)
	}
	v.SetPolicy("app", map[string][]string{"*": {"create", "read", "update", "list"}})
	v.SetPolicy("a", map[string][]string{"secret/data/a": {"read"}})
	roleID, secretID = v.grant("app")
	return v, roleID, secretID
}

// grant gives further logins policies.
func (v *server) grant(policies ...string) (roleID, secretID string) {
	return v.AddAppRole("app", standin.AppRole{Policies: policies, TTL: time.Hour, Batch: true})
}

// revoke makes every token invalid.
func (v *server) revoke() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for token := range v.tokens {
		v.RevokeToken(token)
	}
}

func (v *server) Do(r *http.Request) (*http.Response, error)     { return v.answer(r, false) }
func (v *server) DoOnce(r *http.Request) (*http.Response, error) { return v.answer(r, true) }

func (v *server) answer(r *http.Request, once bool) (*http.Response, error) {
	if r.Context().Err() != nil {
		return nil, context.Cause(r.Context())
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	body := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(b)
	}
	path, token, login := r.URL.Path, r.Header.Get("X-Vault-Token"), r.URL.Path == "/v1/auth/approle/login"
	sent := r.Clone(r.Context())
	sent.Body = io.NopCloser(strings.NewReader(body))
	w := httptest.NewRecorder()
	v.ServeHTTP(w, sent)
	status, text := w.Code, w.Body.String()
	switch {
	case login:
		v.logins++
		if v.refuse != 0 {
			status, text = v.refuse, bareDenial
			break
		}
		var said struct {
			Auth struct {
				ClientToken string `json:"client_token"`
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil {
			return nil, err
		}
		v.tokens[said.Auth.ClientToken] = fmt.Sprintf("hvs.%d", v.logins)
	case text == invalidToken && v.bare:
		text = bareDenial
	case text != invalidToken && v.other[path] != "":
		status, text = http.StatusOK, v.other[path]
	}
	if !login {
		v.seen = append(v.seen, request{r.Method, path, r.URL.RawQuery, cmp.Or(v.tokens[token], token), body, r.Header.Clone(), once, r.Context().Value(harmlessKey{}) != nil})
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: r,
	}, nil
}

// requests returns what came besides logins since the last call, and how many
// logins there were in all.
func (v *server) requests() ([]request, int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	seen := v.seen
	v.seen = nil
	return seen, v.logins
}
