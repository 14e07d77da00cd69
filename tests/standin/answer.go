package standin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// answer is one response, complete but for the headers that all share.
type answer struct {
	status    int
	body      []byte
	wrappable bool   // an envelope, that X-Vault-Wrap-TTL may wrap
	accessor  string // of the token inside, for wrapped_accessor
}

// envelope is the outer form of Vault's answers, its fields in Vault's order.
// https://developer.hashicorp.com/vault/api-docs
type envelope struct {
	RequestID     string         `json:"request_id"`
	LeaseID       string         `json:"lease_id"`
	Renewable     bool           `json:"renewable"`
	LeaseDuration int            `json:"lease_duration"`
	Data          map[string]any `json:"data"`
	WrapInfo      *wrapInfo      `json:"wrap_info"`
	Warnings      []string       `json:"warnings"`
	Auth          *authInfo      `json:"auth"`
	MountType     string         `json:"mount_type"`
}

type wrapInfo struct {
	Token           string `json:"token"`
	Accessor        string `json:"accessor"`
	TTL             int    `json:"ttl"`
	CreationTime    string `json:"creation_time"`
	CreationPath    string `json:"creation_path"`
	WrappedAccessor string `json:"wrapped_accessor,omitempty"`
}

type authInfo struct {
	ClientToken    string            `json:"client_token"`
	Accessor       string            `json:"accessor"`
	Policies       []string          `json:"policies"`
	TokenPolicies  []string          `json:"token_policies,omitempty"`
	OfIdentity     []string          `json:"identity_policies,omitempty"`
	Metadata       map[string]string `json:"metadata"`
	LeaseDuration  int               `json:"lease_duration"`
	Renewable      bool              `json:"renewable"`
	EntityID       string            `json:"entity_id"`
	TokenType      string            `json:"token_type"`
	Orphan         bool              `json:"orphan"`
	MFARequirement any               `json:"mfa_requirement"`
	NumUses        int               `json:"num_uses"`
}

func (a answer) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json") // Vault says so of empty bodies too
	if a.body != nil {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// jsonAnswer answers 200 with v and a newline, as Vault's encoder leaves one.
func jsonAnswer(status int, v any) answer {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		return errorAnswer(http.StatusInternalServerError, "stand-in: encode the answer: "+err.Error())
	}
	return answer{status: status, body: b.Bytes()}
}

func errorAnswer(status int, messages ...string) answer {
	if messages == nil {
		messages = []string{}
	}
	return jsonAnswer(status, map[string][]string{"errors": messages})
}

func refuse(status int, messages ...string) *answer {
	a := errorAnswer(status, messages...)
	return &a
}

var noContent = answer{status: http.StatusNoContent}

// notFound is the answer to a read of nothing.
func notFound() answer { return errorAnswer(http.StatusNotFound) }

// denied is how Vault words a refusal by policy.
func denied() answer {
	return errorAnswer(http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
}

// noToken is how Vault words a request that lacks one.
func noToken() answer { return errorAnswer(http.StatusForbidden, "permission denied") }

// invalidToken is how Vault words a token it does not know.
func invalidToken() answer {
	return errorAnswer(http.StatusForbidden, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
}

// unsupported is an operation that a path does not have.
func unsupported() answer {
	return errorAnswer(http.StatusMethodNotAllowed, "1 error occurred:\n\t* unsupported operation\n\n")
}

// invalid is a request that a backend refuses.
func invalid(message string) answer { return errorAnswer(http.StatusBadRequest, message) }

// ok wraps data in the envelope.
func (c *call) ok(mountType string, data map[string]any) answer {
	return c.enveloped(envelope{Data: data, MountType: mountType})
}

func (c *call) enveloped(e envelope) answer {
	e.RequestID = c.id
	if unknown := c.ignored(); len(unknown) > 0 {
		e.Warnings = append(e.Warnings, fmt.Sprintf("Endpoint ignored these unrecognized parameters: %v", unknown))
	}
	a := jsonAnswer(http.StatusOK, e)
	a.wrappable = true
	c.asServed(&a)
	if e.Auth != nil {
		a.accessor = e.Auth.Accessor
	}
	return a
}

// asServed takes the envelope's last field away, which OpenBao does not have.
func (c *call) asServed(a *answer) {
	if i := bytes.LastIndex(a.body, []byte(`,"mount_type":`)); c.bao && i >= 0 {
		a.body = append(a.body[:i:i], "}\n"...)
	}
}

// okTop is ok with the data at the top level as well, as a few sys paths have it.
func (c *call) okTop(data map[string]any) answer {
	a := c.ok("system", data)
	if len(data) == 0 {
		return a
	}
	top, err := json.Marshal(data)
	if err != nil {
		return errorAnswer(http.StatusInternalServerError, "stand-in: encode the answer: "+err.Error())
	}
	a.body = append(append(top[:len(top)-1], ','), a.body[1:]...)
	return a
}

// goneWithData is the 404 of a version that was deleted or destroyed, and of
// paths that a mount explains: an envelope, without the newline.
func (c *call) goneWithData(data map[string]any, warnings ...string) answer {
	a := jsonAnswer(http.StatusNotFound, envelope{RequestID: c.id, Data: data, Warnings: warnings})
	c.asServed(&a)
	a.body = bytes.TrimSuffix(a.body, []byte("\n"))
	return a
}
