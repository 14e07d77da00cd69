package lambda

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/harness"
)

// TestTheLayersBinaryNamesTheOneThatWarms: the layer's binary is thaw proxy,
// too, but has no warm-up, and must not look as if it warmed.
func TestTheLayersBinaryNamesTheOneThatWarms(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = harness.Run(t.Context(), harness.Command{Path: filepath.Join(opt(t, "thaw"), "extensions", "thaw"), Args: []string{"proxy"}, Env: []string{
		"VAULT_ADDR=http://" + ln.Addr().String(), "VAULT_TOKEN=x", "THAW_LISTEN=127.0.0.1:0", "CACHE_ENABLE=true", "THAW_MEMCACHED=" + ln.Addr().String(),
		"THAW_CACHE_KEY=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "THAW_AUDIENCE=x", "PROACTIVE_CACHE_ENABLE=true", "THAW_WARM_PATHS=secret/",
	}})
	if err == nil || !strings.Contains(err.Error(), "built without the warm-up; run thaw of `make build`") {
		t.Errorf("it ended with %v", err)
	}
}
