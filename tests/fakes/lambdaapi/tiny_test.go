package lambdaapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/fakes/lambdaapi"
)

// TestMain is also the extension under test: started under the name of a
// behaviour (a symbolic link), the test binary plays it.
func TestMain(m *testing.M) {
	if behave, ok := behaviours()[filepath.Base(os.Args[0])]; ok {
		os.Exit(behave(&tiny{api: os.Getenv("AWS_LAMBDA_RUNTIME_API"), name: filepath.Base(os.Args[0])}))
	}
	os.Exit(m.Run())
}

// tiny is an extension of a few lines, apart from the client of this project.
type tiny struct{ api, name, id string }

func (x *tiny) call(method, path, body string, head ...string) (int, map[string]any) {
	req, _ := http.NewRequest(method, "http://"+x.api+"/2020-01-01/extension/"+path, strings.NewReader(body))
	req.Header.Set("Lambda-Extension-Identifier", x.id)
	for i := 0; i < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	if id := resp.Header.Get("Lambda-Extension-Identifier"); id != "" {
		x.id = id
	}
	var doc map[string]any
	_ = json.NewDecoder(resp.Body).Decode(&doc)
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, doc
}

func (x *tiny) register(events string) int {
	status, _ := x.call("POST", "register", `{"events":[`+events+`]}`, "Lambda-Extension-Name", x.name)
	return status
}

// loop asks for events until on says to exit.
func (x *tiny) loop(on func(event map[string]any) (code int, exit bool)) int {
	for {
		status, event := x.call("GET", "event/next", "")
		if status != http.StatusOK {
			return 9
		}
		if code, exit := on(event); exit {
			return code
		}
	}
}

func untilShutdown(event map[string]any) (int, bool) { return 0, event["eventType"] == "SHUTDOWN" }

func hang() int {
	<-time.After(time.Hour)
	return 8
}

func behaviours() map[string]func(*tiny) int {
	return map[string]func(*tiny) int{
		"tiny-good": func(x *tiny) int {
			fmt.Println("started with", len(os.Environ()), "variables")
			x.register(both)
			return x.loop(untilShutdown)
		},
		"tiny-shutdown-only": func(x *tiny) int {
			x.register(`"SHUTDOWN"`)
			return x.loop(untilShutdown)
		},
		"tiny-no-events": func(x *tiny) int {
			x.register(``)
			return x.loop(untilShutdown)
		},
		"tiny-mute":     func(*tiny) int { return hang() },
		"tiny-vanishes": func(*tiny) int { return 3 },
		"tiny-init-error": func(x *tiny) int {
			x.register(both)
			x.call("POST", "init/error", `{"errorMessage":"no key","errorType":"Extension.ConfigInvalid","stackTrace":[]}`,
				"Lambda-Extension-Function-Error-Type", "Extension.ConfigInvalid")
			return 1
		},
		"tiny-crash": func(x *tiny) int {
			x.register(both)
			return x.loop(func(map[string]any) (int, bool) { return 4, true })
		},
		"tiny-slow": func(x *tiny) int {
			x.register(both)
			return x.loop(func(map[string]any) (int, bool) { return hang(), true })
		},
		"tiny-stubborn": func(x *tiny) int {
			x.register(both)
			return x.loop(func(event map[string]any) (int, bool) {
				if event["eventType"] == "SHUTDOWN" {
					hang()
				}
				return 0, false
			})
		},
		// Not an extension: a driver that dies without closing its environment.
		"driver": func(*tiny) int {
			_, err := lambdaapi.Start(context.Background(), lambdaapi.Config{
				Binary: filepath.Join(filepath.Dir(os.Args[0]), "tiny-good"),
				Stdout: os.Stdout,
			})
			fmt.Println("started:", err)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			return hang()
		},
		"tiny-twice": func(x *tiny) int {
			x.register(both)
			x.register(both)
			return x.loop(untilShutdown)
		},
	}
}
