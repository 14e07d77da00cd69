package doctor

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/vault"
)

// examined runs the first checks with a resolver of the test's.
func examined(t *testing.T, names map[string][]string, own []string, environ ...string) Report {
	t.Helper()
	o := Options{Environ: environ, Checks: Checks()[:2]}
	o.Lookup = func(_ context.Context, host string) ([]string, error) {
		if ips, known := names[host]; known {
			return ips, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	o.Own = func() (all []netip.Addr) {
		for _, a := range own {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	return Run(t.Context(), o)
}

func (r Report) has(check string, level Level, part string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Check == check && f.Level == level && strings.Contains(f.What, part)
	})
}

func TestANameThatLeadsBackToThawIsFound(t *testing.T) {
	t.Parallel()
	names := map[string][]string{"vault.example.com": {"127.0.0.1"}, "mine.example.com": {"10.0.0.9"}, "far.example.com": {"10.0.0.1", "10.0.0.2"}}
	for name, c := range map[string]struct {
		env   []string
		loops bool
	}{
		"its own port on loopback":        {[]string{"VAULT_ADDR=http://vault.example.com:8200"}, true},
		"another port":                    {[]string{"VAULT_ADDR=http://vault.example.com:8201"}, false},
		"another host":                    {[]string{"VAULT_ADDR=https://far.example.com:8200"}, false},
		"this host, and it listens there": {[]string{"VAULT_ADDR=https://mine.example.com:8200", "THAW_LISTEN=0.0.0.0:8200"}, true},
		"this host, and it does not":      {[]string{"VAULT_ADDR=https://mine.example.com:8200"}, false},
		"no port":                         {[]string{"VAULT_ADDR=https://vault.example.com", "THAW_LISTEN=127.0.0.1:443"}, true},
		"a warm-up, which serves nothing": {[]string{"VAULT_ADDR=http://vault.example.com:8200", "PROACTIVE_CACHE_ENABLE=true", "CACHE_ENABLE=true", "THAW_MEMCACHED=h", "THAW_WARM_PATHS=secret/",
			"THAW_CACHE_KEY=" + strings.Repeat("QUFB", 10) + "QUE="}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := examined(t, names, []string{"10.0.0.9"}, c.env...)
			if got := r.has("self-loop", Problem, "where thaw itself listens"); got != c.loops || r.Healthy == c.loops {
				t.Errorf("found %v, healthy %v: %+v", got, r.Healthy, r.Findings)
			}
		})
	}
}

func TestEachAddressOfANameIsANode(t *testing.T) {
	t.Parallel()
	var seen []string
	o := Options{Environ: []string{"VAULT_ADDR=https://vault.example.com:8200"}, Checks: append(Checks()[1:2], Check{Name: "own", All: func(_ context.Context, e *Exam) {
		for _, n := range e.nodes {
			seen = append(seen, n.String())
		}
	}})}
	o.Lookup = func(context.Context, string) ([]string, error) { return []string{"10.0.0.1", "10.0.0.2"}, nil }
	Run(t.Context(), o)
	if want := []string{"https://vault.example.com:8200 (10.0.0.1)", "https://vault.example.com:8200 (10.0.0.2)"}; !slices.Equal(seen, want) {
		t.Errorf("%v", seen)
	}
}

func TestSRVRecordsAreNodes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		found []*net.SRV
		want  []string
	}{
		"two":  {[]*net.SRV{{Target: "a.example.com.", Port: 8200}, {Target: "b.example.com.", Port: 8201}}, []string{"https://a.example.com:8200", "https://b.example.com:8201"}},
		"none": {nil, []string{"https://vault.example.com"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen []string
			o := Options{Environ: []string{"VAULT_ADDR=https://vault.example.com", "VAULT_SRV_LOOKUP=true"}, Checks: append(Checks()[1:2], Check{Name: "own", All: func(_ context.Context, e *Exam) {
				for _, n := range e.nodes {
					seen = append(seen, n.String())
				}
			}})}
			o.Lookup = func(context.Context, string) ([]string, error) { return []string{"10.0.0.1"}, nil }
			o.LookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) { return "", c.found, nil }
			r := Run(t.Context(), o)
			if !slices.Equal(seen, c.want) || r.has("dns", Advice, "has no SRV record") != (c.found == nil) {
				t.Errorf("%v, %+v", seen, r.Findings)
			}
		})
	}
}

// TestAProxyWithoutAPortIsLookedForWhereItIsUsed: net/http takes the port of the proxy's scheme.
func TestAProxyWithoutAPortIsLookedForWhereItIsUsed(t *testing.T) {
	t.Parallel()
	for proxy, want := range map[string]string{
		"proxy.example.com:3128": "proxy.example.com:3128", "proxy.example.com": "proxy.example.com:80", "https://proxy.example.com": "proxy.example.com:443",
		"socks5://proxy.example.com": "proxy.example.com:1080", "http://[2001:db8::1]": "[2001:db8::1]:80",
	} {
		var to string
		o := Options{Environ: []string{"VAULT_ADDR=https://vault.example.com:8200", "HTTPS_PROXY=" + proxy}, Checks: []Check{{Name: "own", All: func(_ context.Context, e *Exam) {
			_, to = e.nodes[0].way()
		}}}}
		if Run(t.Context(), o); to != want {
			t.Errorf("%s is looked for at %s, want %s", proxy, to, want)
		}
	}
}

func TestAPlatformAddsChecksOfItsOwn(t *testing.T) {
	t.Parallel()
	o := Options{Environ: []string{"VAULT_ADDR=http://127.0.0.1:1"}, Checks: []Check{
		{Name: "first", One: func(context.Context, *Exam) Finding { return Fault("no identity endpoint", "no login", "assign one") }},
		{Name: "second", Needs: func(*Exam) string { return "the first" }, One: func(context.Context, *Exam) Finding { return Fine("never") }},
	}}
	r := Run(t.Context(), o)
	if !r.has("first", Problem, "no identity endpoint") || !r.has("second", Unchecked, "the first") || r.Healthy || !r.Usable {
		t.Errorf("%+v", r)
	}
}

func TestWhatThereIsNoTimeForIsNotChecked(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("over"))
	r := Run(ctx, Options{Environ: []string{"VAULT_ADDR=http://127.0.0.1:1"}})
	for _, f := range r.Findings[1:] {
		if f.Level != Unchecked && !strings.HasPrefix(f.What, "nothing to look at: ") {
			t.Errorf("%+v", f)
		}
	}
}

func TestNoFindingHoldsASecret(t *testing.T) {
	t.Parallel()
	key, token := strings.Repeat("B", 42)+"Q=", "hvs.CAESIOVt3CUigtPjXit96c9IhZDI8oBOFMkTb1xV"
	environ := []string{"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=s.opaque-token-value", "THAW_CACHE_KEY=" + key + "," + strings.Repeat("C", 42) + "Q=", "CACHE_ENABLE=true", "THAW_MEMCACHED=h",
		"THAW_LOCAL_TOKEN=local-token-value-1", "AWS_SECRET_ACCESS_KEY=aws-secret-value-1", `VAULT_HEADERS={"X-Gate":"header-value-1"}`, "HTTPS_PROXY=http://user:proxy-password@10.0.0.1:3128"}
	spill := strings.Join(append(slices.Clone(environ), key, token, "header-value-1", "hvb.AAAAAQKJlYmSsNAecyNb5SMTsieo0f8M end"), " ")
	o := Options{Environ: environ, Checks: []Check{{Name: "leaks", One: func(context.Context, *Exam) Finding { return Fault(spill, spill, spill) }}}}
	r := Run(t.Context(), o)
	f := r.Findings[len(r.Findings)-1]
	for _, secret := range []string{"s.opaque-token-value", key, strings.Repeat("C", 42), "local-token", "aws-secret", "header-value", "proxy-password", "hvs.CA", "hvb.AA"} {
		for _, text := range []string{f.What, f.Why, f.Fix} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, text)
			}
		}
	}
	if !strings.Contains(f.What, "end") || !strings.Contains(f.What, "127.0.0.1:1") {
		t.Errorf("too much is cut: %s", f.What)
	}
}

func TestNoFindingCommandsATerminal(t *testing.T) {
	t.Parallel()
	o := Options{Environ: []string{"VAULT_ADDR=http://127.0.0.1:1"}, Checks: []Check{{Name: "stranger", One: func(context.Context, *Exam) Finding {
		return Fault("a\x1b[2Jb\r\nc\u009bd\u2028e", "\a", "\x7f")
	}}}}
	r := Run(t.Context(), o)
	f := r.Findings[len(r.Findings)-1]
	if f.What != "a [2Jb  c d e" || f.Why != " " || f.Fix != " " {
		t.Errorf("%q", f)
	}
}

func TestABadConfigurationIsReportedWhole(t *testing.T) {
	t.Parallel()
	r := Run(t.Context(), Options{Environ: []string{"VAULT_ADDR=nonsense", "THAW_POL=off", "THAW_RECHECK=x"}})
	if r.Usable || r.Healthy || r.Problems != 3 {
		t.Errorf("%+v", r)
	}
	for _, f := range r.Findings {
		if f.Fix == "" || strings.HasPrefix(f.Fix, "allowed") {
			t.Errorf("no remedy: %+v", f)
		}
	}
}

func TestAClockIsComparedInTheMiddleOfAQuestion(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	e := &Exam{o: Options{}.withDefaults()}
	n := &node{addr: "a", sent: at}
	n.health = healthAt(at)
	e.nodes = []*node{n}
	clock(t.Context(), e)
	if f := e.report.Findings[0]; f.Level != OK {
		t.Errorf("%+v", f)
	}
}

func healthAt(t time.Time) *vault.Health { return &vault.Health{ServerTime: t} }

// TestTheDoctorsOwnPatienceIsNoSetting: it waits for less than VAULT_CLIENT_TIMEOUT does
// by default, and does not say that this is over.
func TestTheDoctorsOwnPatienceIsNoSetting(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	r := Run(t.Context(), Options{Environ: []string{"VAULT_ADDR=http://" + mute.Addr().String(), "THAW_LISTEN=127.0.0.1:0"}})
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Check == "health" && f.Level == Problem })
	if i < 0 || !strings.Contains(r.Findings[i].What, "no answer in 5s") || strings.Contains(r.Findings[i].What, "VAULT_CLIENT_TIMEOUT") {
		t.Errorf("got %+v", r.Findings)
	}
}

// TestWhatOneFaultLeavesUncheckedHasOneFix: the lines of a dozen checks would say the same.
func TestWhatOneFaultLeavesUncheckedHasOneFix(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := Options{Environ: []string{"VAULT_ADDR=http://127.0.0.1:1", "THAW_LISTEN=127.0.0.1:0"}}
	Main(t.Context(), Program{Name: "thaw doctor", Options: o, Stdout: &out, Stderr: &out})
	if n := strings.Count(out.String(), "not checked"); n < 5 {
		t.Errorf("%d lines say not checked", n)
	}
	if n := strings.Count(out.String(), "see to that first"); n != 1 {
		t.Errorf("the fix stands %d times:\n%s", n, &out)
	}
}
