package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/thaw-project/thaw/functions/demo"
	"github.com/thaw-project/thaw/tests/harness"
)

// played runs the program with a short freeze and few invocations and cold starts.
func played(t *testing.T, env map[string]string, args ...string) (int, string) {
	t.Helper()
	var out syncBuffer
	args = append([]string{"-freeze", "100ms", "-storm", "60", "-cold", "5"}, args...)
	code := run(t.Context(), args, func(k string) string { return env[k] }, &out, &out)
	return code, out.String()
}

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// mustShow looks for lines of the table, by regular expression.
func mustShow(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !regexp.MustCompile(`(?m)` + l).MatchString(out) {
			t.Errorf("no line like %q", l)
		}
	}
	if t.Failed() {
		t.Logf("it printed:\n%s", out)
	}
}

func TestTheDemoKeepsEveryPromiseOnTheStandIn(t *testing.T) {
	t.Parallel()
	code, out := played(t, nil)
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	mustShow(t, out,
		`Vault +a stand-in for Vault`,
		`, beside which it logs in to Vault`,
		`^ +1 +cold start +app v1 +MISS`,
		`^ +2 +nothing +app v1 +HIT +cursor`,
		`^ +3 +frozen for 100ms +app v1 +HIT`,
		`^ +4 +app is rotated +app v2`,
		`^ +6 +frozen, app is rotated meanwhile +app v3`,
		`^ +10 +Vault is killed +app v3 +STALE`,
		`^ +other +50\d`,
		`^ +13 +Vault is back, app rotated +app v4 +(HIT|MISS)`,
		`0 old values`,
		`reads answered while Vault was dead +0 of 6 \(1\) +5 of 6`,
		`^nothing shared +5 +5 +15 +`,
		`^shared, THAW_MAX_AGE=0 +5 +2 +[4-6] +`,
		`^shared, THAW_MAX_AGE=60s +5 +2 +[4-6] +`,
		`^the 3 others, together +3 cursor +nothing$`,
		`^45 reads by the function: 0 old values`,
	)
	if strings.Contains(out, "\x1b") {
		t.Error("colours although this is no terminal")
	}
}

func TestTheDemoRunsOnARealVault(t *testing.T) {
	t.Parallel()
	v := harness.Raft(t)
	code, out := played(t, map[string]string{"VAULT_ADDR": v.Addr(), "VAULT_TOKEN": v.RootToken()})
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	mustShow(t, out, `Vault +`+regexp.QuoteMeta(v.Addr()), `^ +2 +nothing +app v1 +HIT +cursor`, `0 old values`,
		`^nothing shared +5 +0 +15 +`, `^shared, THAW_MAX_AGE=60s +5 +0 +[4-6] +`, `^the 3 others, together +3 cursor(, [1-3] other)? +nothing$`) // other: a token that is given looks itself up, unless the instance ends before
	r, err := v.Do(t.Context(), harness.Call{Method: "LIST", Path: "secret/metadata", Token: v.RootToken()})
	if err != nil || r.Status != http.StatusNotFound {
		t.Errorf("secrets were left behind: %+v, %v", r, err)
	}
	if strings.Contains(out, v.RootToken()) {
		t.Error("the token is in the output")
	}
}

func TestTheDemoSaysWhatItCannotUse(t *testing.T) {
	t.Parallel()
	v := harness.Raft(t)
	notExecutable := filepath.Join(t.TempDir(), "thaw")
	if err := os.WriteFile(notExecutable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		env  map[string]string
		args []string
		want string
	}{
		"an address that is none": {map[string]string{"VAULT_ADDR": "vault:8200", "VAULT_TOKEN": "x"}, nil, "VAULT_ADDR must be a URL"},
		"a mount of version 1":    {map[string]string{"VAULT_ADDR": v.Addr(), "VAULT_TOKEN": v.RootToken()}, []string{"-mount", "kv"}, "is not KV version 2"},
		"a mount that is not":     {map[string]string{"VAULT_ADDR": v.Addr(), "VAULT_TOKEN": v.RootToken()}, []string{"-mount", "none"}, "refuses the mount none"},
		"a binary that is none":   {nil, []string{"-binary", notExecutable}, "start the extension"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out := played(t, tt.env, tt.args...)
			if code != 2 || !strings.Contains(out, tt.want) {
				t.Errorf("exit code %d:\n%s", code, out)
			}
		})
	}
}

// TestTheDemoFailsWhenThawServesAnOldValue turns the check at each invocation
// off, as a user may: then a rotation is not seen, and the demo must say so.
func TestTheDemoFailsWhenThawServesAnOldValue(t *testing.T) {
	t.Parallel()
	code, out := played(t, nil, "-env", "THAW_POLL=off", "-env", "VAULT_DEFAULT_CACHE_TTL=1h")
	if code != 1 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	mustShow(t, out, `NOT AS PROMISED: an old value: version 1, Vault has 2`)
}

// TestAnUnmetExpectationIsSeen: the demo is worth nothing if it cannot fail.
func TestAnUnmetExpectationIsSeen(t *testing.T) {
	t.Parallel()
	good := demo.Summary{Path: "p/app", Status: 200, Version: 2, XCache: "HIT"}
	with := func(change func(*demo.Summary)) demo.Summary {
		s := good
		change(&s)
		return s
	}
	for name, tt := range map[string]struct {
		got  demo.Summary
		seen string // the value the function was given
		want outcome
		bad  string // part of the complaint; empty: none
	}{
		"a hit":               {good, "new", hit, ""},
		"an old value":        {good, "old", hit, "an old value"},
		"an old value, fresh": {good, "old", fresh, "an old value"},
		"a miss":              {with(func(s *demo.Summary) { s.XCache = "MISS" }), "new", miss, ""},
		"no hit":              {with(func(s *demo.Summary) { s.XCache = "MISS" }), "new", hit, "X-Cache is MISS"},
		"no miss":             {good, "new", miss, "X-Cache is HIT"},
		"stale":               {with(func(s *demo.Summary) { s.Stale = true }), "new", stale, ""},
		"not marked":          {good, "new", stale, "marked stale: false"},
		"marked":              {with(func(s *demo.Summary) { s.Stale = true }), "new", fresh, "marked stale: true"},
		"an error":            {with(func(s *demo.Summary) { s.Error = "502: thaw: no origin" }), "", fails, ""},
		"a foreign error":     {with(func(s *demo.Summary) { s.Error = "connection reset" }), "", fails, "not thaw's"},
		"an error for a hit":  {with(func(s *demo.Summary) { s.Error = "502: thaw: no origin" }), "", hit, "failed"},
		"no error":            {good, "new", fails, "never had it"},
	} {
		s := &stage{env: &environment{seen: map[string]string{"p/app": tt.seen}}, value: map[string]string{"app": "new"}}
		bad := s.judge("app", tt.got, tt.want)
		if (bad == "") != (tt.bad == "") || !strings.Contains(bad, tt.bad) {
			t.Errorf("%s: judge = %q, want %q", name, bad, tt.bad)
		}
	}
}

func TestHowAnAnswerWasCheckedIsWhatTheOriginSaw(t *testing.T) {
	t.Parallel()
	hit := demo.Summary{Path: "s/data/app", XCache: "HIT"}
	for name, tt := range map[string]struct {
		got   demo.Summary
		asked map[string]int
		want  string
	}{
		"cursor":      {hit, map[string]int{"GET /v1/sys/leader": 1}, "cursor"},
		"re-read":     {hit, map[string]int{"GET /v1/sys/leader": 1, "GET /v1/s/data/app": 1}, "re-read"},
		"another's":   {hit, map[string]int{"GET /v1/s/data/db": 1}, "none"},
		"nothing":     {hit, nil, "none"},
		"a miss":      {demo.Summary{Path: "s/data/app", XCache: "MISS"}, map[string]int{"GET /v1/s/data/app": 1}, "read now"},
		"a stale one": {demo.Summary{Path: "s/data/app", XCache: "HIT", Stale: true}, nil, "could not be"},
		"no answer":   {demo.Summary{Path: "s/data/app", Error: "502"}, nil, "could not be"},
	} {
		if got := checked(tt.got, tt.asked); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestKindsAddUp(t *testing.T) {
	t.Parallel()
	got := kinds(map[string]int{
		"GET /v1/sys/leader": 5, "GET /v1/secret/data/x/app": 2, "GET /v1/secret/data/x/db": 1, "POST /v1/auth/approle/login": 1,
		"GET /v1/sys/health": 1, "GET /v1/sys/internal/ui/mounts/secret/data/x": 1, "POST /v1/sys/capabilities-self": 1, "GET /v1/x": 4,
	})
	sum := 0
	for _, k := range got {
		sum += k.n
	}
	if sum != 16 || got[0].n != 5 || got[1].n != 3 || len(got) != 7 {
		t.Errorf("kinds = %v", got)
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(tt.in); got != tt.want {
			t.Errorf("median(%v) = %v", tt.in, got)
		}
	}
}
