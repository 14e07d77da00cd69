// Package doctor finds out why thaw does not work where it is, or why it costs
// more than it need. It goes the way of a request, with the parts that the
// product itself uses: the configuration, the network, TLS, each node of the
// origin, the login, the token, what that may read, and the shared cache. Each
// step is a Check. What could not be looked at is a finding, too: not checked,
// why, and how to check it. A report is healthy only if everything was looked
// at. The first problem in it is the one to mend first.
//
// A finding says what is so, why that matters and how to mend it. Problems
// make the exit status 1, and so does a path of the command line that was not
// read; what was not checked makes it 3; advice does nothing. What was seen under
// another principal than the function's counts as not checked.
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

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/tier"
)

// Level says how grave a finding is.
type Level string

// Levels.
const (
	OK        Level = "ok"          // as it should be
	Advice    Level = "advice"      // works, and could be cheaper, safer or surer
	Problem   Level = "problem"     // does not work, or not as configured
	Unchecked Level = "not checked" // could not be looked at
)

// Finding is one thing that a check found.
type Finding struct {
	Check string `json:"check"` // the check's name
	Level Level  `json:"level"`
	What  string `json:"what"`          // what is so, and where
	Why   string `json:"why,omitempty"` // why it matters; for Unchecked: why it was not looked at; empty for OK
	Fix   string `json:"fix,omitempty"` // what to do; for Unchecked: how to check it; empty for OK
}

// Fine is the finding that something is as it should be.
func Fine(what string) Finding { return Finding{Level: OK, What: what} }

// Advise is the finding of what works and could be cheaper, safer or surer.
func Advise(what, why, fix string) Finding { return Finding{"", Advice, what, why, fix} }

// Fault is the finding of what does not work, or not as configured.
func Fault(what, why, fix string) Finding { return Finding{"", Problem, what, why, fix} }

// Unseen is the finding that what the check is for could not be looked at, and how
// it can be.
func Unseen(why, how string) Finding { return Finding{"", Unchecked, why, "", how} }

// Check looks at one thing, or at several. What is found before the last finding is
// told to the Exam.
type Check struct {
	Name      string                                     // one word, such as "dns"
	Moot      func(e *Exam) string                       // why there is nothing to look at; "" or nil: there is
	Needs     func(e *Exam) string                       // what is missing to run it; "" or nil: nothing
	One       func(ctx context.Context, e *Exam) Finding // looks, and returns the last finding; the zero Finding is none
	All       func(ctx context.Context, e *Exam)         // in place of One: looks at each of several things, and tells what it finds
	Otherwise string                                     // what is fine if nothing else is found
}

// Options says what to examine. The zero value of a field with a default takes
// it.
type Options struct {
	Environ    []string             // os.Environ()
	ConfigFile string               // as -config; empty: THAW_CONFIG
	Paths      []string             // API paths to look at besides the configured ones
	Checks     []Check              // default: Checks()
	NoLogin    bool                 // nothing logs in
	UseUp      bool                 // a login may take one use of a secret id, and questions those of a token
	Azure      *config.AzureSupport // config.ForAzure() in thaw-azure; nil in other programs

	// Platform makes what only the platform has: its own way to log in, and what
	// has its key service decrypt the shared cache's key; each nil: there is none.
	// Of the settings it may be given the login's alone. Default: tier.KMS.
	Platform func(config.Config, *slog.Logger) (auth.Platform, tier.Unwrap, error)

	Lookup    func(ctx context.Context, host string) ([]string, error)                           // default: the system's resolver
	LookupSRV func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) // default: the same
	Own       func() []netip.Addr                                                                // this host's addresses; default: its interfaces'
	Found     func(Finding)                                                                      // told of each finding at once; default: nobody
}

func (o Options) withDefaults() Options {
	preset(o.Checks != nil, &o.Checks, Checks())
	preset(o.Platform != nil, &o.Platform, func(cfg config.Config, log *slog.Logger) (auth.Platform, tier.Unwrap, error) {
		unwrap, err := tier.KMS(cfg, log)
		return nil, unwrap, err
	})
	preset(o.Lookup != nil, &o.Lookup, net.DefaultResolver.LookupHost)
	preset(o.LookupSRV != nil, &o.LookupSRV, net.DefaultResolver.LookupSRV)
	preset(o.Own != nil, &o.Own, ownAddresses)
	preset(o.Found != nil, &o.Found, func(Finding) {})
	return o
}

// preset gives an option its default where it is not set.
func preset[T any](set bool, option *T, value T) {
	if !set {
		*option = value
	}
}

// Checks is every check that needs no particular platform, in their order.
func Checks() []Check {
	return []Check{
		{Name: "self-loop", All: selfLoop, Otherwise: "no address of Vault leads back to thaw's listener"},
		{Name: "dns", All: dns, Otherwise: "no names to look up: addresses are IP addresses or sockets"},
		{Name: "listen", All: listen, Otherwise: "thaw listens on no port"},
		{Name: "files", All: secretFiles, Otherwise: "no secret is to be put into a file"},
		{Name: "tcp", All: tcp},
		{Name: "tls", Needs: reachable, All: tlsChain, Otherwise: "no TLS on the way"},
		{Name: "clock", Needs: answering, All: clock},
		{Name: "health", All: health},
		{Name: "nodes", Needs: answering, All: nodes},
		{Name: "latency", Needs: answering, All: latency, Otherwise: "nothing waits for Vault: THAW_POLL=off"},
		{Name: "auth", Moot: noLogin, Needs: serving, One: login},
		{Name: "policy", Moot: noLogin, Needs: loggedIn, One: policy},
		{Name: "kv", Moot: noLogin, Needs: loggedIn, All: kv, Otherwise: "no paths are configured"},
		{Name: "token", Moot: noLogin, Needs: loggedIn, One: tokenType},
		{Name: "forwarding", Moot: noLogin, Needs: loggedIn, One: forwarding},
		{Name: "events", Moot: noLogin, Needs: loggedIn, One: events},
		{Name: "standbys", Needs: answering, One: standbys},
		{Name: "cursor", Needs: serving, One: cursor},
		{Name: "quota", Needs: serving, One: quota},
		{Name: "freshness", One: freshness},
		{Name: "memcached", Moot: notSharing, One: memcachedNodes},
		{Name: "key", Moot: notSharing, One: cacheKey},
		{Name: "audience", Moot: notSharing, One: audience},
	}
}

// Report is what an examination found.
type Report struct {
	Version   string    `json:"version"` // of the program
	Healthy   bool      `json:"healthy"` // everything was looked at, and no problem was found
	Usable    bool      `json:"-"`       // the configuration could be read; else Findings is about it alone
	Problems  int       `json:"problems"`
	Advice    int       `json:"advice"`
	Unchecked int       `json:"not_checked"`
	Unread    []string  `json:"unread,omitempty"` // paths of the command line that were not read
	Findings  []Finding `json:"findings"`
}

// Run examines. It ends soon after ctx does; what it had no time for is
// not checked.
func Run(ctx context.Context, o Options) Report {
	e := &Exam{o: o.withDefaults(), log: slog.New(slog.DiscardHandler), read: make(map[string]bool), check: "configuration"}
	if e.configure() {
		defer e.close(ctx)
		for _, c := range e.o.Checks {
			e.check = c.Name
			e.Tell(e.look(ctx, c))
			if f := e.report.Findings; c.Otherwise != "" && (len(f) == 0 || f[len(f)-1].Check != c.Name) {
				e.Tell(Fine(c.Otherwise))
			}
		}
		e.report.Usable = true
	}
	for _, path := range e.o.Paths {
		if !e.read[barePath(path)] {
			e.report.Unread = append(e.report.Unread, path)
		}
	}
	e.report.Healthy = e.report.Problems+e.report.Unchecked+len(e.report.Unread) == 0
	return e.report
}

// look runs a check, if there is a point in it.
func (e *Exam) look(ctx context.Context, c Check) Finding {
	reason := func(of func(*Exam) string) string {
		if of == nil {
			return ""
		}
		return of(e)
	}
	if moot := reason(c.Moot); moot != "" {
		return Fine("nothing to look at: " + moot)
	} else if ctx.Err() != nil {
		return Unseen("the time for the examination is over", "give it more with -timeout")
	} else if missing := reason(c.Needs); missing != "" {
		return Unseen(missing, "see to that first, and run the doctor again")
	}
	if c.All != nil {
		c.All(ctx, e)
		return Finding{}
	}
	return c.One(ctx, e)
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
		e.Tell(Advise(what, "thaw logs it as a warning at every start", fix))
	}
	if err == nil {
		err = e.begin(cfg)
	}
	if err == nil {
		e.Tell(Fine("Vault at " + strings.Join(cfg.Addrs, ", ")))
		return true
	}
	list := []error{err}
	if all, many := err.(interface{ Unwrap() []error }); many {
		list = all.Unwrap()
	}
	for _, one := range list {
		what, fix := apart(one.Error(), "correct the setting that it names")
		check := ""
		if strings.Contains(what, "points back at thaw's own listener") {
			check = "self-loop"
		}
		e.Tell(Finding{check, Problem, what, e.startsNot("ConfigInvalid"), fix})
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
