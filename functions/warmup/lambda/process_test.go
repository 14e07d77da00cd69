package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/functions/warmup"
	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// binary builds the command.
func binary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the command")
	}
	path := filepath.Join(t.TempDir(), "warmup")
	if err := harness.Build(t.Context(), path, "./functions/warmup/lambda"); err != nil {
		t.Fatal(err)
	}
	return path
}

func environ(origin, memcached string, more ...string) []string {
	return append([]string{
		"VAULT_ADDR=" + origin, "VAULT_TOKEN=root", "CACHE_ENABLE=true", "PROACTIVE_CACHE_ENABLE=true", "NEW_PROACTIVE_CACHE_ENABLE=true",
		"THAW_MEMCACHED=" + memcached, "THAW_MEMCACHED_TIMEOUT=2s", "THAW_CACHE_KEY=" + testKey, "THAW_AUDIENCE=prod", "THAW_WARM_PATHS=secret/", "THAW_MAX_AGE=1m",
		"PROACTIVE_CACHE_MINIMUM_FETCHING_TIME=0",
	}, more...)
}

// outcome of one run of the command.
type outcome struct {
	warmup.Summary
	status int
	stderr string
}

func invoke(t *testing.T, bin string, env []string, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	err := cmd.Run()
	o := outcome{status: cmd.ProcessState.ExitCode(), stderr: stderr.String()}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	if len(lines) != 1 || json.Unmarshal([]byte(lines[0]), &o.Summary) != nil {
		t.Fatalf("%v: standard output is not one line of JSON: %q\n%s (%v)", args, stdout.String(), o.stderr, err)
	}
	if strings.Contains(stdout.String()+o.stderr, testKey) || strings.Contains(stdout.String()+o.stderr, "hunter2") {
		t.Errorf("%v shows a secret", args)
	}
	return o
}

func TestTheCommandPrintsOneLineAndItsStatusTells(t *testing.T) {
	t.Parallel()
	bin := binary(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	origin := standin.New(standin.Options{})
	server := httptest.NewServer(origin)
	defer server.Close()
	fill(t, server.URL, "root", 10, func(i int) (string, string) { return fmt.Sprintf("secret/data/app/%d", i), `{"data":{"v":"hunter2"}}` })
	env := environ(server.URL, m.Addr())
	if o := invoke(t, bin, env, "-once"); o.status != 0 || o.Fetched != 10 || !o.Complete {
		t.Errorf("%+v", o)
	}
	origin.ResetCounts()
	if o := invoke(t, bin, env, "-once"); o.status != 0 || o.Unchanged != 10 || origin.Requests() > 3 {
		t.Errorf("%d requests, %+v", origin.Requests(), o)
	}
	if o := invoke(t, bin, env, "-once", "-full"); o.status != 0 || o.Fetched != 10 || o.Unchanged != 10 {
		t.Errorf("%+v", o)
	}
	if o := invoke(t, bin, env, "-purge", "secret/app/3"); o.status != 0 {
		t.Errorf("%+v", o)
	}
	if o := invoke(t, bin, env, "-revoke", "shop"); o.status != 0 {
		t.Errorf("%+v", o)
	}
	began := time.Now()
	if o := invoke(t, bin, env, "-for", "3s"); o.status != 0 || !o.Complete || time.Since(began) < 3*time.Second {
		t.Errorf("%+v", o)
	}
	// A cache that does not answer is no success: nothing is warmed, removed or ended.
	away := environ(server.URL, harness.FreeAddr(t))
	if o := invoke(t, bin, away, "-once"); o.status != 1 || o.Complete || o.Leader || o.Resume == nil || !strings.Contains(o.Resume.Reason, "memcached does not answer") {
		t.Errorf("%+v", o)
	}
	for _, args := range [][]string{{"-purge", "secret/app/3"}, {"-revoke", "shop"}} {
		cmd := exec.CommandContext(t.Context(), bin, args...)
		cmd.Env = away
		if said, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(said), "try again when it can be reached") {
			t.Errorf("%v, status %d: %s", args, cmd.ProcessState.ExitCode(), said)
		}
	}
	for _, bad := range [][]string{{}, {"-full"}, {"-once", "-for", "1s"}, {"-nonsense"}, {"-once", "x"}, {"-purge", "a", "-revoke", "b"}, {"-revoke", "b", "-full"}} {
		cmd := exec.CommandContext(t.Context(), bin, bad...)
		cmd.Env = env
		if _ = cmd.Run(); cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%v: status %d", bad, cmd.ProcessState.ExitCode())
		}
	}
	cmd := exec.CommandContext(t.Context(), bin, "-once")
	cmd.Env = env[:2]
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "CACHE_ENABLE") || !strings.Contains(string(out), "THAW_WARM_PATHS") {
		t.Errorf("without settings: %d\n%s", cmd.ProcessState.ExitCode(), out)
	}
}

// TestOneOfTwoKilledOrFrozenTheOtherTakesOver: the lock of a leader that was
// killed is free when its time is over; one that was frozen writes nothing old.
func TestOneOfTwoKilledOrFrozenTheOtherTakesOver(t *testing.T) {
	t.Parallel()
	bin := binary(t)
	// Both locks run out in the same quarter of a minute.
	killed, frozen := takeOver(t, bin, false), takeOver(t, bin, true)
	killed()
	frozen()
}

// takeOver stops a leader in the midst of its pass. What is returned goes on
// when its lock has run out.
func takeOver(t *testing.T, bin string, frozen bool) (after func()) {
	t.Helper()
	m := harness.Memcache(t, harness.MemcachedConfig{})
	origin := standin.New(standin.Options{})
	server := httptest.NewServer(origin)
	t.Cleanup(server.Close)
	const n = 300
	path := func(i int) string { return fmt.Sprintf("secret/data/app/%03d", i) }
	write := func(value string) {
		fill(t, server.URL, "root", n, func(i int) (string, string) { return path(i), `{"data":{"v":"` + value + `"}}` })
	}
	write("old")
	env := environ(server.URL, m.Addr())
	invoke(t, bin, env, "-once")
	a := newApp(t, settings(server.URL, "root", m.Addr(), "secret/"))
	all := func(want string) (got int) {
		for i := range n {
			k := cache.Key{Path: path(i)}
			if strings.Contains(string(a.Audiences[0].Entries(t.Context(), []cache.Key{k})[k].Body), want) {
				got++
			}
		}
		return got
	}
	// Its reads hang in the middle of a pass.
	reading, let := make(chan struct{}, n), make(chan struct{})
	origin.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/secret/data/") {
			if reading <- struct{}{}; len(reading) > 100 {
				select {
				case <-let:
				case <-r.Context().Done():
				}
			}
		}
		return false
	})
	first, err := harness.Start(harness.Command{Path: bin, Args: []string{"-once", "-full"}, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Kill)
	for range 101 {
		<-reading
	}
	if frozen {
		if err := first.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
	} else {
		first.Kill()
	}
	origin.SetFault(nil)
	write("new")
	if o := invoke(t, bin, env, "-once", "-full"); o.Leader {
		t.Error("two led at once")
	}
	return func() {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		var o outcome
		for o = invoke(t, bin, env, "-once", "-full"); !o.Leader && ctx.Err() == nil; o = invoke(t, bin, env, "-once", "-full") {
			wait(ctx, 500*time.Millisecond)
		}
		if !o.Complete || all("new") != n {
			t.Errorf("%d of %d are new, %+v", all("new"), n, o)
		}
		close(let)
		if !frozen {
			return
		}
		if err := first.Thaw(); err != nil {
			t.Fatal(err)
		}
		<-first.Done()
		if got := all("new"); got != n {
			t.Errorf("the thawed one put old values back: %d of %d are new", got, n)
		}
		if o := invoke(t, bin, env, "-once"); !o.Complete {
			t.Errorf("afterwards: %+v", o)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// TestTheCommandIsALambdaFunction speaks the Runtime API to it
// (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
func TestTheCommandIsALambdaFunction(t *testing.T) {
	t.Parallel()
	bin := binary(t)
	m := harness.Memcache(t, harness.MemcachedConfig{})
	server := httptest.NewServer(standin.New(standin.Options{}))
	defer server.Close()
	fill(t, server.URL, "root", 10, func(i int) (string, string) { return fmt.Sprintf("secret/data/app/%d", i), `{"data":{"v":"x"}}` })
	events := make(chan string, 3)
	events <- `{"version":"0","detail-type":"Scheduled Event","detail":{}}`
	events <- `{"full":true}`
	events <- `{"for":"2s"}`
	answers := make(chan string, 3)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case e := <-events:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:warm")
			io.WriteString(w, e)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{what}", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		answers <- r.PathValue("what") + " " + string(b)
	})
	api := httptest.NewServer(mux)
	defer api.Close()
	env := environ(server.URL, m.Addr(), "AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(api.URL, "http://"), "AWS_LAMBDA_FUNCTION_NAME=warm", "THAW_EMF=true", "AWS_REGION=us-east-1", "THAW_WARM_FOR=1s")
	p, err := harness.Start(harness.Command{Path: bin, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	for i, want := range []string{"full", "full", "modified"} {
		select {
		case a := <-answers:
			what, text, _ := strings.Cut(a, " ")
			var s warmup.Summary
			if err := json.Unmarshal([]byte(text), &s); err != nil || what != "response" || s.Pass != want || !s.Complete || s.Fetched+s.Unchanged < 10 {
				t.Errorf("invocation %d: %s", i, a)
			}
			if least := [...]float64{1, 1, 2}[i]; s.Seconds < least {
				t.Errorf("invocation %d went on for %v s, not for %v", i, s.Seconds, least)
			}
		case <-p.Done():
			t.Fatalf("it ended:\n%s", p.Output())
		}
	}
	if out := p.Output(); !strings.Contains(out, "CloudWatchMetrics") || !strings.Contains(out, "thaw_warm_leader") {
		t.Errorf("no metrics:\n%s", out)
	}
}
