package wire

import (
	"net/http"
	"strings"
)

// Reason is what the errors of an answer say, as far as somebody acts on it.
type Reason uint8

// Reasons.
const (
	Unexplained  Reason = iota // nothing that is known here
	AboutToken                 // 403: the token is unknown, expired or revoked; a login may help
	AboutPath                  // 403: the token's policies do not allow it
	AboutRequest               // 403: anything else
	Nothing                    // 404: the backend has nothing at the path
	Sealed                     // 503: the node is sealed, and looked at nothing
	NoLeader                   // 5xx: the node knows no active node
	NotForwarded               // 5xx: the same, said before anything was handed on
	Lags                       // 412: the node lacks a state that is required
	NoForwarding               // 400: the origin does not forward by header
	Locked                     // 503: an administrator locked the namespace: a refusal, not an outage
)

// Texts of Vault, with their places in hashicorp/vault v1.21.0. OpenBao has the
// same, but those of Enterprise.
const (
	textSealed       = "Vault is sealed"                              // ErrSealed in sdk/helper/consts/error.go
	textNoLeader     = "no active Vault instance found"               // respondStandby in http/handler.go
	textNotActive    = "node is not active"                           // the same before 1.20
	textNotForwarded = "active cluster node not found"                // handleRequestForwarding in http/handler.go
	textLags         = "required index state not present"             // ErrMissingRequiredState in sdk/logical/error.go
	textNoForwarding = "disabled in configuration"                    // forwardBasedOnHeaders in http/handler.go
	textLocked       = "API access to this namespace has been locked" // by sys/namespaces/api-lock/lock (Enterprise, OpenBao)
	textDenied       = "permission denied"                            // ErrPermissionDenied in sdk/logical/error.go
	textNoPreflight  = "preflight capability check returned 403"      // pathInternalUIMountRead in vault/logical_system.go
	textInvalidToken = "invalid token"                                // PopulateTokenEntry in vault/request_handling.go
	textBadToken     = "bad token"                                    // handleLookup in vault/token_store.go
)

// Said quotes what of an answer's errors and warnings are Vault's own sentences, with
// "; " between. Whatever else stands there is left out: it may repeat a request, or
// a secret.
func (a Answer) Said() string {
	all := strings.Join(append(a.Errors(), a.texts("warnings")...), "\n")
	var said []string
	for _, text := range [...]string{
		textSealed, textNoLeader, textNotActive, textNotForwarded, textLags, textNoForwarding, textNoPreflight, textDenied, textInvalidToken, textBadToken,
		"rate limit quota exceeded", "lease count quota exceeded", "request limiter", "namespace not found", textLocked,
		"no handler for route", "unsupported path", "unsupported operation", "missing client token", "internal error", "context deadline exceeded",
		"Invalid path for a versioned K/V secrets engine", "check-and-set parameter did not match the current version", "http: request body too large",
	} {
		if strings.Contains(all, text) {
			said = append(said, text)
		}
	}
	return strings.Join(said, "; ")
}

// Reason says what the errors of an answer mean.
func (a Answer) Reason() Reason {
	texts := a.Errors()
	all := strings.Join(texts, "\n")
	says := func(text string) bool { return strings.Contains(all, text) }
	switch {
	case a.Status == http.StatusForbidden:
		return forbidden(texts)
	case a.Status == http.StatusNotFound && a.members != nil && len(texts) == 0:
		return Nothing
	case a.Status == http.StatusPreconditionFailed && says(textLags):
		return Lags
	case a.Status == http.StatusBadRequest && says(textNoForwarding):
		return NoForwarding
	case a.Status == http.StatusServiceUnavailable && says(textSealed):
		return Sealed
	case a.Status == http.StatusServiceUnavailable && says(textLocked):
		return Locked
	case a.Status < 500 && a.Status != 472:
	case says(textNotForwarded):
		return NotForwarded
	case says(textNoLeader), says(textNotActive):
		return NoLeader
	}
	return Unexplained
}

// forbidden says what a 403 is about.
//
// Vault since 1.17 says "2 errors occurred: * permission denied * invalid
// token" of a token that it does not know; a look-up says "bad token". Older
// ones and OpenBao answer a bare "permission denied", where policies that do not
// allow a path read "1 error occurred: * permission denied" (CheckToken in
// vault/request_handling.go of both). A bare one is also what a disabled entity
// or a bound CIDR gives: a login doesn't help there, but does no harm, as it
// happens seldom.
func forbidden(texts []string) Reason {
	why := Unexplained
	for _, t := range texts {
		if strings.TrimSpace(t) == textDenied {
			return AboutToken
		}
		for line := range strings.Lines(t) {
			switch strings.Trim(line, " \t\r\n*") {
			case textInvalidToken, textBadToken:
				return AboutToken
			case textDenied:
				why = AboutPath
			}
		}
		switch {
		case strings.Contains(t, textNoPreflight):
			why = AboutPath
		case why == Unexplained:
			why = AboutRequest
		}
	}
	return why
}

// TokenRefused reports whether an answer whose whole body is here says that the
// token itself is not valid, and not merely that it lacks a capability.
func TokenRefused(status int, body []byte) bool {
	return status == http.StatusForbidden && New(status, nil, body).Reason() == AboutToken
}
