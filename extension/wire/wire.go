// Package wire reads the origin's answers: it is the one place that knows what
// an answer of Vault or OpenBao looks like, and a request of thaw's own to it.
//
// # The algorithm
//
// Something between us and the origin may answer in its place: a balancer, a
// gateway, a captive portal, a maintenance page. So an answer counts as the
// origin's only if it has the shape that the origin gives to what was asked
// (type Endpoint, table below). Whatever else comes is a Failure: the origin
// could not answer.
//
//	asked for           status                      shape: a JSON object with
//	Secret              200                         request_id and a data object
//	List                200                         the same, or request_id and a list of warnings
//	Capabilities        200                         request_id and a data object
//	Lookup              200                         request_id and a data object that has a ttl
//	Login               200                         request_id and an auth object that has a client_token or an mfa_requirement
//	any of these        200                         request_id and an auth object, or request_id, perhaps empty, and
//	                                                a wrap_info object that has a token: Wrapped
//	Leader              200                         ha_enabled, a boolean
//	Health              200, 429, 472, 473, 474,    initialized, a boolean
//	                    501, 503, 530
//	Write, Other        200                         request_id
//	Write, Other        204                         no body
//	all but Health      400 to 599                  a list of errors, or request_id with data or a list of warnings
//
// Vault sends the envelope with request_id from http/logical.go and
// sdk/logical/translate_response.go, refusals from RespondError in
// sdk/logical/response_util.go (hashicorp/vault v1.21.0); OpenBao has the same
// code. A deleted version of a secret is a 404 with request_id and data, a path
// of KV version 2 that lacks its data/ a 404 with request_id and warnings.
//
// A body is read as far as the caller peeked into it. A member that is cut off
// counts by its first character.
package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
)

// Answer is one answer of the origin, or of something in its place, as far as it
// was read. It is a value that never changes.
type Answer struct {
	Status int
	Header http.Header // nil: not known, and not looked at
	Body   []byte      // from its beginning
	Part   bool        // Body is not all of it

	members []member // of the object that Body is; nil: it is none
}

// New reads an answer whose whole body is here. header may be nil: then only the
// body tells.
func New(status int, header http.Header, body []byte) Answer {
	a := Answer{Status: status, Header: header, Body: body}
	if json.Valid(body) {
		a.members = split(body)
	}
	return a
}

// Read reads at most the first bytes of a body, into no more memory than they take.
func Read(res *http.Response, most int64) ([]byte, error) {
	if n := res.ContentLength; n > 0 && n <= min(most, 64<<10) {
		body := make([]byte, n)
		read, err := io.ReadFull(res.Body, body)
		return body[:read], err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, most))
	return bytes.Clone(body), err
}

// Peek reads an answer from at most the first bytes of its body, and leaves the
// body as it was. What cannot be read now fails whoever reads on.
func Peek(res *http.Response, most int) Answer {
	head, err := io.ReadAll(io.LimitReader(res.Body, int64(most)))
	res.Body = Prepend(head, res.Body)
	return Begin(res, head, err == nil && (len(head) < most || res.ContentLength == int64(len(head))))
}

// Prepend returns a body before which head was read.
func Prepend(head []byte, body io.ReadCloser) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), body), body}
}

// Begin reads an answer of whose body head is here; whole says that this is all.
func Begin(res *http.Response, head []byte, whole bool) Answer {
	if whole {
		return New(res.StatusCode, res.Header, head)
	}
	return Answer{Status: res.StatusCode, Header: res.Header, Body: head, Part: true, members: split(head)}
}

// JSON reports whether h says that a body is JSON. Vault says so of each of its
// answers, of empty ones, too.
func JSON(h http.Header) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && t == "application/json"
}

// FromCache reports whether an answer says that a cache in between gave it, so
// that it verifies nothing (RFC 9111 section 5.1, RFC 9211 section 2.1, and
// X-Cache as caches commonly use it).
func FromCache(h http.Header) bool {
	if len(h.Values("Age")) > 0 {
		return true
	}
	for _, v := range h.Values("X-Cache") {
		if strings.Contains(strings.ToUpper(v), "HIT") {
			return true
		}
	}
	for _, v := range h.Values("Cache-Status") {
		for item := range strings.SplitSeq(v, ";") {
			if item, _, _ := strings.Cut(item, ","); strings.EqualFold(strings.TrimSpace(item), "hit") {
				return true
			}
		}
	}
	return false
}

// Member returns the raw JSON of a top-level member; nil where there is none, or
// it is null.
func (a Answer) Member(name string) json.RawMessage { return find(a.members, name) }

// Text returns a top-level member that is a string; empty where it is none.
func (a Answer) Text(name string) (text string) {
	_ = json.Unmarshal(a.Member(name), &text)
	return text
}

// Errors returns the texts of a refusal: nil where there is no list of errors,
// which may also be there and empty.
func (a Answer) Errors() []string { return a.texts("errors") }

// texts returns a top-level member that is a list of strings; nil where it is none.
func (a Answer) texts(name string) []string {
	var texts []string
	if json.Unmarshal(a.Member(name), &texts) != nil {
		return nil
	}
	return texts
}

// Form says in a few words what kind of body it is, for messages: "an HTML page".
func (a Answer) Form() string {
	body := bytes.TrimSpace(a.Body)
	switch {
	case len(body) == 0:
		return "an empty body"
	case body[0] == '<':
		return "an HTML page"
	case a.members != nil:
		return "JSON of another shape"
	case body[0] == '{' && truncated(body):
		return "JSON that ends too early"
	}
	return "no JSON object"
}

// truncated reports whether a body is the beginning of JSON and no more.
func truncated(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	var v json.RawMessage
	return d.Decode(&v) == io.ErrUnexpectedEOF
}
