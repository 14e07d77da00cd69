package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wire"
)

// source is where tokens come from: the credentials or the token that the process was
// given, and the origin, which logs in, renews, looks up and revokes. It keeps no
// token, which is Manager's, and remembers of its work only what was refused.
type source struct {
	o     Options
	mount string
	ns    string
	method

	mu       sync.Mutex // guards the fields below
	refused  refusal    // of the credentials that name names
	name     string
	insisted time.Time // when a request last had refused credentials tried
}

// newSource sets up the configured method.
func newSource(o Options) (*source, error) {
	s := &source{o: o, ns: cmp.Or(strings.Trim(o.Auth.Namespace, "/"), strings.Trim(o.Namespace, "/"))}
	a := o.Auth
	var err error
	switch a.Method {
	case config.AuthNone, "":
		return s, nil
	case config.AuthAWS:
		s.method, err = newAWS(o)
	case config.AuthAzure:
		s.method, err = o.platform()
	case config.AuthAppRole:
		if a.RoleID == "" && a.RoleIDFile == "" {
			err = errors.New("auth method approle needs a role id: set THAW_ROLE_ID, THAW_ROLE_ID_FILE or role_id_file_path")
		}
		s.credentials = (&approle{o: o}).credentials
	case config.AuthJWT:
		switch {
		case a.JWTFile != "":
			s.credentials = s.jwt
		case a.AzureResource != "":
			s.method, err = o.platform()
		default:
			err = errors.New("auth method jwt needs a file with the token: set THAW_JWT_FILE or path")
		}
	case config.AuthToken:
		if !headerSafe(string(a.Token)) {
			err = errors.New("auth method token needs a token: set VAULT_TOKEN to one, without spaces or line breaks")
		}
		s.given = func() (string, error) { return string(a.Token), nil }
	case config.AuthTokenFile:
		if a.TokenFile == "" {
			err = errors.New("auth method token_file needs a file: set THAW_TOKEN_FILE or token_file_path")
		}
		s.given = s.tokenFile
	default:
		err = fmt.Errorf("auth method %q is not supported by this build: use aws, azure, approle, jwt, token, token_file or none", a.Method)
	}
	if err == nil && s.given == nil {
		s.mount, err = mountPath(a.Mount, string(a.Method))
	}
	if err == nil && o.Origin == nil {
		err = errors.New("auth: no origin given")
	}
	return s, err
}

// platform is the login by what the platform has.
func (o Options) platform() (method, error) {
	if o.Login == nil {
		return method{}, fmt.Errorf("auth method %s with a managed identity needs thaw-azure, the program for Azure Functions, and an app that has one", o.Auth.Method)
	}
	return o.Login(o)
}

// mountPath is the auth mount's path without "auth/" and outer slashes.
func mountPath(mount, method string) (string, error) {
	p := cmp.Or(strings.TrimPrefix(strings.Trim(mount, "/"), "auth/"), method)
	for s := range strings.SplitSeq(p, "/") {
		if s == "" || s == "." || s == ".." || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '?' || r == '#' || r == '\\' }) {
			return "", fmt.Errorf("auth mount %q is not a path: set VAULT_AUTH_PROVIDER (mount_path) to the mount's name, such as %q", mount, method)
		}
	}
	return p, nil
}

// take reads the given token. If it is the one that is known, that is returned, with
// what is known of it.
func (s *source) take(known *token) (*token, error) {
	value, err := s.given()
	if err != nil {
		return nil, s.loginError(wire.Answer{}, err)
	}
	if known != nil && known.value == value {
		return known, nil
	}
	return &token{value: value, at: s.o.Now()}, nil
}

// logIn logs in, unless the origin refused the same credentials before; insist says
// that somebody asked for it all the same. A given token is read again.
func (s *source) logIn(ctx context.Context, known *token, insist bool) (*token, error) {
	if s.given != nil {
		return s.take(known)
	}
	c, err := s.credentials(ctx)
	if err != nil {
		return nil, s.loginError(wire.Answer{}, err)
	}
	if role := s.o.Auth.Role; role != "" && s.o.Auth.Method != config.AuthAppRole {
		c.fields["role"] = role // else the mount's default role, or for aws the name of the IAM role
	}
	name := s.nameOf(c)
	before := s.refusedBefore(ctx, name)
	if err := s.mayTry(before, insist); err != nil {
		return nil, err
	}
	t, err := s.present(ctx, c)
	return t, s.note(ctx, name, before, err)
}

// present logs in with credentials.
func (s *source) present(ctx context.Context, c credentials) (*token, error) {
	at := s.o.Now()
	a, err := s.send(ctx, wire.Login, "auth/"+s.mount+"/login", "", c.fields)
	var t *token
	if err == nil && a.Status == http.StatusOK {
		t, err = fromAuth(a.Body, at)
	}
	if t == nil {
		return nil, s.loginError(a, err, c.secrets...)
	}
	t.login = true
	if c.done != nil {
		c.done()
	}
	s.o.Log.Debug("logged in", "method", string(s.o.Auth.Method), "mount", s.mount, "role", s.o.Auth.Role,
		"ttl", t.ttl, "renewable", t.renewable, "batch", t.batch)
	if t.uses > 0 {
		s.o.Log.Warn("the token can be used only a few times, then reads fail until the next login: set token_num_uses=0 on the role",
			"role", s.o.Auth.Role, "num_uses", t.uses)
	}
	return t, nil
}
