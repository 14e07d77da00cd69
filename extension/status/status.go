// Package status is the command `thaw status`: it asks a running process, over
// its listener, for GET /proxy/v1/status and prints the answer, as a table or
// as it came. It finds the listener as that process did, in the environment and
// the configuration file, and shows the local token if one is set.
package status

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/journal"
	"github.com/thaw-project/thaw/extension/memcached"
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
	Version   string       `json:"version"`
	Uptime    int64        `json:"uptime_seconds"`
	Listeners []string     `json:"listeners"`
	Origin    vault.Status `json:"origin"`
	Reads     string       `json:"reads"` // active or standby
	Answers   Answers      `json:"answers"`
	Token     Token        `json:"token"`
	Freshness Freshness    `json:"freshness"`
	Cache     Cache        `json:"cache"`
	Waiting   Waiting      `json:"waiting"`
	Errors    []Trouble    `json:"errors"` // lines of the log from WARN up, the latest first
	Time      time.Time    `json:"time"`

	Memcached []memcached.NodeState `json:"memcached,omitempty"` // nodes of the shared cache

	// Absent where that is not in use.
	Consistency *Consistency `json:"consistency,omitempty"`
	Events      *Events      `json:"events,omitempty"`
}

// Answers are what came of requests to the origin since the start.
type Answers struct {
	Codes   map[int]uint64 `json:"codes"`   // answers by status
	Refused uint64         `json:"refused"` // 4xx but 404 and 412
	Foreign uint64         `json:"foreign"` // not the origin's
	// Silent is for how long, in seconds, the origin has not answered; -1: it does.
	Silent int64 `json:"silent_seconds"`
}

// Freshness is how old what is cached may be, and is.
type Freshness struct {
	Rule     string     `json:"rule"`          // when a change is seen, by the settings
	Verified *time.Time `json:"last_verified"` // anything that is cached; null: nothing is
	// Entries that cannot be verified and are served marked stale, since when, and
	// until when.
	Stale int        `json:"stale"`
	Since *time.Time `json:"stale_since"`
	Until *time.Time `json:"served_until"`
}

// Waiting is what waits at the moment.
type Waiting struct {
	Requests int     `json:"requests"`        // of callers, under way
	Fills    int     `json:"fills"`           // reads of the origin that they, or polls, wait for
	Places   int     `json:"places"`          // at the origin, in use
	Limit    int     `json:"places_limit"`    // THAW_MAX_IN_FLIGHT
	Queued   int     `json:"queued"`          // requests of callers that wait for a place
	Poll     bool    `json:"poll"`            // a poll runs
	Slowest  float64 `json:"slowest_seconds"` // longest wait for a read in the last two minutes
}

// Trouble is a line of the log, and how often it came.
type Trouble = journal.Trouble

// Token is the extension's own token.
type Token struct {
	Method string `json:"method"` // how thaw logs in; none: callers bring their own tokens
	State  string `json:"state"`  // none, held, refused, ended
	// Refused is how long ago, in seconds, the origin refused it; -1: it did not.
	Refused int64 `json:"refused_seconds_ago"`
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

	Capabilities int `json:"capabilities"` // which paths somebody may read
	// Confirmed is how long ago, in seconds, the one of thaw's own that was
	// confirmed first was confirmed; -1: it has none.
	Confirmed int64 `json:"confirmed_seconds_ago"`
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

// Program is the command of a main.
type Program struct {
	Name           string   // "thaw status"
	Args, Environ  []string // the arguments after the command's name
	Azure          *config.AzureSupport
	Stdout, Stderr io.Writer
}

// Main runs the command and returns the exit status: 0, 1 if nobody answers or no
// node of the origin leads, 2 for wrong arguments.
func Main(ctx context.Context, p Program) int {
	stdout, stderr := p.Stdout, p.Stderr
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "%s [-config FILE] [-addr ADDRESS] [-json]\n\nAsks a running thaw what it knows of Vault's nodes, its token and its cache.\n"+
			"Run it with the same environment, or give the address of its listener.\n\n", p.Name)
		flags.PrintDefaults()
	}
	asJSON := flags.Bool("json", false, "print the answer as JSON")
	addr := flags.String("addr", "", "`address` of the running thaw, such as http://127.0.0.1:8200; default: THAW_LISTEN's first")
	file := flags.String("config", "", "configuration `file` of the running thaw, for its listener; wins over THAW_CONFIG")
	switch err := flags.Parse(p.Args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "%s: unexpected argument %q\n", p.Name, flags.Arg(0))
		return exitUsage
	}
	// What else is wrong in the settings is the running process's business.
	cfg, _, _ := config.Load(config.Source{Environ: p.Environ, ConfigFile: *file, Azure: p.Azure})
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	raw, err := ask(ctx, cfg, *addr)
	var report Report
	if err == nil {
		err = json.Unmarshal(raw, &report)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
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
	} else if !strings.Contains(addr, "://") {
		addr = "http://" + addr // as THAW_LISTEN and the row Listeners have it
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
	if l.Network == "unix" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.Address)
		}
	}
	if l.CertFile != "" {
		transport.TLSClientConfig = pinned(l.CertFile)
	}
	return URL(l, l.Address)
}

// URL is by what a listener that is bound to an address is asked on this host.
func URL(l config.Listener, bound string) string {
	scheme := "http://"
	if l.CertFile != "" {
		scheme = "https://"
	}
	if l.Network == "unix" {
		return scheme + "localhost"
	}
	if host, port, err := net.SplitHostPort(bound); err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
		bound = net.JoinHostPort("127.0.0.1", port)
	}
	return scheme + bound
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
	row := func(key, format string, args ...any) { fmt.Fprintf(t, key+"\t"+format+"\n", args...) }
	ago := func(at time.Time) string { return r.Time.Sub(at).Round(time.Second).String() + " ago" }
	row("Version", "%s, up %s", r.Version, seconds(r.Uptime))
	row("Listeners", "%v", cmp.Or(strings.Join(r.Listeners, ", "), "none"))
	row("Cluster ID", "%v", cmp.Or(o.ClusterID, "not told"))
	row("Cluster Name", "%v", cmp.Or(o.ClusterName, "not told"))
	row("Sealed", "%v", o.Sealed)
	row("Active Node Address", "%v", cmp.Or(o.Leader, "none known"))
	row("Reads", "%v", r.Reads)
	answers := "answers"
	if r.Answers.Silent >= 0 {
		answers = "does not answer, for " + seconds(r.Answers.Silent)
	} else if !slices.ContainsFunc(o.Nodes, func(n vault.NodeStatus) bool { return n.LastSeen != nil && r.Time.Sub(*n.LastSeen) < wait }) {
		answers = "does not answer now" // each was asked for this report
	}
	for _, code := range slices.Sorted(maps.Keys(r.Answers.Codes)) {
		answers += fmt.Sprintf("; %d x %d", r.Answers.Codes[code], code)
	}
	if r.Answers.Foreign > 0 {
		answers += fmt.Sprintf("; %d not Vault's", r.Answers.Foreign)
	}
	row("Vault", "%v", answers)
	token := r.Token.Method + ", " + r.Token.State
	switch {
	case r.Token.State == "refused":
		token = r.Token.Method + ", refused by Vault " + seconds(r.Token.Refused) + " ago"
	case r.Token.Left >= 0:
		token += ", ends in " + seconds(r.Token.Left)
	}
	row("Token", "%v", token)
	row("Freshness", "%v", r.Freshness.Rule)
	if v := r.Freshness.Verified; v != nil {
		row("Last Verified", "%v", ago(*v))
	}
	if f := r.Freshness; f.Stale > 0 && f.Since != nil && f.Until != nil {
		row("Stale", "%d entries, since %s; served until %s", f.Stale, f.Since.Format(time.RFC3339), f.Until.Format(time.RFC3339))
	}
	row("Cache", "%d entries, %d of %d bytes", r.Cache.Entries, r.Cache.Bytes, r.Cache.Limit)
	row("Requests", "%d: %d hits, %d stale, %d misses, %d errors; %d sent to the origin",
		r.Cache.Requests, r.Cache.Hits, r.Cache.Stale, r.Cache.Misses, r.Cache.Errors, r.Cache.Origin)
	if c := r.Cache; c.Confirmed >= 0 {
		row("Capabilities", "%d, the oldest of thaw's own confirmed %s ago", c.Capabilities, seconds(c.Confirmed))
	}
	waiting := fmt.Sprintf("%d requests, %d reads of Vault, %d of %d places in use; slowest read %.3fs", r.Waiting.Requests, r.Waiting.Fills, r.Waiting.Places, r.Waiting.Limit, r.Waiting.Slowest)
	row("Waiting", "%v", waiting+map[bool]string{true: "; a poll runs"}[r.Waiting.Poll])
	for _, n := range r.Memcached {
		state := map[bool]string{false: "asked", true: "out: not asked for now"}[n.Out]
		row("memcached", "%s, %s, %d connections", n.Address, state, n.Conns)
	}
	for _, e := range r.Errors {
		row("Error", "%s, %d times, %s", e.What, e.Count, ago(e.At))
	}
	if k := r.Consistency; k != nil {
		row("Consistency", "%d answers of nodes that lagged: %d waits, %d requests sent to the active node", k.Lagging, k.Waits, k.Active)
	}
	if e := r.Events; e != nil {
		state := map[bool]string{false: "no stream, polling", true: "listening"}[e.Listening]
		row("Events", "%s; %d changes told", state, e.Told)
	}
	for _, n := range o.Nodes {
		t.Flush()
		fmt.Fprintln(w)
		row("Node", "%v", n.Address)
		row("  Role", "%v", n.Role)
		row("  Version", "%v", cmp.Or(n.Version, "not told"))
		seen := "never"
		if n.LastSeen != nil {
			seen = max(0, r.Time.Sub(*n.LastSeen).Round(time.Millisecond)).String() + " ago"
		}
		row("  Last Seen", "%v", seen)
		row("  Latency", "%.1fms", n.Latency)
		row("  Raft Applied Index", "%v", n.Applied)
		if n.RemoteWAL > 0 {
			row("  Performance Standby Last Remote WAL", "%v", n.RemoteWAL)
		}
		row("  Breaker", "%v", n.Breaker)
		if n.Error != "" {
			row("  Error", "%v", n.Error)
		}
	}
	t.Flush()
}

func seconds(n int64) string { return (time.Duration(n) * time.Second).String() }
