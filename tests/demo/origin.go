package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// origin is where the secrets are, with the counting proxy in front of it.
type origin struct {
	label   string           // what it is, for people
	quiet   bool             // nobody but the demo uses it
	counter *harness.Counter // what the extension is told is the origin
	direct  string           // the address behind the counter
	token   string           // for the demo's own writes and direct reads
	header  http.Header      // sent with those
	prefix  string           // API path below which the secrets are: <mount>/data/<folder>/
	extEnv  []string         // how the extension logs in
	client  *http.Client
	closers []func() error
}

// newOrigin starts the stand-in, or goes to the origin that the environment names.
func newOrigin(ctx context.Context, s settings, getenv func(string) string) (*origin, error) {
	o := &origin{client: &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}, header: http.Header{}}
	addr, token := getenv("VAULT_ADDR"), getenv("VAULT_TOKEN")
	var err error
	switch {
	case addr != "" && token != "":
		err = o.useReal(ctx, s, getenv)
	default:
		err = o.useStandIn()
	}
	if err == nil {
		o.counter, err = harness.StartCounter(harness.CounterConfig{Origin: o.direct})
	}
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	if s.delay > 0 {
		o.counter.Delay(s.delay)
	}
	return o, nil
}

// useStandIn makes an origin in this process and an AppRole for the function.
func (o *origin) useStandIn() error {
	in := standin.New(standin.Options{RootToken: "demo-" + rand.Text()})
	in.SetPolicy("demo", map[string][]string{"secret/data/thaw-demo/*": {"read"}})
	roleID, secretID := in.AddAppRole("demo", standin.AppRole{Policies: []string{"demo"}, TTL: time.Hour, Batch: true})
	addr, err := o.serve(in)
	if err != nil {
		return err
	}
	// The stand-in's own policy writes need its root token, which no one else has.
	o.label = "a stand-in for Vault inside this process (it is not Vault)"
	o.quiet, o.direct, o.prefix = true, addr, "secret/data/thaw-demo/"
	o.token = in.AddToken(time.Hour, "root")
	o.extEnv = []string{"THAW_AUTH_METHOD=approle", "THAW_ROLE_ID=" + roleID, "THAW_SECRET_ID=" + secretID}
	return nil
}

// useReal goes to the Vault or OpenBao of the environment, in a folder of its
// own that is removed at the end.
func (o *origin) useReal(ctx context.Context, s settings, getenv func(string) string) error {
	target, err := url.Parse(getenv("VAULT_ADDR"))
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return errors.New("VAULT_ADDR must be a URL like https://vault.example.com:8200")
	}
	o.label = target.Redacted()
	o.token = getenv("VAULT_TOKEN")
	o.direct = strings.TrimSuffix(target.String(), "/")
	o.extEnv = []string{"THAW_AUTH_METHOD=token", "VAULT_TOKEN=" + o.token}
	if ns := getenv("VAULT_NAMESPACE"); ns != "" {
		o.header.Set("X-Vault-Namespace", ns)
		o.extEnv = append(o.extEnv, "VAULT_NAMESPACE="+ns)
	}
	if target.Scheme == "https" {
		// The counter does not check certificates: it is for tests on this
		// machine. So a forwarder that does check stands behind it.
		if o.direct, err = o.forwardTo(target, getenv("VAULT_CACERT")); err != nil {
			return err
		}
	}
	folder := "thaw-demo-" + strings.ToLower(rand.Text()[:8]) + "/"
	mount := strings.Trim(s.mount, "/")
	o.prefix = mount + "/data/" + folder
	if err := o.checkMount(ctx, mount); err != nil {
		return err
	}
	o.closers = append(o.closers, func() error { return o.removeAll(context.WithoutCancel(ctx), mount, folder) })
	return nil
}

// forwardTo starts a reverse proxy on this machine that verifies target's
// certificate, and returns its address.
func (o *origin) forwardTo(target *url.URL, caFile string) (string, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return "", fmt.Errorf("VAULT_CACERT: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return "", fmt.Errorf("VAULT_CACERT: no certificate in %s", caFile)
		}
	}
	tr := &http.Transport{TLSClientConfig: conf, Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 64, DisableCompression: true}
	o.closers = append(o.closers, func() error { tr.CloseIdleConnections(); return nil })
	return o.serve(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: tr,
		ErrorLog:  log.New(io.Discard, "", 0),
	})
}

// serve serves h on a free loopback port and returns its URL.
func (o *origin) serve(h http.Handler) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen on loopback: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Close
	}()
	o.closers = append(o.closers, func() error {
		err := srv.Close()
		<-done
		return err
	})
	return "http://" + l.Addr().String(), nil
}

// checkMount makes sure that mount is KV version 2, before anything is written.
func (o *origin) checkMount(ctx context.Context, mount string) error {
	r, err := o.ask(ctx, http.MethodGet, "sys/internal/ui/mounts/"+mount, nil)
	if err != nil {
		return fmt.Errorf("ask %s for its mounts: %w", o.label, err)
	}
	var out struct {
		Data struct {
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if err := errors.Join(r.Err(), r.JSON(&out)); err != nil {
		return fmt.Errorf("%s refuses the mount %s: %w; name one that VAULT_TOKEN may use with -mount", o.label, mount, err)
	}
	if out.Data.Options["version"] != "2" {
		return fmt.Errorf("the mount %s at %s is not KV version 2; name one that is with -mount", mount, o.label)
	}
	return nil
}

// ask sends a request of the demo's own past the counter.
func (o *origin) ask(ctx context.Context, method, path string, body any) (*harness.Response, error) {
	return harness.Send(ctx, o.client, o.direct, harness.Call{Method: method, Path: path, Token: o.token, Body: body, Header: o.header})
}

// put writes a new value for the secret name, and returns it.
func (o *origin) put(ctx context.Context, name string) (string, error) {
	return o.putAt(ctx, o.direct, name)
}

// putAt is put through what listens at addr.
func (o *origin) putAt(ctx context.Context, addr, name string) (string, error) {
	value := "demo-value-" + name + "-" + rand.Text()
	r, err := harness.Send(ctx, o.client, addr, harness.Call{
		Method: http.MethodPost, Path: o.path(name), Token: o.token, Header: o.header,
		Body: map[string]any{"data": map[string]string{"value": value}},
	})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return "", fmt.Errorf("write the secret %s: %w", o.path(name), err)
	}
	return value, nil
}

// path is the API path of a secret of the demo.
func (o *origin) path(name string) string { return o.prefix + name }

// removeAll removes the demo's secrets from a real origin.
func (o *origin) removeAll(ctx context.Context, mount, folder string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var errs []error
	for _, name := range secretNames() {
		r, err := o.ask(ctx, http.MethodDelete, mount+"/metadata/"+folder+name, nil)
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s/metadata/%s%s: %w", mount, folder, name, err))
		}
	}
	return errors.Join(errs...)
}

// close ends what newOrigin started, in reverse.
func (o *origin) close() error {
	if o.counter != nil {
		o.counter.Close()
	}
	var errs []error
	for i := len(o.closers) - 1; i >= 0; i-- {
		errs = append(errs, o.closers[i]())
	}
	o.client.CloseIdleConnections()
	return errors.Join(errs...)
}
