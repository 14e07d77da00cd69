package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/thaw-project/thaw/extension/app"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/process"
	"github.com/thaw-project/thaw/tests/standin"
)

// look is how often the file is looked at.
const look = 100 * time.Millisecond

// dev is the program while it serves.
type dev struct {
	settings
	origin *standin.Origin
	root   string // the stand-in's root token
	stdout io.Writer
	stderr io.Writer
	held   secrets // what the stand-in has
}

// serve serves until ctx ends.
func serve(ctx context.Context, s settings, first secrets, environ []string, stdout, stderr io.Writer) error {
	root := s.token
	if root == "" {
		root = rand.Text()
	}
	d := &dev{settings: s, root: root, stdout: stdout, stderr: stderr, held: secrets{}, origin: standin.New(standin.Options{RootToken: root, Empty: true})}
	if err := d.rotate(first); err != nil {
		return err
	}
	t := newTrouble(d.origin, s, root)

	vault, err := listenAndServe("127.0.0.1:0", t)
	if err != nil {
		return err
	}
	defer vault.Close()
	a, err := d.proxy(vault.Addr, environ)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		a.Shutdown(end)
	}()
	front, err := listenAndServe(s.listen, newFront(a.Addrs()[0], t, func(at time.Time) { a.Invoke(at, time.Time{}) }))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: Vault or thaw may have it; -listen 127.0.0.1:0 takes a free port", err)
	}
	if err != nil {
		return err
	}
	defer front.Close()
	d.greet(front.Addr, len(first))

	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { d.watch(ctx) })
	work.Go(func() { d.signals(ctx, t) })
	<-ctx.Done()
	return nil
}

// server serves HTTP on an address.
type server struct {
	Addr string
	http *http.Server
}

func listenAndServe(addr string, h http.Handler) (*server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{Addr: l.Addr().String(), http: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}}
	go s.http.Serve(l) // until Close
	return s, nil
}

// Close ends all connections.
func (s *server) Close() { s.http.Close() }

// proxy is the real proxy before the stand-in. What the environment says of
// thaw counts, but not where Vault is and how to log in.
func (d *dev) proxy(vault string, environ []string) (*app.App, error) {
	env := []string{"VAULT_ADDR=http://" + vault, "VAULT_TOKEN=" + d.root, "THAW_LISTEN=127.0.0.1:0", "VAULT_LOG_LEVEL=ERROR"}
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "THAW_") && name != "THAW_LISTEN" && name != "THAW_CONFIG" && name != "THAW_VAULT_ADDRS" && !strings.HasPrefix(name, "THAW_AUTH") || name == "VAULT_LOG_LEVEL" {
			env = append(env, e)
		}
	}
	cfg, _, err := config.Load(config.Source{Environ: env})
	if err != nil {
		return nil, err
	}
	logger, _ := process.Log(cfg, d.stderr)
	a, err := app.Build(cfg, logger, io.Discard, app.Hooks{Frozen: true})
	if err != nil {
		return nil, err
	}
	if err := a.Listen(); err != nil {
		return nil, err
	}
	return a, nil
}

// greet says what to set, and what can be done.
func (d *dev) greet(addr string, n int) {
	example := "secret/data/app"
	for _, path := range slices.Sorted(maps.Keys(d.held)) {
		example = path
		break
	}
	token := ""
	if d.token != "" {
		token = " VAULT_TOKEN=(the token of -token)"
	}
	fmt.Fprintf(d.stdout, `thaw-dev serves %s without Vault. Secrets: %d

Set for your function:   VAULT_ADDR=http://%s%s
Read one:                curl http://%s/v1/%s
Begin an invocation:     send a new %s with a read, or curl -X POST http://%s/dev/invoke
Rotate a secret:         edit %s
Take Vault down, and up: curl -X POST http://%s/dev/down, .../dev/up, or kill -USR1 %d

`, d.source, n, addr, token, addr, example, requestID, addr, d.source, addr, os.Getpid())
}

// watch rotates secrets whenever the source changes. A source that cannot be
// read, or is wrong, leaves what is there, and is told once.
func (d *dev) watch(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := readSecrets(d.source)
		if err == nil {
			err = d.rotate(now)
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != told {
			fmt.Fprintf(d.stderr, "thaw-dev: %s\nThe secrets stay as they were.\n", text)
		}
		told = text
	}
}

// rotate makes the stand-in hold what now says.
func (d *dev) rotate(now secrets) error {
	var problems []error
	began := len(d.held) == 0
	for _, path := range slices.Sorted(maps.Keys(now)) {
		if bytes.Equal(d.held[path], now[path]) {
			continue
		}
		at, version, _ := mount(path)
		d.origin.Mount(at, version)
		body := now[path]
		if version == 2 {
			body = slices.Concat([]byte(`{"data":`), body, []byte("}"))
		}
		if err := d.write(http.MethodPost, path, body); err != nil {
			problems = append(problems, err)
			continue
		}
		if !began {
			fmt.Fprintf(d.stdout, "rotated %s\n", path)
		}
		d.held[path] = now[path]
	}
	for _, path := range slices.Sorted(maps.Keys(d.held)) {
		if now[path] != nil {
			continue
		}
		at, version, name := mount(path)
		target := path
		if version == 2 {
			target = at + "/metadata/" + name
		}
		if err := d.write(http.MethodDelete, target, nil); err != nil {
			problems = append(problems, err)
			continue
		}
		fmt.Fprintf(d.stdout, "deleted %s\n", path)
		delete(d.held, path)
	}
	return errors.Join(problems...)
}

// write is a request to the stand-in, past all trouble.
func (d *dev) write(method, path string, body []byte) error {
	r, err := http.NewRequest(method, "/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s is no path: %w", path, err)
	}
	r.Header.Set("X-Vault-Token", d.root)
	w := &answer{header: http.Header{}, status: http.StatusOK}
	d.origin.ServeHTTP(w, r)
	if w.status >= 300 {
		var said struct{ Errors []string }
		_ = json.Unmarshal(w.body.Bytes(), &said)
		return fmt.Errorf("%s %s: status %d %s", method, path, w.status, strings.Join(said.Errors, "; "))
	}
	return nil
}

// answer keeps what a handler in this process answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// signals takes the origin away at SIGUSR1, and brings it back at the next.
func (d *dev) signals(ctx context.Context, t *trouble) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	defer signal.Stop(c)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c:
			state := "up"
			if t.toggle() {
				state = "down"
			}
			fmt.Fprintf(d.stdout, "Vault is %s\n", state)
		}
	}
}
