package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/thaw-project/thaw/extension/config"
)

// method is one way to a token: credentials to log in with, or a token that the process
// was given.
type method struct {
	credentials func(context.Context) (credentials, error) // what a login sends; nil: a token is given
	given       func() (string, error)                     // says which
	advice      func(has func(...string) bool) string      // what to check for refusals of its own; nil: it has none
}

// credentials are the fields of one login.
type credentials struct {
	fields  map[string]string // besides the role
	secrets []string          // values that must never be quoted
	id      []string          // what tells them from others; nil: the secrets
	done    func()            // called after the login succeeded; may be nil
}

// approle logs in with a role id and a secret id, see
// https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle.
type approle struct {
	o      Options
	secret atomic.Pointer[string] // the secret id that was read last, for when its file is gone
}

func (a *approle) credentials(context.Context) (credentials, error) {
	c := a.o.Auth
	role := c.RoleID
	if role == "" {
		var err error
		if role, err = ReadValue(c.RoleIDFile, "role id"); err != nil {
			return credentials{}, err
		}
	}
	fields := map[string]string{"role_id": role}
	secret, fromFile, err := a.secretID()
	if err != nil {
		return credentials{}, err
	}
	if secret != "" {
		fields["secret_id"] = secret // a role without bind_secret_id has none
	}
	out := credentials{fields: fields, secrets: []string{role, secret}}
	if fromFile && !c.KeepSecret {
		out.done = func() { a.remove(c.SecretFile) }
	}
	return out, nil
}

// secretID returns the secret id. A file that is gone because it was removed
// after the last login leaves what was read then, as Vault Agent does.
func (a *approle) secretID() (secret string, fromFile bool, err error) {
	c := a.o.Auth
	if c.SecretFile == "" || c.SecretID != "" {
		return string(c.SecretID), false, nil
	}
	secret, err = ReadValue(c.SecretFile, "secret id")
	if old := a.secret.Load(); old != nil && errors.Is(err, fs.ErrNotExist) {
		return *old, false, nil
	}
	if err == nil {
		a.secret.Store(&secret)
	}
	return secret, err == nil, err
}

func (a *approle) remove(file string) {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.o.Log.Warn("the secret id's file could not be removed after the login: allow it, or set remove_secret_id_file_after_reading = false",
			"file", file, "error", err)
	}
}

// jwt logs in with a token that something else writes to a file, see
// https://developer.hashicorp.com/vault/api-docs/auth/jwt#jwt-login.
func (s *source) jwt(context.Context) (credentials, error) {
	t, err := ReadValue(s.o.Auth.JWTFile, "JWT")
	return credentials{fields: map[string]string{"jwt": t}, secrets: []string{t}}, err
}

// tokenFile is the given token of method token_file.
func (s *source) tokenFile() (string, error) {
	t, err := ReadValue(s.o.Auth.TokenFile, "token")
	if err == nil && !headerSafe(t) {
		err = &valueError{"token", s.o.Auth.TokenFile, errors.New("it holds something else than one token")}
	}
	return t, err
}

// where says where a given token comes from, for messages.
func (s *source) where() string {
	if s.o.Auth.Method == config.AuthTokenFile {
		return "write a valid token to " + s.o.Auth.TokenFile
	}
	return "give a valid one in VAULT_TOKEN"
}

// maxValue bounds a credential file, in bytes.
const maxValue = 64 << 10

// ReadValue reads a small file that holds one value, which is never empty. what
// names the value in an error.
func ReadValue(file, what string) (string, error) {
	raw, err := os.ReadFile(file)
	raw = bytes.TrimSpace(raw)
	switch {
	case err != nil:
	case len(raw) == 0:
		err = errors.New("it is empty")
	case len(raw) > maxValue:
		err = fmt.Errorf("it is larger than %d bytes", maxValue)
	default:
		return string(raw), nil
	}
	return "", &valueError{what, file, err}
}

// valueError is about a file that should hold one value, and does not, or cannot be
// read.
type valueError struct {
	what, file string // the value's name; where it should be
	err        error
}

func (e *valueError) Error() string {
	cause := e.err
	if of, ok := errors.AsType[*fs.PathError](cause); ok {
		cause = of.Err // the path stands before it
	}
	return "read the " + e.what + " in " + e.file + ": " + cause.Error()
}

func (e *valueError) Unwrap() error { return e.err }

// check says what to do about it.
func (e *valueError) check() string {
	switch {
	case errors.Is(e.err, fs.ErrNotExist):
		return "there is no such file: check its path, and that what writes the " + e.what + " runs"
	case errors.Is(e.err, fs.ErrPermission):
		return "thaw's user may not read it: check the owner and the mode of the file and the folders above it"
	}
	return "write the " + e.what + ", and nothing else, to that file"
}
