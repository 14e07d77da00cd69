package demo

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/standin"
)

// thawLike puts the headers of a thaw that has everything in front of an origin.
func thawLike(o http.Handler, token string, headers ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Vault-Token", token)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		o.ServeHTTP(w, r)
	})
}

func serve(t *testing.T, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func newFunction(t *testing.T, base string, paths ...string) *Function {
	f, err := New(base, paths)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestItSaysHowTheReadWentAndNeverAValue(t *testing.T) {
	t.Parallel()
	o := standin.New(standin.Options{})
	o.Root(http.MethodPost, "secret/data/app", `{"data":{"user":"u","password":"planted-canary-1"}}`)
	o.Root(http.MethodPost, "kv/app", `{"api_key":"planted-canary-2"}`)
	base := serve(t, thawLike(o, "root", "X-Cache", "HIT", "Age", "7", "Cache-Status", "thaw; hit; detail=memory"))
	f := newFunction(t, base, "secret/data/app", "kv/app")
	var used []string
	f.Use = func(path string, data map[string]any) {
		for k := range data {
			used = append(used, path+"."+k)
		}
		slices.Sort(used)
	}
	a, err := f.Handle(t.Context(), Event{})
	if err != nil || !a.OK || len(a.Secrets) != 2 {
		t.Fatalf("answer = %+v, %v", a, err)
	}
	s := a.Secrets[0]
	if s.Status != 200 || s.Version != 1 || !slices.Equal(s.Keys, []string{"password", "user"}) || s.XCache != "HIT" || s.Age != 7 ||
		s.CacheStatus != "thaw; hit; detail=memory" || s.Stale {
		t.Errorf("KV version 2: %+v", s)
	}
	if s := a.Secrets[1]; s.Version != 0 || !slices.Equal(s.Keys, []string{"api_key"}) {
		t.Errorf("KV version 1: %+v", s)
	}
	if want := []string{"kv/app.api_key", "secret/data/app.password", "secret/data/app.user"}; !slices.Equal(used, want) {
		t.Errorf("used = %v, want %v", used, want)
	}
	text, err := json.Marshal(a)
	if err != nil || strings.Contains(string(text), "planted-canary") {
		t.Errorf("the answer holds a value: %s (%v)", text, err)
	}
}

func TestItPassesOnWhatThawSays(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"thaw":      {502, `{"errors":["thaw: cannot reach the origin; check VAULT_ADDR"]}`, "502 Bad Gateway: thaw: cannot reach the origin; check VAULT_ADDR"},
		"denied":    {403, `{"errors":["permission denied"]}`, "403 Forbidden: permission denied"},
		"not there": {404, `{"errors":[]}`, "data/ after the mount"},
		"not JSON":  {500, `<html>`, "500 Internal Server Error"},
		"bad JSON":  {200, `{"data":{"password":"planted-canary`, "the answer is not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFunction(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body))
			})), "secret/data/app")
			a, err := f.Handle(t.Context(), Event{})
			if err != nil || a.OK || !strings.Contains(a.Secrets[0].Error, tt.want) || strings.Contains(a.Secrets[0].Error, "planted") {
				t.Errorf("answer = %+v, %v", a, err)
			}
		})
	}
}

// TestTheEnvironmentsClientSettingsAreThaws: the token and the namespace in the
// function's environment are for thaw, and a local token is for the function.
func TestTheEnvironmentsClientSettingsAreThaws(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "thaws-own")
	t.Setenv("VAULT_NAMESPACE", "team")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	var got http.Header
	base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	f, err := FromEnv(func(name string) string {
		return map[string]string{"SECRETS_URL": base, "SECRET_PATH": "secret/data/app", "THAW_LOCAL_TOKEN": "local"}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := f.Handle(t.Context(), Event{})
	if err != nil || a.Secrets[0].Status != http.StatusServiceUnavailable {
		t.Errorf("%+v, %v", a, err)
	}
	if got.Get("X-Vault-Token") != "" || got.Get("X-Vault-Namespace") != "" || got.Get("X-Thaw-Token") != "local" || got.Get("X-Vault-Request") != "true" {
		t.Errorf("%v", got)
	}
}

func TestItExplainsAMissingThaw(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	a, err := newFunction(t, s.URL, "secret/data/app").Handle(t.Context(), Event{})
	if err != nil || a.OK || !strings.Contains(a.Secrets[0].Error, "is thaw there?") {
		t.Errorf("answer = %+v, %v", a, err)
	}
}

func TestTheCallerCannotChooseAnotherPath(t *testing.T) {
	t.Parallel()
	var asked int
	f := newFunction(t, serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ })), "secret/data/app", "secret/data/b")
	for _, path := range []string{"secret/data/other", "secret/data/app/../other", "sys/leader", "secret/data/APP"} {
		if _, err := f.Handle(t.Context(), Event{Path: path}); err == nil {
			t.Errorf("path %q was accepted", path)
		}
	}
	if asked != 0 {
		t.Errorf("%d requests were sent", asked)
	}
	if a, err := f.Handle(t.Context(), Event{Path: "secret/data/b"}); err != nil || len(a.Secrets) != 1 || a.Secrets[0].Path != "secret/data/b" {
		t.Errorf("answer = %+v, %v", a, err)
	}
}

func TestFromEnv(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env     map[string]string
		base    string
		paths   []string
		wantErr string
	}{
		"default":              {map[string]string{"SECRET_PATH": "secret/data/a, /kv/b/ ,"}, DefaultURL, []string{"secret/data/a", "kv/b"}, ""},
		"SECRETS_URL wins":     {map[string]string{"SECRET_PATH": "a", "SECRETS_URL": "http://[::1]:1", "VAULT_ADDR": "http://127.0.0.1:2"}, "http://[::1]:1", []string{"a"}, ""},
		"VAULT_ADDR at thaw":   {map[string]string{"SECRET_PATH": "a", "VAULT_ADDR": "http://localhost:2"}, "http://localhost:2", []string{"a"}, ""},
		"VAULT_ADDR at Vault":  {map[string]string{"SECRET_PATH": "a", "VAULT_ADDR": "https://vault.example.com:8200"}, DefaultURL, []string{"a"}, ""},
		"no path":              {map[string]string{}, "", nil, "SECRET_PATH is not set"},
		"a URL that is no URL": {map[string]string{"SECRET_PATH": "a", "SECRETS_URL": "127.0.0.1:8200"}, "", nil, "is not a URL like"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := FromEnv(func(k string) string { return tt.env[k] })
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error = %v", err)
				}
				return
			}
			if err != nil || f.base.String() != tt.base || !slices.Equal(f.paths, tt.paths) {
				t.Errorf("got %v %v, %v", f.base, f.paths, err)
			}
		})
	}
}
