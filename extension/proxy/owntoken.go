package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// Where an answer under thaw's own token names that token
// (https://developer.hashicorp.com/vault/api-docs/auth/token): lookup-self and
// renew-self always do; lookup and renew take a missing token for the one that asks.
// Vault knows one token in two forms, so what equals the header's is not all of it:
// id and accessor are taken out unless the request itself names another token. The
// rest of the API names tokens that it makes, or that the caller names.

// tellsOwnToken reports whether the answer for an API path may name the token that
// asks.
func tellsOwnToken(apiPath string) bool { return tellingPart(apiPath) != "" }

// tellingPart is the part of such an answer that does; empty: none.
func tellingPart(apiPath string) string {
	_, call, ok := strings.Cut(path.Clean("/"+apiPath), "/auth/token/")
	switch call, _, _ = strings.Cut(call, "/"); { // a token may stand behind it
	case !ok:
	case call == "lookup", call == "lookup-self":
		return "data"
	case call == "renew", call == "renew-self":
		return "auth"
	}
	return ""
}

// named is the token that a request names; empty: none. Vault reads what a GET says
// from its query, and what others say from their body.
func (p *pass) named() string {
	if p.r.Method == http.MethodGet || p.r.Method == http.MethodHead {
		return p.r.URL.Query().Get("token")
	}
	var body map[string]any
	_ = json.Unmarshal(p.text, &body) // else it names none
	named, _ := body["token"].(string)
	return named
}

// hideOwnToken takes thaw's own token and accessor out of an answer that names them.
// What cannot be looked into, a wrapped answer for one, is not passed on.
func hideOwnToken(res *http.Response, p *pass) error {
	asked := apiPath(p.r)
	part := tellingPart(asked)
	if part == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	res.Body.Close()
	if err != nil {
		return err
	}
	var answer, inner map[string]json.RawMessage
	if json.Unmarshal(body, &answer) != nil || json.Unmarshal(answer[part], &inner) != nil || inner == nil {
		return errors.New("the origin's answer about thaw's own token could not be looked into (is it wrapped?), so it is not passed on")
	}
	own := res.Request.Header.Get(tokenHeader)
	var id string
	_ = json.Unmarshal(inner["id"], &id)
	if self := strings.HasSuffix(strings.TrimRight(path.Clean(asked), "/"), "-self"); self || id == own || p.named() == "" || p.named() == own {
		for _, f := range [...]string{"id", "client_token", "accessor"} {
			delete(inner, f)
		}
	}
	if answer[part], err = json.Marshal(inner); err != nil {
		return err
	}
	if body, err = json.Marshal(answer); err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	res.ContentLength = int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}
