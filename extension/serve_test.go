package main

import (
	"context"
	"encoding/json"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
	"github.com/thaw-project/thaw/tests/harness"
)

// TestEachInitializationTypePrefetchesAndReports by the invocation, or, where none comes, by the minute.
func TestEachInitializationTypePrefetchesAndReports(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		initType string
		invoked  bool   // INVOKEs come
		line     string // of the log
	}{
		{lambdaapi.OnDemand, true, "invocation"},
		{lambdaapi.Provisioned, true, "invocation"},
		{lambdaapi.SnapStart, true, "invocation"},
		{lambdaapi.Managed, false, "activity"},
	} {
		t.Run(c.initType, func(t *testing.T) {
			t.Parallel()
			api, err := lambdaapi.NewAPI(lambdaapi.Function{InitType: c.initType})
			harness.Must(t, err)
			t.Cleanup(api.Close)
			x := api.Launch("thaw")
			asked := make(chan string, 100)
			environ := []string{
				"AWS_LAMBDA_RUNTIME_API=" + api.Addr(), "AWS_LAMBDA_INITIALIZATION_TYPE=" + c.initType, "AWS_LAMBDA_FUNCTION_NAME=fn",
				"VAULT_ADDR=" + startVault(t, asked), "VAULT_TOKEN=planted-token", "THAW_LISTEN=127.0.0.1:0",
				"THAW_MAX_PROCS=" + strconv.Itoa(runtime.GOMAXPROCS(0)),                   // it is the whole test's
				"THAW_PREFETCH=secret/data/app", "THAW_EMF=true", "VAULT_LOG_LEVEL=DEBUG", // a usual invocation is told of there
			}
			var stdout, stderr harness.Transcript
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			ended := make(chan int, 1)
			go func() { ended <- run(ctx, []string{"/opt/extensions/thaw"}, environ, &stdout, &stderr) }()
			harness.Must(t, x.AwaitReady(ctx))
			if c.invoked {
				harness.Must(t, x.Invoke(ctx, lambdaapi.Invocation{RequestID: "one", Deadline: time.Now().Add(time.Minute)}))
			}
			for path := ""; path != "/v1/secret/data/app"; {
				select {
				case path = <-asked:
				case status := <-ended:
					t.Fatalf("ended with %d, without the prefetch:\n%s", status, stderr.String())
				}
			}
			harness.Must(t, x.Shutdown(ctx, "spindown", time.Now().Add(2*time.Second)))
			if status := <-ended; status != exitOK {
				t.Errorf("status %d", status)
			}
			api.Check(t)
			told := 0
			for line := range strings.Lines(stderr.String()) {
				var l struct {
					Msg      string
					Request  string `json:"request_id"`
					Requests int    `json:"origin_requests"`
				}
				if err := json.Unmarshal([]byte(line), &l); err != nil || l.Msg != "invocation" && l.Msg != "activity" {
					continue
				}
				if told++; l.Msg != c.line || l.Requests == 0 || (l.Request == "one") != c.invoked {
					t.Errorf("%s", line)
				}
			}
			if told != 1 || strings.Count(stdout.String(), "CloudWatchMetrics") != 1 {
				t.Errorf("%d lines, want one of each:\n%s\n%s", told, stderr.String(), stdout.String())
			}
		})
	}
}

func TestTheProxyWritesMetricLines(t *testing.T) {
	t.Parallel()
	vault := startVault(t)
	for _, emf := range []bool{true, false} {
		addr, stop := serving(t, []string{"VAULT_ADDR=" + vault, "VAULT_TOKEN=planted-token", "THAW_EMF=" + strconv.FormatBool(emf)})
		fetch(t, "http://"+addr+"/v1/secret/data/app")
		got := stop()
		var line struct {
			Function string
			Misses   float64 `json:"thaw_misses_total"`
		}
		switch {
		case !emf && (got.stdout != "" || strings.Contains(got.stderr, "activity")):
			t.Errorf("without THAW_EMF: %+v", got)
		case emf && (json.Unmarshal([]byte(got.stdout), &line) != nil || line.Function == "" || line.Misses != 1):
			t.Errorf("not one line with the miss: %+v", got)
		}
	}
}

// TestAWrapperUnderAnotherNameIsToldOfIt: Lambda knows an extension by the name of
// its file, which a script that starts thaw must hand on.
func TestAWrapperUnderAnotherNameIsToldOfIt(t *testing.T) {
	t.Parallel()
	api, err := lambdaapi.NewAPI(lambdaapi.Function{InitType: lambdaapi.OnDemand})
	harness.Must(t, err)
	t.Cleanup(api.Close)
	api.Launch("wrapper") // the script in /opt/extensions
	var stdout, stderr harness.Transcript
	status := run(t.Context(), []string{"/opt/thaw"}, []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Addr(), "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=planted-token", "THAW_LISTEN=127.0.0.1:0",
	}, &stdout, &stderr)
	if got := stderr.String(); status != exitFailed || !strings.Contains(got, `exec -a \"$0\" /opt/thaw`) || !strings.Contains(got, `"name":"thaw"`) {
		t.Errorf("status %d: %s", status, got)
	}
}

// TestEachProblemOfAConfigurationIsALineOfItsOwn: CloudWatch cuts none of them off,
// and a query finds each.
func TestEachProblemOfAConfigurationIsALineOfItsOwn(t *testing.T) {
	t.Parallel()
	api, err := lambdaapi.NewAPI(lambdaapi.Function{InitType: lambdaapi.OnDemand})
	harness.Must(t, err)
	t.Cleanup(api.Close)
	api.Launch("thaw")
	var stdout, stderr harness.Transcript
	status := run(t.Context(), []string{"/opt/extensions/thaw"}, []string{
		"AWS_LAMBDA_RUNTIME_API=" + api.Addr(), "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=planted-token", "THAW_RECHECK=soon", "THAW_POLL=onn", "THAW_MAXAGE=1s",
	}, &stdout, &stderr)
	told := map[string]int{}
	for line := range strings.Lines(stderr.String()) {
		var l struct{ Level, Error string }
		harness.Must(t, json.Unmarshal([]byte(line), &l))
		for _, name := range []string{"THAW_RECHECK", "THAW_POLL", "THAW_MAXAGE"} {
			if l.Level == "ERROR" && strings.HasPrefix(l.Error, name) {
				told[name]++
			}
		}
	}
	if status != exitFailed || len(told) != 3 || strings.Contains(stderr.String(), `\n  - `) {
		t.Errorf("status %d, told %v: %s", status, told, stderr.String())
	}
}
