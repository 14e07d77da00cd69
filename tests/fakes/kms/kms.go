// Package kms is a strict fake of AWS KMS: one region, symmetric keys, and of
// the actions Decrypt alone. Keys are encrypted by a method of the fake.
//
// It checks what KMS checks: the signature of each request, its date and scope
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html),
// the target and content type of JSON 1.1, and that the encryption context is
// exactly the one that the ciphertext was made with
// (https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html).
package kms

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// skew is how far a signature's date may be off.
const skew = 5 * time.Minute

// Options configures a Server.
type Options struct {
	Region string                 // empty: us-east-1
	Keys   harness.AWSCredentials // who may decrypt
	Now    func() time.Time       // nil: time.Now
}

// Server is the fake. It is safe for concurrent use.
type Server struct {
	o Options

	mu       sync.Mutex
	sealed   map[string]sealed // guarded by mu; by ciphertext
	away     bool              // guarded by mu
	disabled bool              // guarded by mu
	answered int               // guarded by mu; Decrypt calls that were well-formed
	faults   []string          // guarded by mu; what no SDK would send
}

type sealed struct {
	plain   []byte
	context map[string]string
}

// New returns a fake.
func New(o Options) *Server {
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Server{o: o, sealed: make(map[string]sealed)}
}

// Encrypt returns a ciphertext.
func (s *Server) Encrypt(plain []byte, context map[string]string) []byte {
	ciphertext := append([]byte{1, 2, 2, 0}, []byte(rand.Text())...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed[string(ciphertext)] = sealed{bytes.Clone(plain), maps.Clone(context)}
	return ciphertext
}

// SetAway makes it answer 503 to everything.
func (s *Server) SetAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// SetDisabled disables the KMS key.
func (s *Server) SetDisabled(disabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disabled = disabled
}

// Calls is the number of well-formed and well-signed calls, refused or not.
func (s *Server) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answered
}

// Faults are the requests that were malformed or badly signed.
func (s *Server) Faults() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.faults...)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	code, message := s.check(r, string(body))
	var in struct {
		CiphertextBlob    []byte
		EncryptionContext map[string]string
	}
	if code == "" {
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil || len(in.CiphertextBlob) == 0 {
			code, message = "SerializationException", "not a Decrypt"
		}
	}
	if code != "" {
		s.faults = append(s.faults, code+": "+message)
		refuse(w, code, message)
		return
	}
	s.answered++
	c, ok := s.sealed[string(in.CiphertextBlob)]
	switch {
	case !ok || !maps.Equal(c.context, in.EncryptionContext):
		refuse(w, "InvalidCiphertextException", "")
	case s.disabled:
		refuse(w, "DisabledException", "the key is disabled")
	default:
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"KeyId": "arn:aws:kms:" + s.o.Region + ":123456789012:key/fake", "Plaintext": c.plain, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
		})
	}
}

func refuse(w http.ResponseWriter, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

// check says what is wrong with a request, if anything.
func (s *Server) check(r *http.Request, body string) (code, message string) {
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/" || r.URL.RawQuery != "":
		return "UnknownOperationException", "not POST /"
	case r.Header.Get("X-Amz-Target") != "TrentService.Decrypt":
		return "UnknownOperationException", "the target is not Decrypt"
	case r.Header.Get("Content-Type") != "application/x-amz-json-1.1":
		return "UnknownOperationException", "the content type is not JSON 1.1"
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return "IncompleteSignature", "no date"
	}
	if d := s.o.Now().Sub(at); d > skew || d < -skew {
		return "InvalidSignatureException", "Signature expired"
	}
	if r.Header.Get("X-Amz-Security-Token") != s.o.Keys.SessionToken {
		return "UnrecognizedClientException", "The security token included in the request is invalid."
	}
	_, list, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	list, _, _ = strings.Cut(list, ",")
	// Signed again, by code that is not the client's, with the same headers.
	again := &http.Request{Method: r.Method, URL: r.URL, Host: r.Host, Header: http.Header{}}
	for name := range strings.SplitSeq(list, ";") {
		switch name {
		case "host", "x-amz-date", "x-amz-security-token":
		case "content-length":
			again.Header.Set(name, jsonNumber(r.ContentLength))
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	harness.SignAWS(again, body, s.o.Keys, s.o.Region, "kms", at)
	for _, must := range []string{"content-type", "host", "x-amz-date", "x-amz-target"} {
		if !strings.Contains(";"+list+";", ";"+must+";") {
			return "InvalidSignatureException", must + " is not signed"
		}
	}
	if again.Header.Get("Authorization") != r.Header.Get("Authorization") {
		return "InvalidSignatureException", "The request signature we calculated does not match the signature you provided."
	}
	return "", ""
}

func jsonNumber(n int64) string {
	b, _ := json.Marshal(n)
	return string(b)
}
