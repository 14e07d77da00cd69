package doctor

import (
	"crypto/rand"
	"encoding/base64"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/tests/fakes/kms"
	"github.com/thaw-project/thaw/tests/harness"
)

// newKey is a key of the shared cache.
func newKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // crypto/rand does not fail
	return base64.StdEncoding.EncodeToString(key)
}

// shared adds a shared cache to an environment.
func (s *site) shared(memcached string, env ...string) []string {
	key := newKey()
	s.hide = append(s.hide, key)
	return append(env, "CACHE_ENABLE=true", "THAW_MEMCACHED="+memcached, "THAW_MEMCACHED_TIMEOUT=1s", "THAW_CACHE_KEY="+key)
}

// wrapped adds a shared cache whose key KMS has, for an audience.
func (s *site) wrapped(audience string) (server *kms.Server, env []string) {
	s.t.Helper()
	keys := harness.AWSCredentials{AccessKeyID: "AKIATHAWDOCTOR000001", SecretAccessKey: secret()}
	server = kms.New(kms.Options{Region: "eu-central-1", Keys: keys})
	front := httptest.NewServer(server)
	s.t.Cleanup(front.Close)
	raw, err := base64.StdEncoding.DecodeString(newKey())
	harness.Must(s.t, err)
	blob := server.Encrypt(raw, map[string]string{"audience": audience})
	return server, s.approle("CACHE_ENABLE=true", "THAW_MEMCACHED="+memcachedOf(s.t), "THAW_MEMCACHED_TIMEOUT=1s", "THAW_CACHE_KEY_KMS="+base64.StdEncoding.EncodeToString(blob),
		"AWS_REGION=eu-central-1", "AWS_ENDPOINT_URL_KMS="+front.URL, "AWS_ACCESS_KEY_ID="+keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+keys.SecretAccessKey)
}

func memcachedOf(t *testing.T) string {
	t.Helper()
	return harness.Memcache(t, harness.MemcachedConfig{}).Addr()
}

func sharedFaults() []fault {
	return []fault{
		{name: "no memcached", plant: func(s *site) ([]string, []string) {
			return s.shared(harness.FreeAddr(s.t), s.approle("THAW_AUDIENCE=team")...), nil
		}, check: "memcached", what: "refused", fix: "THAW_MEMCACHED", exit: 1},
		{name: "a memcached whose name does not exist", plant: func(s *site) ([]string, []string) {
			return s.shared("cache.thaw-doctor.invalid:11211", s.approle("THAW_AUDIENCE=team")...), nil
		}, check: "memcached", what: "cannot be looked up", fix: "THAW_MEMCACHED", exit: 1},
		{name: "tls to a memcached without", plant: func(s *site) ([]string, []string) {
			return s.shared("tls://"+memcachedOf(s.t), s.approle("THAW_AUDIENCE=team")...), nil
		}, check: "memcached", what: "TLS", fix: "remove tls://", exit: 1},
		{name: "no tls to a memcached with", plant: func(s *site) ([]string, []string) {
			ca, err := harness.NewCA()
			harness.Must(s.t, err)
			return s.shared(harness.Memcache(s.t, harness.MemcachedConfig{CA: ca}).Addr(), s.approle("THAW_AUDIENCE=team")...), nil
		}, check: "memcached", what: "does not answer", fix: "write tls:// before each node", exit: 1},
		{name: "a memcached certificate of an unknown CA", plant: func(s *site) ([]string, []string) {
			ca, err := harness.NewCA()
			harness.Must(s.t, err)
			return s.shared("tls://"+harness.Memcache(s.t, harness.MemcachedConfig{CA: ca}).Addr(), s.approle("THAW_AUDIENCE=team")...), nil
		}, check: "memcached", what: "does not trust", fix: "THAW_MEMCACHED_CACERT", exit: 1},
		{name: "a memcached certificate for another name", plant: func(s *site) ([]string, []string) {
			ca, err := harness.NewCA()
			harness.Must(s.t, err)
			m := harness.Memcache(s.t, harness.MemcachedConfig{CA: ca})
			return s.shared("tls://"+m.Addr(), s.approle("THAW_AUDIENCE=team", "THAW_MEMCACHED_CACERT="+m.CAFile(), "THAW_MEMCACHED_TLS_SERVER_NAME=cache.example.com")...), nil
		}, check: "memcached", what: "for another name", fix: "THAW_MEMCACHED_TLS_SERVER_NAME", exit: 1},
		{name: "a Vault where memcached should be", plant: func(s *site) ([]string, []string) {
			return s.shared(strings.TrimPrefix(s.vault.Addr(), "http://"), s.approle("THAW_AUDIENCE=team")...), nil
		}, check: "memcached", what: "not a memcached", fix: "correct THAW_MEMCACHED", exit: 1},
		{name: "a key for another audience", plant: func(s *site) ([]string, []string) {
			_, env := s.wrapped("team")
			return append(env, "THAW_AUDIENCE=other"), nil
		}, check: "key", what: "InvalidCiphertextException", fix: "audience=other", exit: 1},
		{name: "a KMS key that is disabled", plant: func(s *site) ([]string, []string) {
			server, env := s.wrapped("team")
			server.SetDisabled(true)
			return append(env, "THAW_AUDIENCE=team"), nil
		}, check: "key", what: "THAW_CACHE_KEY_KMS", fix: "disabled", exit: 1},
		{name: "no way to KMS", plant: func(s *site) ([]string, []string) {
			_, env := s.wrapped("team")
			return append(env[:len(env):len(env)], "THAW_AUDIENCE=team", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true", "HTTPS_PROXY=http://"+harness.FreeAddr(s.t), "NO_PROXY=127.0.0.1"), nil
		}, check: "key", what: "reach KMS", fix: "VPC's endpoint", exit: 1},
		{name: "a warm-up without an audience", plant: func(s *site) ([]string, []string) {
			return s.shared(memcachedOf(s.t), s.approle("PROACTIVE_CACHE_ENABLE=true", "NEW_PROACTIVE_CACHE_ENABLE=true", "THAW_WARM_PATHS=secret/"+s.name+"/")...), nil
		}, check: "audience", what: "an audience of its own", fix: "set THAW_AUDIENCE", exit: 1},
		{name: "a default audience outside Lambda", plant: func(s *site) ([]string, []string) {
			return s.shared(memcachedOf(s.t), s.approle()...), nil
		}, check: "audience", level: "advice", what: "not known here", fix: "set THAW_AUDIENCE", exit: 0},
	}
}
