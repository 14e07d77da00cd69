// Package handler is the user's own handler in tests of Azure Functions: an
// HTTP server on the port that it is told, as a user would write it. What it
// answers lets a test see whether anything was lost or changed on the way.
//
// A test binary becomes the handler when its first argument is Argument; the
// ones after that say how it behaves:
//
//	slow=2s      listens only after that long
//	never        never listens; writes a line to standard error
//	exit=3       ends with that status at once, after a line of output
//	stubborn     ignores SIGTERM
//	spawn        starts another process that sleeps, and writes its id: "spawned 123"
//	proxy=ADDR   where /read finds thaw's proxy
package handler

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Argument makes a test binary the handler.
const Argument = "azure-test-handler"

// Ours reports whether a process with these arguments is to be the handler.
func Ours(args []string) bool { return len(args) > 1 && args[1] == Argument }

// Main is the handler's main function.
func Main(args []string) int {
	var proxy string
	pause := time.Duration(0)
	never := false
	for _, a := range args[2:] {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "slow":
			pause, _ = time.ParseDuration(value)
		case "never":
			never = true
		case "exit":
			fmt.Fprintln(os.Stderr, "cannot find module 'express'")
			n, _ := strconv.Atoi(value)
			return n
		case "stubborn":
			signal.Ignore(syscall.SIGTERM)
		case "spawn":
			cmd := exec.Command("sleep", "600")
			if err := cmd.Start(); err != nil {
				return 1
			}
			fmt.Println("spawned", cmd.Process.Pid)
		case "proxy":
			proxy = value
		}
	}
	term := make(chan os.Signal, 1)
	if !slices.Contains(args, "stubborn") {
		signal.Notify(term, syscall.SIGTERM)
	}
	if never {
		fmt.Fprintln(os.Stderr, "waiting for a database that is not there")
		<-term
		return 0
	}
	timer := time.NewTimer(pause)
	select {
	case <-timer.C:
	case <-term:
		return 0
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("handler listens")
	s := &http.Server{Handler: Handler(proxy)}
	go func() {
		<-term
		fmt.Println("handler got SIGTERM")
		_ = s.Shutdown(context.Background())
	}()
	_ = s.Serve(l)
	return 0
}

func port() string {
	for _, e := range os.Environ() {
		if v, ok := strings.CutPrefix(e, "FUNCTIONS_CUSTOMHANDLER_PORT="); ok {
			return v
		}
	}
	return ""
}

// Handler answers as the package says. proxy is host:port of thaw's proxy.
func Handler(proxy string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", echo)
	mux.HandleFunc("/crash", func(_ http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("status"))
		fmt.Fprintln(os.Stderr, "fatal: out of luck")
		os.Exit(n)
	})
	mux.HandleFunc("/environ", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Join(os.Environ(), "\n"))
	})
	mux.HandleFunc("/upgrade", upgrade)
	mux.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "begun\n")
		_ = http.NewResponseController(w).Flush()
		d, _ := time.ParseDuration(r.FormValue("for"))
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			_, _ = io.WriteString(w, "done\n")
		case <-r.Context().Done():
		}
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		read(w, r, client, proxy)
	})
	return mux
}

// read reads a secret from thaw's proxy, as a function would.
func read(w http.ResponseWriter, r *http.Request, client *http.Client, proxy string) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+proxy+"/v1/"+r.FormValue("path"), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	res, err := client.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	for _, h := range []string{"Cache-Status", "X-Cache", "Warning"} {
		if v := res.Header.Get(h); v != "" {
			w.Header().Set(h, v)
		}
	}
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body)
}

// echo answers with a digest of what it got, and a body that the query's seed
// and size determine. An envelope gets an envelope.
func echo(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	sum := sha256.New()
	stream := q.Has("stream")
	if stream {
		// The answer runs beside the request.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	body, err := io.ReadAll(io.TeeReader(r.Body, sum))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") && r.URL.RawQuery == "" {
		envelope(w, r, body, hex.EncodeToString(sum.Sum(nil)))
		return
	}
	w.Header()["Date"] = nil
	w.Header().Set("X-Got-Body", hex.EncodeToString(sum.Sum(nil)))
	w.Header().Set("X-Got-Head", Head(r.Method, r.RequestURI, r.Host, r.Header))
	w.Header()["X-Twice"] = []string{"one, with a comma", "two"}
	w.Header().Set("X-Invocation", r.Header.Get("X-Azure-Functions-InvocationId"))
	w.Header().Set("Content-Type", "application/octet-stream")
	seed, _ := strconv.ParseUint(q.Get("seed"), 10, 64)
	size, _ := strconv.Atoi(q.Get("size"))
	out := Body(seed, size)
	if !stream {
		w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	} else {
		w.Header().Set("Trailer", "X-End")
	}
	if n, _ := strconv.Atoi(q.Get("status")); n > 0 {
		w.WriteHeader(n)
	}
	if !stream {
		_, _ = w.Write(out)
		return
	}
	for part := range slices.Chunk(out, 1+len(out)/4) {
		_, _ = w.Write(part)
		_ = http.NewResponseController(w).Flush()
	}
	w.Header().Set("X-End", Digest(out))
}

// envelope answers an envelope: what came of it stands in the outputs.
func envelope(w http.ResponseWriter, r *http.Request, body []byte, sum string) {
	var in struct {
		Data map[string]json.RawMessage
	}
	if err := json.Unmarshal(body, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"Outputs": map[string]any{
			"res": map[string]any{"statusCode": 201, "headers": map[string]string{"X-Function": r.URL.Path[1:]}, "body": "got " + sum},
			"sum": sum, "invocation": r.Header.Get("X-Azure-Functions-InvocationId"),
			"blob": base64.StdEncoding.EncodeToString(Body(7, 1000)),
		},
		"Logs": []string{"one line", "and another: äöü €"}, "ReturnValue": "returned <&> " + sum,
	})
}

// upgrade leaves HTTP and echoes bytes until the peer ends.
func upgrade(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	_ = rw.Flush()
	_, _ = io.Copy(conn, rw)
}

// Body is the answer that a seed determines.
func Body(seed uint64, size int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	out := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(out)
	return out
}

// Digest is a body's, in hex.
func Digest(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

// Head is a digest of a request's line, host and headers; of these only the
// framing is left out, and what each invocation has its own of.
func Head(method, uri, host string, h http.Header) string {
	names := make([]string, 0, len(h))
	for name := range h {
		switch name {
		case "Content-Length", "Transfer-Encoding", "X-Azure-Functions-Invocationid", "X-Azure-Functions-Hostversion", "X-Ms-Invocation-Id", "User-Agent":
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\n", method, uri, host)
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %q\n", name, h[name])
	}
	return Digest([]byte(b.String()))
}
