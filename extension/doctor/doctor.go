// Package doctor finds out why thaw does not work where it is, or why it costs
// more than it need. It goes the way of a request, with the parts that the
// product itself uses: the configuration, the network, TLS, each node of the
// origin, the login, the token, what that may read, and the shared cache. Each
// step is a Check. A check that lacks what an earlier one should have found
// (no node that answers, no token) is skipped and says so, so the first
// problem in a report is the one to mend first.
//
// A finding says what is so, why that matters and how to mend it. Problems
// make the exit status 1; advice does not.
//
// Nothing is written to the origin besides a login, whose service token is
// revoked at the end. The secrets that the configuration names are read, as
// the product would, to see that they are there; they are thrown away. In
// memcached one sealed record lives for a moment under a name of its own.
// Findings quote no token, key or value of a secret; whatever the
// configuration holds of those is cut out of every text once more before it is
// printed.
package doctor

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/extension/wait"
)

// Level says how grave a finding is.
type Level string

// Levels.
const (
	OK      Level = "ok"      // as it should be
	Advice  Level = "advice"  // works, and could be cheaper, safer or surer
	Problem Level = "problem" // does not work, or not as configured
	Skipped Level = "skipped" // could not be looked at
)

// Finding is one thing that a check found.
type Finding struct {
	Check string `json:"check"` // the check's name
	Level Level  `json:"level"`
	What  string `json:"what"`          // what is so, and where
	Why   string `json:"why,omitempty"` // why it matters; empty for OK
	Fix   string `json:"fix,omitempty"` // what to do; empty for OK
}

// Check looks at one thing and records what it finds in the Exam.
type Check struct {
	Name  string               // one word, such as "dns"
	Needs func(e *Exam) string // what is missing to run it; "" or nil: nothing
	Run   func(ctx context.Context, e *Exam)
}

// Options says what to examine. The zero value of a field with a default takes
// it.
type Options struct {
	Environ    []string             // os.Environ()
	ConfigFile string               // as -config; empty: THAW_CONFIG
	Paths      []string             // API paths to look at besides the configured ones
	Checks     []Check              // default: Checks()
	Azure      *config.AzureSupport // config.ForAzure() in thaw-azure; nil in other programs

	// Login makes what logs in; default auth.New. A platform with methods of
	// its own has another.
	Login func(auth.Options) (*auth.Manager, error)
	// Unwrap makes what has a key service decrypt the shared cache's key;
	// default tier.KMS.
	Unwrap func(config.Config, *slog.Logger) (tier.Unwrap, error)

	Now       func() time.Time                                           // wall clock; default time.Now
	Lookup    func(ctx context.Context, host string) ([]string, error)   // default: the system's resolver
	LookupSRV func(ctx context.Context, host string) ([]*net.SRV, error) // of _http._tcp; default: the same
	Own       func() []netip.Addr                                        // this host's addresses; default: its interfaces'
	Pause     func(ctx context.Context, d time.Duration) error           // default: a timer
	Log       *slog.Logger                                               // what the product's parts log; default: nothing
}

func (o Options) withDefaults() Options {
	if o.Checks == nil {
		o.Checks = Checks()
	}
	if o.Login == nil {
		o.Login = auth.New
	}
	if o.Unwrap == nil {
		o.Unwrap = tier.KMS
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lookup == nil {
		o.Lookup = net.DefaultResolver.LookupHost
	}
	if o.LookupSRV == nil {
		o.LookupSRV = func(ctx context.Context, host string) ([]*net.SRV, error) {
			_, found, err := net.DefaultResolver.LookupSRV(ctx, "http", "tcp", host)
			return found, err
		}
	}
	if o.Own == nil {
		o.Own = ownAddresses
	}
	if o.Pause == nil {
		o.Pause = wait.For
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Checks is every check that needs no particular platform, in their order.
func Checks() []Check {
	return []Check{
		{Name: "self-loop", Run: selfLoop},
		{Name: "dns", Run: dns},
		{Name: "tcp", Run: tcp},
		{Name: "tls", Run: tlsChain},
		{Name: "clock", Needs: answering, Run: clock},
		{Name: "health", Run: health},
		{Name: "nodes", Needs: answering, Run: nodes},
		{Name: "auth", Needs: serving, Run: login},
		{Name: "policy", Needs: loggedIn, Run: policy},
		{Name: "kv", Needs: loggedIn, Run: kv},
		{Name: "token", Needs: loggedIn, Run: tokenType},
		{Name: "forwarding", Needs: loggedIn, Run: forwarding},
		{Name: "events", Needs: loggedIn, Run: events},
		{Name: "standbys", Needs: answering, Run: standbys},
		{Name: "cursor", Needs: serving, Run: cursor},
		{Name: "quota", Needs: serving, Run: quota},
		{Name: "memcached", Needs: sharing, Run: memcachedNodes},
		{Name: "key", Needs: sharing, Run: cacheKey},
		{Name: "audience", Needs: sharing, Run: audience},
	}
}

// Report is what an examination found.
type Report struct {
	Healthy  bool      `json:"healthy"` // no problem was found
	Usable   bool      `json:"-"`       // the configuration could be read; else Findings is about it alone
	Problems int       `json:"problems"`
	Advice   int       `json:"advice"`
	Findings []Finding `json:"findings"`
}

// Run examines. It ends soon after ctx does; what it had no time for is
// skipped.
func Run(ctx context.Context, o Options) Report {
	e := &Exam{o: o.withDefaults(), Paths: o.Paths, mounts: make(map[string]mountAnswer), check: "configuration"}
	if e.configure() {
		defer e.close(ctx)
		for _, c := range e.o.Checks {
			e.check = c.Name
			missing := ""
			if c.Needs != nil {
				missing = c.Needs(e)
			}
			switch {
			case ctx.Err() != nil:
				e.Skip("the time for the examination is over")
			case missing != "":
				e.Skip(missing)
			default:
				c.Run(ctx, e)
			}
		}
		e.report.Usable = true
	}
	e.report.Healthy = e.report.Problems == 0
	return e.report
}

// configure reads the settings, and reports whether thaw can start with them.
func (e *Exam) configure() bool {
	src := config.Source{Environ: e.o.Environ, ConfigFile: e.o.ConfigFile, Azure: e.o.Azure}
	cfg, warnings, err := config.Load(src)
	if cfg.Warm.Enable {
		// The warm-up serves nothing, so no address can point back at it.
		src.NoListener = true
		cfg, warnings, err = config.Load(src)
	}
	e.hide.learn(cfg, e.o.Azure, e.o.Environ)
	for _, w := range warnings {
		what, fix := apart(w.Message, "see docs/settings.md")
		e.Advice(what, "thaw logs it as a warning at every start", fix)
	}
	if err == nil {
		err = e.begin(cfg)
	}
	if err == nil {
		e.OK("Vault at " + strings.Join(cfg.Addrs, ", "))
		return true
	}
	list := []error{err}
	if all, many := err.(interface{ Unwrap() []error }); many {
		list = all.Unwrap()
	}
	for _, one := range list {
		what, fix := apart(one.Error(), "correct the setting that it names")
		check := e.check
		if strings.Contains(what, "points back at thaw's own listener") {
			check = "self-loop"
		}
		e.addTo(check, Problem, what, startsNot, fix)
	}
	return false
}

// apart cuts a message of the configuration into what is so and what to do:
// that follows the last semicolon.
func apart(message, otherwise string) (what, fix string) {
	if i := strings.LastIndex(message, "; "); i >= 0 {
		what, fix = message[:i], message[i+2:]
		if strings.HasPrefix(fix, "allowed: ") {
			fix = "correct it; " + fix
		}
		return what, fix
	}
	return message, otherwise
}
