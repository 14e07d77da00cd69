package wire

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Endpoint is what was asked, as far as it decides the shape of the answer.
type Endpoint uint8

// Endpoints; the table in the package comment says what each answers.
const (
	Other        Endpoint = iota // a read of anything else
	Secret                       // a read of KV, of its metadata, or of the mounts preflight
	List                         // a list
	Write                        // whatever changes something
	Leader                       // sys/leader
	Health                       // sys/health
	Capabilities                 // sys/capabilities-self
	Lookup                       // auth/token/lookup-self
	Login                        // a login or a renewal
)

// Word is what an answer comes to.
type Word uint8

// Words.
const (
	Failure Word = iota // the origin could not answer: its own 429, 472, 473 or 5xx, or an answer that is not the origin's
	Value               // what was asked for
	Wrapped             // a 200 that holds a wrapping token or a login in place of data: passed on, not kept
	Absent              // 404
	Denied              // 403, or a 503 of a locked namespace; Reason says what it is about
	Refused             // any other 4xx
)

// Failed reports whether a status says by itself that the origin could not
// answer: 429, 472, 473 and all from 500.
func Failed(status int) bool {
	return status == http.StatusTooManyRequests || status >= 500 || status == 472 || status == 473
}

// Word says what the answer to a request of an endpoint comes to.
func (a Answer) Word(of Endpoint) Word {
	switch {
	case !a.Genuine(of):
		return Failure
	case of == Health:
		return Value
	case a.Reason() == Locked:
		return Denied
	case Failed(a.Status):
		return Failure
	case a.Status == http.StatusNotFound:
		return Absent
	case a.Status == http.StatusForbidden:
		return Denied
	case a.Status >= 400:
		return Refused
	case of != Write && of != Other && a.wrapped(of):
		return Wrapped
	}
	return Value
}

// Genuine reports whether the answer has the shape that the origin gives to a
// request of an endpoint.
func (a Answer) Genuine(of Endpoint) bool {
	if a.Status == http.StatusNoContent {
		return (of == Write || of == Other) && len(a.Body) == 0
	}
	if a.members == nil || a.Header != nil && !JSON(a.Header) {
		return false
	}
	switch {
	case of == Health:
		return slices.Contains([]int{200, 429, 472, 473, 474, 501, 503, 530}, a.Status) && a.begins("initialized", 't', 'f')
	case a.Status == http.StatusOK:
		return a.success(of)
	case a.Status >= 400 && a.Status <= 599:
		return a.refusal()
	}
	return false
}

func (a Answer) success(of Endpoint) bool {
	if of == Leader {
		return a.begins("ha_enabled", 't', 'f')
	}
	if a.Text("request_id") == "" {
		// Vault leaves it empty where it wraps an answer.
		return a.begins("request_id", '"') && has(a.Member("wrap_info"), "token")
	}
	if of == Write || of == Other || a.wrapped(of) {
		return true
	}
	switch of {
	case List:
		return a.begins("data", '{') || a.Member("data") == nil && a.begins("warnings", '[')
	case Lookup:
		return has(a.Member("data"), "ttl") || has(a.Member("data"), "creation_ttl")
	case Login:
		return has(a.Member("auth"), "client_token") || has(a.Member("auth"), "mfa_requirement")
	}
	return a.begins("data", '{')
}

// wrapped reports whether a 200 holds a token in place of what was asked.
func (a Answer) wrapped(of Endpoint) bool {
	return a.begins("wrap_info", '{') || of != Login && a.begins("auth", '{')
}

func (a Answer) refusal() bool {
	if a.begins("errors", '[') {
		return a.Part || a.Errors() != nil
	}
	return a.Text("request_id") != "" && (a.begins("data", '{') || a.begins("warnings", '['))
}

// begins reports whether a member begins with one of the characters, which tell
// its type.
func (a Answer) begins(name string, one ...byte) bool {
	v := a.Member(name)
	return len(v) > 0 && strings.IndexByte(string(one), v[0]) >= 0
}

// has reports whether raw is an object with a member that is not null.
func has(raw json.RawMessage, name string) bool { return find(split(raw), name) != nil }
