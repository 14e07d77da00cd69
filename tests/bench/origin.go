package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// origin is where secrets come from, and an AppRole that may read them.
type origin struct {
	label            string
	addr             string // with scheme
	roleID, secretID string
	root             string // the root token; empty: not known
	put              func(ctx context.Context, name, value string) error
	more             []string   // settings besides
	requests         func() int // how many it was sent; nil: it does not count
	closers          []func()
}

func (o *origin) close() {
	for i := len(o.closers) - 1; i >= 0; i-- {
		o.closers[i]()
	}
}

// env is what tells thaw to log in there.
func (o *origin) env() []string {
	return append([]string{
		"VAULT_ADDR=" + o.addr, "THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=" + o.roleID, "THAW_SECRET_ID=" + o.secretID, "VAULT_LOG_LEVEL=WARN",
	}, o.more...)
}

// standIn serves tests/standin in this process.
func standIn() (*origin, error) { return standInWith(nil) }

// standInWith serves it over TLS with a certificate of ca; nil: without.
func standInWith(ca *harness.CA) (*origin, error) {
	const root = "bench-root"
	in := standin.New(standin.Options{RootToken: root})
	in.SetPolicy("bench", map[string][]string{"secret/data/bench/*": {"read"}})
	o := &origin{label: "the stand-in of tests/standin, in this process", root: root}
	o.roleID, o.secretID = in.AddAppRole("bench", standin.AppRole{Policies: []string{"bench"}, TTL: time.Hour, Batch: true})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the stand-in: %w", err)
	}
	o.addr = "http://" + ln.Addr().String()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}
	if ca != nil {
		leaf, err := ca.Leaf("127.0.0.1")
		if err != nil {
			ln.Close()
			return nil, fmt.Errorf("serve the stand-in: %w", err)
		}
		o.addr, o.more = "https://"+ln.Addr().String(), []string{"VAULT_CACERT_BYTES=" + string(ca.PEM())}
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{leaf}})
	}
	srv := &http.Server{Handler: awsAsAppRole(in, o.roleID, o.secretID), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln) // ends with Close
	}()
	o.closers = append(o.closers, func() {
		client.CloseIdleConnections()
		srv.Close()
		<-done
	})
	o.requests = in.Requests
	o.putBy(client)
	return o, nil
}

// putBy has put write with the root token.
func (o *origin) putBy(client *http.Client) {
	o.put = func(ctx context.Context, name, value string) error {
		res, err := harness.Send(ctx, client, o.addr, harness.Call{
			Method: http.MethodPost, Path: "secret/data/bench/" + name, Token: o.root, Body: map[string]any{"data": map[string]string{"value": value}},
		})
		if err == nil {
			err = res.Err()
		}
		return err
	}
}

// awsAsAppRole answers a login by AWS's method as one by AppRole, for products
// that know no other.
func awsAsAppRole(in http.Handler, roleID, secretID string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/auth/aws/login" {
			r.URL.Path = "/v1/auth/approle/login"
			body := fmt.Sprintf(`{"role_id":%q,"secret_id":%q}`, roleID, secretID)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		}
		in.ServeHTTP(w, r)
	})
}

// realVault starts a Vault with integrated storage.
func realVault(ctx context.Context, explicit string) (*origin, *harness.Vault, error) {
	binary, err := harness.FindVault(ctx, explicit)
	if err != nil {
		return nil, nil, err
	}
	start, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	v, err := harness.StartRaft(start, harness.VaultConfig{Binary: binary})
	if err != nil {
		return nil, nil, err
	}
	o := &origin{label: "Vault " + harness.VaultVersion + ", one node, integrated storage", addr: v.Addr(), closers: []func(){v.Close}}
	o.put = func(ctx context.Context, name, value string) error {
		_, err := v.Put(ctx, "secret", "bench/"+name, map[string]any{"value": value})
		return err
	}
	err = errors.Join(
		v.EnableKV(start, "secret", 2),
		v.PutPolicy(start, "bench", `path "secret/data/bench/*" { capabilities = ["read"] }`),
		v.EnableAuth(start, "approle", "approle"),
	)
	if err == nil {
		o.roleID, o.secretID, err = v.AppRole(start, "approle", "bench", harness.RoleSpec{Policies: []string{"bench"}, TTL: time.Hour, Batch: true})
	}
	if err != nil {
		o.close()
		return nil, nil, fmt.Errorf("prepare Vault: %w", err)
	}
	return o, v, nil
}

// secretOf is a value of n bytes.
func secretOf(n int) string { return strings.Repeat("s3cret! ", n/8+1)[:n] }

// dead is an origin that refuses connections: nothing listens on port 1, and
// no free port that another server is about to get can be it.
func dead() *origin {
	return &origin{label: "refuses connections", addr: "http://127.0.0.1:1", roleID: "r", secretID: "s"}
}

// stalled is an origin that takes connections and never answers: the kernel
// completes them, nobody accepts.
func stalled() (*origin, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &origin{label: "never answers", addr: "http://" + ln.Addr().String(), roleID: "r", secretID: "s", closers: []func(){func() { ln.Close() }}}, nil
}
