// Package status is the command `thaw status`: it asks a running process, over
// its listener, for GET /proxy/v1/status and prints the answer, as a table or
// as it came. It finds the listener as that process did, in the environment and
// the configuration file, and shows the local token if one is set.
package status

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/vault"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // nobody answers, or no node of the origin leads
	exitUsage  = 2
)

// wait bounds the whole command.
const wait = 10 * time.Second

// Report is what the process answers, as JSON; nothing in it is secret.
type Report struct {
	Origin vault.Status `json:"origin"`
	Reads  string       `json:"reads"` // active or standby
	Token  Token        `json:"token"`
	Cache  Cache        `json:"cache"`
	Time   time.Time    `json:"time"`

	// Absent where that is not in use.
	Consistency *Consistency `json:"consistency,omitempty"`
	Events      *Events      `json:"events,omitempty"`
}

// Token is the extension's own token.
type Token struct {
	Method string `json:"method"` // how thaw logs in; none: callers bring their own tokens
	State  string `json:"state"`  // none, held
	// Left is how long the token lasts, in seconds; -1: no end is known, or no
	// token is held.
	Left int64 `json:"seconds_left"`
}

// Cache is what is cached, and how requests went since the start.
type Cache struct {
	Entries    int    `json:"entries"`
	Bytes      int64  `json:"bytes"`
	Limit      int64  `json:"limit_bytes"`
	Identities int    `json:"identities"`
	Requests   uint64 `json:"requests"`
	Hits       uint64 `json:"hits"`
	Stale      uint64 `json:"stale"`
	Misses     uint64 `json:"misses"`
	Errors     uint64 `json:"errors"`
	Origin     uint64 `json:"origin_requests"`
}

// Consistency counts what was done about nodes that lag.
type Consistency struct {
	Lagging uint64 `json:"lagging"`        // answers of nodes that lacked what a caller had written
	Waits   uint64 `json:"waits"`          // before such a node was asked again
	Active  uint64 `json:"sent_to_active"` // requests, for that reason
}

// Events is the stream of the origin's events.
type Events struct {
	Listening bool   `json:"listening"`
	Told      uint64 `json:"told"` // changes
}

// Main runs the command with the arguments after its name and returns the exit
// status: 0, 1 if nobody answers or no node of the origin leads, 2 for wrong
// arguments.
func Main(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("thaw status", flag.ContinueOnError)
	flags.SetOutput(stderr)
	asJSON := flags.Bool("json", false, "print the answer as JSON")
	addr := flags.String("addr", "", "`address` of the running thaw, such as http://127.0.0.1:8200; default: THAW_LISTEN's first")
	file := flags.String("config", "", "configuration `file` of the running thaw, for its listener; wins over THAW_CONFIG")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "thaw status: unexpected argument %q\n", flags.Arg(0))
		return exitUsage
	}
	// What else is wrong in the settings is the running process's business.
	cfg, _, _ := config.Load(config.Source{Environ: environ, ConfigFile: *file})
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	raw, err := ask(ctx, cfg, *addr)
	var report Report
	if err == nil {
		err = json.Unmarshal(raw, &report)
	}
	if err != nil {
		fmt.Fprintln(stderr, "thaw status:", err)
		return exitFailed
	}
	if *asJSON {
		fmt.Fprintln(stdout, string(bytes.TrimSpace(raw)))
	} else {
		report.Write(stdout)
	}
	if report.Origin.Routed && report.Origin.Leader == "" {
		return exitFailed
	}
	return exitOK
}

// maxAnswer bounds what is read, in bytes.
const maxAnswer = 1 << 20

// ask asks the process for its status.
func ask(ctx context.Context, cfg config.Config, addr string) ([]byte, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	if addr == "" {
		addr = reach(cfg, transport)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(addr, "/")+"/proxy/v1/status", nil)
	if err != nil {
		return nil, errors.New("-addr is not an address such as http://127.0.0.1:8200")
	}
	req.Header.Set("X-Vault-Request", "true")
	if cfg.LocalToken != "" {
		req.Header.Set("X-Thaw-Token", string(cfg.LocalToken))
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no thaw answers: %w; is it running, and is this its listener (THAW_LISTEN, -addr)?", err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the status from %s: %w", addr, err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/json" {
		return nil, fmt.Errorf("%s answered %s to /proxy/v1/status; is that thaw, of this release, and THAW_LOCAL_TOKEN its own?", addr, res.Status)
	}
	return raw, nil
}

// reach gives the address of the first listener that cfg names and makes the
// transport reach it.
func reach(cfg config.Config, transport *http.Transport) string {
	if len(cfg.Listeners) == 0 {
		return "http://127.0.0.1:8200"
	}
	l := cfg.Listeners[0]
	addr := "http://" + l.Address
	if l.Network == "unix" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.Address)
		}
		addr = "http://localhost"
	} else if host, port, err := net.SplitHostPort(l.Address); err == nil {
		if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
			addr = "http://" + net.JoinHostPort("127.0.0.1", port)
		}
	}
	if l.CertFile != "" {
		addr = "https" + strings.TrimPrefix(addr, "http")
		transport.TLSClientConfig = pinned(l.CertFile)
	}
	return addr
}

// pinned accepts exactly the certificate that the listener has: whatever names
// it is for, and whoever signed it.
func pinned(file string) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(state tls.ConnectionState) error {
			text, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("read the listener's certificate: %w", err)
			}
			block, _ := pem.Decode(text)
			if block == nil || len(state.PeerCertificates) == 0 || !bytes.Equal(block.Bytes, state.PeerCertificates[0].Raw) {
				return errors.New("the certificate is not the one in " + file)
			}
			return nil
		},
	}
}

// Write prints the report as a table.
func (r Report) Write(w io.Writer) {
	o := r.Origin
	t := tabwriter.NewWriter(w, 0, 0, 4, ' ', 0)
	row := func(key string, value any) { fmt.Fprintf(t, "%s\t%v\n", key, value) }
	row("Cluster ID", or(o.ClusterID, "not told"))
	row("Cluster Name", or(o.ClusterName, "not told"))
	row("Sealed", o.Sealed)
	row("Active Node Address", or(o.Leader, "none known"))
	row("Reads", r.Reads)
	token := r.Token.Method + ", " + r.Token.State
	if r.Token.Left >= 0 {
		token += ", ends in " + (time.Duration(r.Token.Left) * time.Second).String()
	}
	row("Token", token)
	row("Cache", fmt.Sprintf("%d entries, %d of %d bytes", r.Cache.Entries, r.Cache.Bytes, r.Cache.Limit))
	row("Requests", fmt.Sprintf("%d: %d hits, %d stale, %d misses, %d errors; %d sent to the origin",
		r.Cache.Requests, r.Cache.Hits, r.Cache.Stale, r.Cache.Misses, r.Cache.Errors, r.Cache.Origin))
	if k := r.Consistency; k != nil {
		row("Consistency", fmt.Sprintf("%d answers of nodes that lagged: %d waits, %d requests sent to the active node", k.Lagging, k.Waits, k.Active))
	}
	if e := r.Events; e != nil {
		state := "no stream, polling"
		if e.Listening {
			state = "listening"
		}
		row("Events", fmt.Sprintf("%s; %d changes told", state, e.Told))
	}
	for _, n := range o.Nodes {
		fmt.Fprintln(t, "\t")
		row("Node", n.Address)
		row("  Role", n.Role)
		row("  Version", or(n.Version, "not told"))
		seen := "never"
		if n.LastSeen != nil {
			seen = r.Time.Sub(*n.LastSeen).Round(time.Millisecond).String() + " ago"
		}
		row("  Last Seen", seen)
		row("  Latency", fmt.Sprintf("%.1fms", n.Latency))
		row("  Raft Applied Index", n.Applied)
		if n.RemoteWAL > 0 {
			row("  Performance Standby Last Remote WAL", n.RemoteWAL)
		}
		row("  Breaker", n.Breaker)
		if n.Error != "" {
			row("  Error", n.Error)
		}
	}
	t.Flush()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
