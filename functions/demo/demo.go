// Package demo is a sample Lambda function that reads secrets through thaw
// with the client that Go programs have for Vault, hashicorp/vault/api, and says
// how that went: which keys the secret has and which version it is, whether thaw
// had it, and how long it took. It never returns, logs or keeps a value. When a
// read fails it returns thaw's own message, which says what to check, so it serves
// as a first look at a new installation too.
//
// In a function of your own there is no need of a client: GET
// http://127.0.0.1:8200/v1/<path>, without a token, and decode the JSON.
package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// DefaultURL is where the extension listens unless THAW_LISTEN says otherwise.
const DefaultURL = "http://127.0.0.1:8200"

// maxAnswer bounds an answer: Vault takes no request above 32 MiB.
const maxAnswer = 32 << 20

// Function reads secrets through thaw. Make it with New or FromEnv.
type Function struct {
	base  *url.URL
	paths []string
	http  *http.Client
	vault *api.Client // asks thaw, by http

	// Use is where a real function would use the secret: it gets the data of
	// each secret read. nil: nothing happens with it. Set it before Handle.
	Use func(path string, data map[string]any)

	// Examine is what the event {"doctor": true} runs, with flags of `thaw doctor`
	// and paths; see Doctor. nil: such an event is refused. Set it before Handle.
	Examine func(ctx context.Context, args []string) (json.RawMessage, error)
}

// Event is the invocation's payload. Empty: all configured paths are read.
type Event struct {
	// Path reads only this one. It must be one of the configured paths:
	// whoever may invoke a function shall not choose what it reads.
	Path string `json:"path"`

	// Doctor reads nothing, and has `thaw doctor` say what keeps thaw from
	// working in this very function: its network, role and settings.
	Doctor bool `json:"doctor"`

	// Login has the doctor log in by a secret id, too, which may take one of its
	// uses.
	Login bool `json:"login"`

	// Thaw reads nothing either. "status" shows what the thaw beside this function
	// knows, as `thaw status -json` does: it names paths and addresses, and no secret.
	Thaw string `json:"thaw"`
}

// Answer is what the function returns.
type Answer struct {
	OK      bool      `json:"ok"` // every read succeeded
	Secrets []Summary `json:"secrets"`

	Doctor json.RawMessage `json:"doctor,omitempty"` // the report of `thaw doctor -json`
	Status json.RawMessage `json:"status,omitempty"` // the report of `thaw status -json`
}

// Summary says how one read went, without any value.
type Summary struct {
	Path        string   `json:"path"`
	Status      int      `json:"status,omitempty"` // HTTP status; absent when there was no answer
	Keys        []string `json:"keys,omitempty"`   // names of the secret's fields, sorted
	Version     int      `json:"version,omitempty"`
	XCache      string   `json:"x_cache,omitempty"`      // HIT or MISS
	CacheStatus string   `json:"cache_status,omitempty"` // RFC 9211
	Age         int      `json:"age"`                    // seconds since thaw fetched it
	Stale       bool     `json:"stale,omitempty"`        // served while the origin could not be asked
	Millis      float64  `json:"ms"`
	Error       string   `json:"error,omitempty"` // thaw's or Vault's message
}

// New makes a function that reads paths (API paths such as secret/data/app)
// from thaw at base, for example http://127.0.0.1:8200.
func New(base string, paths []string) (*Function, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("SECRETS_URL %q is not a URL like %s", base, DefaultURL)
	}
	if len(paths) == 0 {
		return nil, errors.New("SECRET_PATH is not set: set it to the API path of a secret, such as secret/data/app (comma-separated for more than one)")
	}
	// No proxy: thaw is on this machine. No timeout of its own: the context ends with the invocation.
	by := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute}}
	client, err := api.NewClient(&api.Config{Address: base, HttpClient: by}) // no retries: thaw makes them
	if err != nil {
		return nil, fmt.Errorf("make a client for thaw: %w", err)
	}
	client.ClearToken() // VAULT_TOKEN and VAULT_NAMESPACE are thaw's, which adds its own
	client.ClearNamespace()
	return &Function{base: u, paths: paths, http: by, vault: client}, nil
}

// FromEnv makes a function from its environment: SECRET_PATH, and SECRETS_URL,
// else VAULT_ADDR where that is a loopback address (in a function with the
// extension VAULT_ADDR usually names Vault itself), else DefaultURL.
func FromEnv(getenv func(string) string) (*Function, error) {
	base := getenv("SECRETS_URL")
	if base == "" && isLoopback(getenv("VAULT_ADDR")) {
		base = getenv("VAULT_ADDR")
	}
	base = cmp.Or(base, DefaultURL)
	var paths []string
	for p := range strings.SplitSeq(getenv("SECRET_PATH"), ",") {
		if p = strings.Trim(strings.TrimSpace(p), "/"); p != "" {
			paths = append(paths, p)
		}
	}
	f, err := New(base, paths)
	if token := getenv("THAW_LOCAL_TOKEN"); err == nil && token != "" {
		f.vault.AddHeader("X-Thaw-Token", token)
	}
	return f, err
}

func isLoopback(addr string) bool {
	u, err := url.Parse(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// Handle is the handler. A secret that cannot be read is part of the answer,
// not an error; the error is for an event that asks for an unknown path.
func (f *Function) Handle(ctx context.Context, e Event) (Answer, error) {
	switch {
	case e.Doctor:
		return f.examine(ctx, e.Login)
	case e.Thaw == "status":
		return f.status(ctx)
	case e.Thaw != "":
		return Answer{}, fmt.Errorf("thaw: %q is not known; \"status\" is", e.Thaw)
	}
	paths := f.paths
	if e.Path != "" {
		if !slices.Contains(f.paths, e.Path) {
			return Answer{}, fmt.Errorf("path %q is not in SECRET_PATH, so this function does not read it", e.Path)
		}
		paths = []string{e.Path}
	}
	a := Answer{OK: true}
	for _, p := range paths {
		s := f.read(ctx, p)
		a.OK = a.OK && s.Error == ""
		a.Secrets = append(a.Secrets, s)
	}
	return a, nil
}

// Close closes the connections to thaw.
func (f *Function) Close() { f.http.CloseIdleConnections() }

// read is one read through thaw.
func (f *Function) read(ctx context.Context, path string) Summary {
	s := Summary{Path: path}
	start := time.Now()
	resp, body, err := f.get(ctx, path)
	s.Millis = float64(time.Since(start).Microseconds()) / 1000
	if err != nil {
		s.Error = fmt.Sprintf("read %s: %v; is thaw there? It listens at %s as an extension of this function", path, err, f.base.Redacted())
		return s
	}
	s.Status = resp.StatusCode
	s.XCache = resp.Header.Get("X-Cache")
	s.CacheStatus = resp.Header.Get("Cache-Status")
	s.Age, _ = strconv.Atoi(resp.Header.Get("Age"))
	s.Stale = strings.HasPrefix(resp.Header.Get("Warning"), "110")
	if resp.StatusCode != http.StatusOK {
		s.Error = refusal(resp.Status, body)
		return s
	}
	data, version, err := secret(body)
	if err != nil {
		s.Error = fmt.Sprintf("read %s: %v", path, err)
		return s
	}
	s.Keys, s.Version = slices.Sorted(maps.Keys(data)), version
	if f.Use != nil {
		f.Use(path, data)
	}
	return s
}

// status answers the event {"thaw": "status"}.
func (f *Function) status(ctx context.Context) (Answer, error) {
	resp, body, err := f.get(ctx, "../proxy/v1/status")
	if err != nil {
		return Answer{}, fmt.Errorf("ask for the status: %w; is thaw there? It listens at %s as an extension of this function", err, f.base.Redacted())
	}
	if resp.StatusCode != http.StatusOK || !json.Valid(body) {
		return Answer{}, errors.New("ask for the status: " + refusal(resp.Status, body))
	}
	return Answer{OK: true, Status: body}, nil
}

// get asks thaw for a path below /v1/, and reads the answer. Where there is one, its status
// tells more than the client's error.
func (f *Function) get(ctx context.Context, path string) (*api.Response, []byte, error) {
	resp, err := f.vault.Logical().ReadRawWithContext(ctx, path)
	if resp == nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp, body, err
}

// secret takes the data out of an answer of KV version 2 or 1; version is 0
// for version 1.
func secret(body []byte) (data map[string]any, version int, err error) {
	var out struct {
		Data map[string]any `json:"data"`
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, 0, errors.New("the answer is not JSON") // json's own error may quote the value
	}
	inner, hasData := out.Data["data"].(map[string]any)
	meta, hasMeta := out.Data["metadata"].(map[string]any)
	if !hasData || !hasMeta {
		return out.Data, 0, nil
	}
	v, _ := meta["version"].(float64)
	return inner, int(v), nil
}

// refusal is the message of an answer that is no secret.
func refusal(status string, body []byte) string {
	var out struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &out) == nil && len(out.Errors) > 0 {
		return status + ": " + strings.Join(out.Errors, "; ")
	}
	if strings.HasPrefix(status, "404") {
		return status + ": there is nothing at this path; for KV version 2 it has data/ after the mount, as in secret/data/app"
	}
	return status
}
