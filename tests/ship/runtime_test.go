package ship

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// startsAsFunction runs a folder's bootstrap as Lambda does, and waits until it
// asks for its first invocation
// (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
func startsAsFunction(t *testing.T, dir, path string) {
	t.Helper()
	asked := make(chan struct{}, 1)
	over := make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/2018-06-01/runtime/invocation/next" {
			http.Error(w, "not an invocation", http.StatusForbidden)
			return
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		<-over // there is no invocation
	}))
	defer api.Close()
	defer close(over)
	p, err := harness.Start(harness.Command{
		Path: filepath.Join(dir, "bootstrap"), Dir: dir,
		Env: []string{
			"PATH=" + path, "LAMBDA_TASK_ROOT=" + dir, "AWS_LAMBDA_RUNTIME_API=" + api.Listener.Addr().String(),
			"AWS_LAMBDA_FUNCTION_NAME=fn", "AWS_REGION=eu-central-1", "_HANDLER=bootstrap", "SECRET_PATH=secret/data/app",
			"VLE_VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=t", "THAW_AUTH_METHOD=token", "CACHE_ENABLE=true", "THAW_MEMCACHED=127.0.0.1:1",
			"THAW_CACHE_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "THAW_AUDIENCE=a", "PROACTIVE_CACHE_ENABLE=true", "NEW_PROACTIVE_CACHE_ENABLE=true",
			"THAW_WARM_PATHS=secret/",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	select {
	case <-asked:
	case <-p.Done():
		t.Errorf("bootstrap ended: %v\n%s", p.Err(), p.Output())
	case <-time.After(time.Minute):
		t.Errorf("bootstrap asks for no invocation\n%s", p.Output())
	}
}
