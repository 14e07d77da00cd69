package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/wire"
)

// LoginError says why there is no token and what to check. It never holds a
// secret. It wraps the cause, so that a caller can tell an origin that could
// not be reached (a net.Error, or Status 5xx or 429) from a refusal.
type LoginError struct {
	Method    string // aws, approle, ...
	Mount     string // where the method is mounted, without "auth/"; empty for given tokens
	Role      string // may be empty
	Namespace string // empty: root
	Status    int    // the origin's answer; 0: it didn't come to one
	Reason    string // what the origin said, or what went wrong
	Check     string // what to look at; may be empty
	Err       error  // the cause; nil if the origin refused
}

// Error tells what happened, where, and what to do.
func (e *LoginError) Error() string {
	text := "log in to Vault with " + e.Method
	for _, part := range []struct {
		told bool
		text string
	}{
		{e.Mount != "", " at auth/" + e.Mount},
		{e.Role != "", ", role " + strconv.Quote(e.Role)},
		{e.Namespace != "", ", namespace " + strconv.Quote(e.Namespace)},
		{e.Status != 0, ": status " + strconv.Itoa(e.Status)},
		{e.Reason != "", ": " + e.Reason},
		{e.Check != "", " (" + e.Check + ")"},
	} {
		if part.told {
			text += part.text
		}
	}
	return text
}

// Unwrap returns the cause.
func (e *LoginError) Unwrap() error { return e.Err }

// loginError describes a failed login: by cause, or by the origin's answer.
func (s *source) loginError(answer wire.Answer, cause error, secrets ...string) *LoginError {
	a := s.o.Auth
	e := &LoginError{Method: string(a.Method), Mount: s.mount, Role: a.Role, Namespace: s.ns, Status: answer.Status, Err: cause}
	keys := s.o.Platform.AWS
	secrets = append(secrets, string(a.Token), string(a.SecretID), string(keys.SecretAccessKey), string(keys.SessionToken), string(keys.CredentialsAuth))
	if cause != nil {
		e.Reason = redact(cause.Error(), secrets...)
		if strings.Contains(e.Reason, hidden) {
			e.Err = errors.New(e.Reason) // the chain would show what was hidden
		}
		if of, ok := errors.AsType[*valueError](cause); ok {
			e.Check = of.check()
		}
		return e
	}
	e.Reason = reason(answer, secrets...)
	e.Check = s.o.Named(s.check(answer.Status, e.Reason))
	return e
}

// impatient is the error for a caller whose time was over, or who left, before
// the exchange with the origin was.
func (s *source) impatient(kind string, cause error) error {
	if errors.Is(cause, context.Canceled) {
		return fmt.Errorf("wait for the %s: %w", kind, cause)
	}
	e := s.loginError(wire.Answer{}, cause)
	e.Reason = "no answer in time: " + e.Reason
	e.Check = s.o.Named("check VAULT_ADDR and, in a VPC, the security group and the route or NAT to the origin; VAULT_CLIENT_TIMEOUT is the longest wait")
	return e
}

// invalid is the error for a given token that the origin doesn't accept.
func (s *source) invalid() *LoginError {
	return &LoginError{
		Method: string(s.o.Auth.Method), Namespace: s.ns, Status: http.StatusForbidden,
		Reason: "the origin refuses the token it was given as invalid", Check: s.where(),
	}
}

// check says what to check for the refusals that users meet. The texts are
// those of Vault's auth backends, builtin/credential/aws/path_login.go and
// others; they may change, then there is no advice.
func (s *source) check(status int, text string) string {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	ns := "the root namespace"
	if s.ns != "" {
		ns = "namespace " + strconv.Quote(s.ns)
	}
	switch {
	case has("namespace not found", "no namespace"):
		return "there is no " + ns + ": check VAULT_NAMESPACE"
	case status == http.StatusNotFound, has("no handler for route", "unsupported path", "missing client token"):
		return "no auth method seems to be mounted at auth/" + s.mount + " in " + ns + ": check VAULT_AUTH_PROVIDER and VAULT_NAMESPACE"
	case status == http.StatusTooManyRequests:
		return "a rate limit quota of the origin"
	}
	if s.advice != nil && (status < 500 || s.o.Auth.Method != config.AuthAWS) { // Vault's azure method refuses with 500 too
		if s := s.advice(has); s != "" {
			return s
		}
	}
	switch {
	case status >= 500:
		return "the origin is not able to serve now"
	case status == http.StatusForbidden:
		return "the role's token_bound_cidrs may exclude this address, or nothing is mounted at auth/" + s.mount + " in " + ns + ": check VAULT_AUTH_PROVIDER and VAULT_NAMESPACE"
	case has("invalid role or secret ID", "invalid secret id", "invalid secret_id", "invalid role ID", "missing role_id", "missing secret_id"):
		return "check the role id, and that the secret id has not expired, is not used up and is allowed from this address"
	case has("audience"):
		return "the JWT's audience must be among the role's bound_audiences"
	case has("could not be found", "not found", "unknown role"):
		return "check VAULT_AUTH_ROLE"
	case has("not yet valid", "issued in the future", "used before issued"):
		return "the JWT is not valid yet: compare the clock of what issues it with Vault's (thaw doctor, line clock)"
	case has("token is expired", "expired"):
		return "the JWT has expired: whatever writes THAW_JWT_FILE must renew it"
	}
	return ""
}

// maxReason bounds what is quoted of the origin's answer, in bytes.
const maxReason = 300

// reason quotes the errors of an answer, on one line, without secrets.
func reason(answer wire.Answer, secrets ...string) string {
	texts := answer.Errors()
	if len(texts) == 0 {
		return "no reason given"
	}
	text := strings.Join(texts, "; ")
	if before, doc, ok := strings.Cut(text, "<ErrorResponse"); ok && element(doc, "Code") != "" {
		// Vault quotes STS's whole XML.
		text = before + element(doc, "Code") + ": " + element(doc, "Message")
	}
	return redact(text, secrets...)
}

// plainJSON strips an error of encoding/json of what it quotes of its input.
func plainJSON(err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("syntax error at byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("field %s has another type", e.Field)
	}
	return errors.New("malformed")
}
