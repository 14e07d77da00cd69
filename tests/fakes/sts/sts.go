// Package sts is a strict stand-in for AWS STS, and for the two IAM calls that
// Vault's aws auth method makes to learn who a principal is. It is an
// http.Handler that can be Vault's sts_endpoint and iam_endpoint.
//
// It holds accounts: users, roles, and the keys they were given. Each request's
// Signature Version 4 is recomputed with the secret of the key that it names;
// scope, date, session token and the list of signed headers are checked as AWS
// checks them, and somewhat more strictly: every x-amz- header, the content
// type, and Vault's server id header must be signed. What AWS refuses is
// refused with AWS's code, status and XML.
//
// Sources: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html,
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html and
// API_GetCallerIdentity.html, https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html,
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html; and
// builtin/credential/aws/path_login.go of Vault for what it asks: it posts to
// "<sts_endpoint>//", keeps the signed Host, and wants Content-Type text/xml.
package sts

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options configure New. The zero value is the global endpoint.
type Options struct {
	Region    string           // whose scope this endpoint accepts; default us-east-1
	Partition string           // of the ARNs; default aws
	Account   string           // default 123456789012
	Host      string           // the Host that requests must be addressed to; default: any
	Now       func() time.Time // default time.Now
}

// Server is the stand-in. It is safe for concurrent use.
type Server struct {
	o Options

	mu     sync.Mutex // guards the fields below
	people map[string]*principal
	keys   map[string]*key // by access key id
	served map[string]int  // by action, successful ones
	count  int             // of unique ids given
}

// Keys are what a principal signs with.
type Keys struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string    // empty for a user's own keys
	Expires         time.Time // zero for a user's own keys
}

// principal is a user or a role.
type principal struct {
	kind, path, name, id string
	trusts               map[string]bool // ARNs that may assume it
}

// key is one set of keys and whose it is.
type key struct {
	Keys
	who     *principal
	session string // of an assumed role
}

// New returns a stand-in without any principal.
func New(o Options) *Server {
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Partition == "" {
		o.Partition = "aws"
	}
	if o.Account == "" {
		o.Account = "123456789012"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Server{o: o, people: map[string]*principal{}, keys: map[string]*key{}, served: map[string]int{}}
}

// User creates a user with a path such as "/" or "/team/" and returns keys that
// don't expire.
func (s *Server) User(path, name string) Keys {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.addLocked("user", "AIDA", path, name)
	return s.issueLocked(p, "", 0)
}

// Role creates a role that nobody may assume, and returns its ARN.
func (s *Server) Role(path, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arn(s.addLocked("role", "AROA", path, name))
}

// Trust lets the principal with the given ARN (a user's or a role's) assume a
// role.
func (s *Server) Trust(role, arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.people["role/"+role].trusts[arn] = true
}

// Session returns keys of an assumed role, as a function's environment has
// them.
func (s *Server) Session(role, session string, life time.Duration) Keys {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issueLocked(s.people["role/"+role], session, life)
}

// Served is how often an action succeeded.
func (s *Server) Served(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[action]
}

func (s *Server) addLocked(kind, prefix, path, name string) *principal {
	s.count++
	p := &principal{kind: kind, path: path, name: name, id: fmt.Sprintf("%s%017d", prefix, s.count), trusts: map[string]bool{}}
	s.people[kind+"/"+name] = p
	return p
}

func (s *Server) issueLocked(p *principal, session string, life time.Duration) Keys {
	s.count++
	k := &key{who: p, session: session}
	k.AccessKeyID = fmt.Sprintf("AKIA%016d", s.count)
	k.SecretAccessKey = random(20)
	if session != "" {
		k.AccessKeyID = fmt.Sprintf("ASIA%016d", s.count)
		k.SessionToken = "IQoJb3JpZ2luX2Vj" + random(100) + "/+=="
		k.Expires = s.o.Now().Add(life).UTC().Truncate(time.Second)
	}
	s.keys[k.AccessKeyID] = k
	return k.Keys
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// arn names a principal in IAM.
func (s *Server) arn(p *principal) string {
	return "arn:" + s.o.Partition + ":iam::" + s.o.Account + ":" + p.kind + p.path + p.name
}

// callerARN names who signed: sessions have an STS ARN, without the role's
// path.
func (s *Server) callerARN(k *key) (arn, id string) {
	if k.session == "" {
		return s.arn(k.who), k.who.id
	}
	return "arn:" + s.o.Partition + ":sts::" + s.o.Account + ":assumed-role/" + k.who.name + "/" + k.session, k.who.id + ":" + k.session
}

// maxBody bounds a request, in bytes.
const maxBody = 64 << 10

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		s.refuse(w, &fault{http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "the body is too large"})
		return
	}
	k, service, f := s.verify(r, raw)
	if f != nil {
		s.refuse(w, f)
		return
	}
	answer, f := s.act(r, raw, k, service)
	if f != nil {
		s.refuse(w, f)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	io.WriteString(w, answer)
}

// act carries out the one action of a verified request.
func (s *Server) act(r *http.Request, raw []byte, k *key, service string) (string, *fault) {
	if r.Method != http.MethodPost || r.URL.RawQuery != "" {
		return "", &fault{http.StatusBadRequest, "InvalidAction", "only POST without a query is served"}
	}
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/x-www-form-urlencoded") {
		return "", &fault{http.StatusBadRequest, "MalformedInput", "the content type is not a form's"}
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return "", &fault{http.StatusBadRequest, "MalformedQueryString", "the form cannot be read"}
	}
	for name, values := range form {
		if len(values) != 1 {
			return "", &fault{http.StatusBadRequest, "InvalidParameterCombination", name + " is given more than once"}
		}
	}
	action := form.Get("Action")
	known, ok := map[string]struct {
		service, version string
		serve            func(*key, url.Values) (string, *fault)
	}{
		"GetCallerIdentity": {"sts", "2011-06-15", s.getCallerIdentity},
		"AssumeRole":        {"sts", "2011-06-15", s.assumeRole},
		"GetRole":           {"iam", "2010-05-08", s.getRole},
		"GetUser":           {"iam", "2010-05-08", s.getUser},
	}[action]
	switch {
	case action == "":
		return "", &fault{http.StatusBadRequest, "MissingAction", "no Action is given"}
	case !ok || known.version != form.Get("Version"):
		return "", &fault{http.StatusBadRequest, "InvalidAction", "Could not find operation " + action + " for version " + form.Get("Version")}
	case known.service != service:
		return "", wrongScope("Credential should be scoped to correct service: '" + known.service + "'. ")
	}
	answer, f := known.serve(k, form)
	if f == nil {
		s.mu.Lock()
		s.served[action]++
		s.mu.Unlock()
	}
	return answer, f
}
