package main

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/functions/warmup"
	"github.com/thaw-project/thaw/functions/warmup/job"
	fake "github.com/thaw-project/thaw/tests/fakes/kms"
	"github.com/thaw-project/thaw/tests/harness"
	"github.com/thaw-project/thaw/tests/standin"
)

// TestWithoutKMSTheOriginIsNotAsked: a warm-up that has no key stops at once,
// with what to do; with one it warms.
func TestWithoutKMSTheOriginIsNotAsked(t *testing.T) {
	t.Parallel()
	m := harness.Memcache(t, harness.MemcachedConfig{})
	origin := standin.New(standin.Options{})
	server := httptest.NewServer(origin)
	defer server.Close()
	fill(t, server.URL, "root", 5, func(i int) (string, string) { return fmt.Sprintf("secret/data/app/%d", i), `{"data":{"v":"x"}}` })
	origin.ResetCounts()
	keys := harness.AWSCredentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "PlantedSecret"}
	kms := fake.New(fake.Options{Keys: keys})
	at := httptest.NewServer(kms)
	defer at.Close()
	cfg := settings(server.URL, "root", m.Addr(), "secret/")
	cfg.CacheKey = ""
	cfg.Platform = config.Platform{Region: "us-east-1", AWS: config.AWS{
		AccessKeyID: keys.AccessKeyID, SecretAccessKey: config.Secret(keys.SecretAccessKey), EndpointKMS: at.URL,
	}}
	plain := []byte("PlantedSecret-0123456789abcdefgh")
	for want, ciphertext := range map[string][]byte{
		"encryption context audience=prod": kms.Encrypt(plain, map[string]string{"audience": "other"}),
		"needs 32":                         kms.Encrypt(plain[:31], map[string]string{"audience": "prod"}),
	} {
		cfg.CacheKeyKMS = [][]byte{ciphertext}
		_, err := job.Build(cfg, job.Options{Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "THAW_CACHE_KEY_KMS") || strings.Contains(err.Error(), "PlantedSecret") {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if n := origin.Requests(); n > 0 {
		t.Errorf("%d requests of the origin without a key", n)
	}
	cfg.CacheKeyKMS = [][]byte{kms.Encrypt(plain, map[string]string{"audience": "prod"})}
	if s := run1(t, newApp(t, cfg), warmup.Order{}); !s.Complete || s.Fetched != 5 {
		t.Error("the warm-up with a key")
	}
	if f := kms.Faults(); len(f) > 0 {
		t.Error(f)
	}
}
