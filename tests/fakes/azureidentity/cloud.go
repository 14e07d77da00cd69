package azureidentity

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// Hosts of the key vault and the storage account.
const (
	KeyVaultHost = "thaw-test.vault.azure.net"
	BlobHost     = "thawtest.blob.core.windows.net"
)

// connect answers CONNECT for Azure's names, with TLS of the CA, and for
// nothing else: whatever else somebody wants to reach is a fault.
func (a *Azure) connect(w http.ResponseWriter, r *http.Request) {
	host, port, _ := net.SplitHostPort(r.Host)
	h, ok := a.names[host]
	if r.Method != http.MethodConnect || !ok || port != "443" {
		a.fault("%s %s through the proxy", r.Method, r.Host)
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	leaf, err := a.ca.Leaf(host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		conn.Close()
		return
	}
	l := &one{conn: tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{leaf}}), closed: make(chan struct{})}
	s := &http.Server{Handler: h, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			l.Close()
		}
	}}
	_ = s.Serve(l)
}

// one is a listener for one connection.
type one struct {
	conn   net.Conn
	mu     sync.Mutex
	given  bool // guarded by mu
	once   sync.Once
	closed chan struct{}
}

// Accept gives the connection, then waits until it is closed.
func (o *one) Accept() (net.Conn, error) {
	o.mu.Lock()
	given := o.given
	o.given = true
	o.mu.Unlock()
	if !given {
		return o.conn, nil
	}
	<-o.closed
	return nil, net.ErrClosed
}

// Close ends Accept.
func (o *one) Close() error { o.once.Do(func() { close(o.closed) }); return nil }

// Addr is the connection's.
func (o *one) Addr() net.Addr { return o.conn.LocalAddr() }

// bearer checks the token of a request, and returns whose it is.
func (a *Azure) bearer(w http.ResponseWriter, r *http.Request, resource string) bool {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(text, ".")
	var claims struct {
		Aud string `json:"aud"`
	}
	if ok && len(parts) == 3 {
		raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(raw, &claims)
	}
	if claims.Aud != resource {
		a.fault("a token for %q at %s", claims.Aud, r.Host)
		answer(w, http.StatusUnauthorized, map[string]any{"error": map[string]string{"code": "Unauthorized", "message": "AKV10022: Invalid audience."}})
		return false
	}
	return true
}

// challenge is Key Vault's answer to a request without a token: where to get
// one, and for what
// (https://learn.microsoft.com/en-us/azure/key-vault/general/authentication-requests-and-responses).
func (a *Azure) challenge(w http.ResponseWriter) {
	a.mu.Lock()
	resource := a.claimed
	a.mu.Unlock()
	w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/`+a.o.Tenant+`", resource="`+resource+`"`)
	answer(w, http.StatusUnauthorized, map[string]any{"error": map[string]string{"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}})
}

// Claim sets the resource that Key Vault's challenges name.
func (a *Azure) Claim(resource string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.claimed = resource
}

// NewKey makes a key in the vault, and returns its identifier with its version.
func (a *Azure) NewKey(name string) (string, error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	path := "/keys/" + name + "/" + strings.ToLower(rand.Text())
	a.mu.Lock()
	a.keys[path] = k
	a.mu.Unlock()
	return "https://" + KeyVaultHost + path, nil
}

// Wrap wraps a data key with a key of the vault, as wrapKey with RSA-OAEP-256
// does, and returns it in base64.
func (a *Azure) Wrap(id string, plain []byte) (string, error) {
	a.mu.Lock()
	k := a.keys[strings.TrimPrefix(id, "https://"+KeyVaultHost)]
	a.mu.Unlock()
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.PublicKey, plain, nil)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(wrapped), nil
}

// unwrap is Key Vault's unwrapKey
// (https://learn.microsoft.com/en-us/rest/api/keyvault/keys/unwrap-key/unwrap-key).
func (a *Azure) unwrap(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutSuffix(r.URL.Path, "/unwrapkey")
	if v := r.URL.Query().Get("api-version"); r.Method != http.MethodPost || !ok || v != "7.4" && v < "2025" {
		a.fault("%s %s at Key Vault", r.Method, r.URL)
		answer(w, http.StatusBadRequest, nil)
		return
	}
	if r.Header.Get("Authorization") == "" {
		a.challenge(w)
		return
	}
	if !a.bearer(w, r, "https://vault.azure.net") {
		return
	}
	var in struct{ Alg, Value string }
	err := json.NewDecoder(r.Body).Decode(&in)
	wrapped, bad := base64.RawURLEncoding.DecodeString(in.Value)
	if err != nil || bad != nil || in.Alg != "RSA-OAEP-256" {
		a.fault("unwrapkey of %+v", in)
		answer(w, http.StatusBadRequest, map[string]any{"error": map[string]string{"code": "BadParameter"}})
		return
	}
	a.mu.Lock()
	k := a.keys[path]
	a.mu.Unlock()
	if k == nil {
		answer(w, http.StatusNotFound, map[string]any{"error": map[string]string{"code": "KeyNotFound"}})
		return
	}
	plain, err := rsa.DecryptOAEP(sha256.New(), nil, k, wrapped, nil)
	// RFC 8017, 7.1.2: of the key's length. Go takes one whose leading zeros are gone.
	if err != nil || len(wrapped) != k.Size() {
		answer(w, http.StatusBadRequest, map[string]any{"error": map[string]string{"code": "BadParameter", "message": "The parameter is incorrect."}})
		return
	}
	answer(w, http.StatusOK, map[string]string{"kid": "https://" + KeyVaultHost + path, "value": base64.RawURLEncoding.EncodeToString(plain)})
}

// blob is one container, /backups, of Blob storage
// (https://learn.microsoft.com/en-us/rest/api/storageservices/put-blob).
func (a *Azure) blob(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string) {
		w.Header().Set("X-Ms-Error-Code", code)
		w.WriteHeader(status)
	}
	if !a.bearer(w, r, "https://storage.azure.com") {
		return
	}
	// Tokens need a version; without one the request is not understood.
	if r.Header.Get("X-Ms-Version") < "2019-12-12" {
		a.fault("%s %s without x-ms-version", r.Method, r.URL)
		refuse(http.StatusBadRequest, "InvalidHeaderValue")
		return
	}
	if !strings.HasPrefix(r.URL.Path, "/backups/") {
		refuse(http.StatusNotFound, "ContainerNotFound")
		return
	}
	switch r.Method {
	case http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil || r.ContentLength != int64(len(body)) || r.Header.Get("X-Ms-Blob-Type") != "BlockBlob" {
			a.fault("put of %d bytes, length %d, type %q: %v", len(body), r.ContentLength, r.Header.Get("X-Ms-Blob-Type"), err)
			refuse(http.StatusBadRequest, "InvalidHeaderValue")
			return
		}
		a.mu.Lock()
		a.blobs[r.URL.Path] = body
		a.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	case http.MethodGet:
		a.mu.Lock()
		body, ok := a.blobs[r.URL.Path]
		a.mu.Unlock()
		if !ok {
			refuse(http.StatusNotFound, "BlobNotFound")
			return
		}
		_, _ = w.Write(body)
	default:
		a.fault("%s %s at Blob storage", r.Method, r.URL)
		refuse(http.StatusMethodNotAllowed, "UnsupportedHttpVerb")
	}
}

// Blob is what was stored at a path of the account; nil: nothing.
func (a *Azure) Blob(path string) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.blobs[path]
}
