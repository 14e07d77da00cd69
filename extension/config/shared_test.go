package config

import (
	"strings"
	"testing"
	"time"
)

// loadAll is Load with an address of Vault.
func loadAll(environ ...string) (Config, []Warning, error) {
	return Load(Source{Environ: append([]string{someAddr}, environ...)})
}

const (
	testKey  = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	otherKey = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
	enabled  = "CACHE_ENABLE=true"
	aNode    = "THAW_MEMCACHED=m:11211"
	aKey     = "THAW_CACHE_KEY=" + testKey
	warming  = "PROACTIVE_CACHE_ENABLE=true"
	modern   = "NEW_PROACTIVE_CACHE_ENABLE=true"
	aLogin   = "VAULT_TOKEN=t"
)

func TestContradictionsOfTheSharedTierAreNamed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		environ []string
		name    string
		word    string
	}{
		{[]string{aNode, aKey}, "THAW_MEMCACHED", "CACHE_ENABLE=true"},
		{[]string{warming}, "PROACTIVE_CACHE_ENABLE", "CACHE_ENABLE=true"},
		{[]string{enabled, warming, aKey}, "PROACTIVE_CACHE_ENABLE", "THAW_MEMCACHED"},
		{[]string{enabled, aNode, aLogin}, "THAW_MEMCACHED", "THAW_CACHE_KEY"},
		{[]string{enabled, aNode, aKey, "THAW_CACHE_KEY_KMS=AQID", aLogin}, "THAW_CACHE_KEY_KMS", "keep one"},
		{[]string{enabled, aNode, aKey, "THAW_MEMCACHED_CACERT=/ca", aLogin}, "THAW_MEMCACHED_CACERT", "tls://"},
		{[]string{enabled, aNode, aKey, "THAW_MEMCACHED_TLS_SERVER_NAME=m", aLogin}, "THAW_MEMCACHED_TLS_SERVER_NAME", "tls://"},
		{[]string{enabled, "THAW_MEMCACHED=tls://m", aKey, "THAW_MEMCACHED_CLIENT_CERT=/c", aLogin}, "THAW_MEMCACHED_CLIENT_CERT", "THAW_MEMCACHED_CLIENT_KEY"},
		{[]string{enabled, "THAW_MEMCACHED=tls://m", aKey, "THAW_MEMCACHED_CLIENT_KEY=/c", aLogin}, "THAW_MEMCACHED_CLIENT_KEY", "THAW_MEMCACHED_CLIENT_CERT"},
		{[]string{enabled, aNode, aKey, warming, "THAW_AUDIENCE=a", "THAW_WARM_PATHS=secret/", `THAW_WARM_AUDIENCES=[{"audience":"b","paths":"kv/"}]`, aLogin}, "THAW_WARM_PATHS", "THAW_WARM_AUDIENCES"},
		{[]string{enabled, aNode, aKey, warming, "PROACTIVE_CACHE_DUMP_INTERVAL=5", aLogin}, "PROACTIVE_CACHE_DUMP_INTERVAL", "THAW_DUMP"},
		{[]string{enabled, aNode, aKey, "CACHE_TTL=soon", aLogin}, "CACHE_TTL", "whole number of minutes"},
	} {
		_, _, err := loadAll(tt.environ...)
		if err == nil || !strings.Contains(err.Error(), "configuration: "+tt.name) || !strings.Contains(err.Error(), tt.word) || strings.Contains(err.Error(), testKey) {
			t.Errorf("%q: %v, want one problem of %s that says %q", tt.environ, err, tt.name, tt.word)
		}
	}
}

func TestDoubtfulSharedSettingsAreWarnings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		environ []string
		words   string // of the one warning; empty: none
	}{
		{[]string{enabled, aNode, aKey, aLogin}, ""},
		{[]string{enabled, aLogin}, "THAW_MEMCACHED"},
		{[]string{enabled, aNode, aKey}, "a login of its own"},
		{[]string{enabled, aNode, aKey, aLogin, "THAW_MAX_AGE=1s"}, "THAW_CLOCK_SKEW"},
		{[]string{enabled, aNode, aKey, aLogin, "THAW_MAX_AGE=2s"}, ""},
		{[]string{enabled, aNode, aKey, aLogin, "THAW_MAX_AGE=1s", "THAW_CLOCK_SKEW=0"}, ""},
		{[]string{enabled, aNode, aKey, aLogin, warming, modern, "THAW_WARM_PATHS=secret/"}, "without THAW_AUDIENCE"},
		{[]string{enabled, aNode, aKey, aLogin, warming, modern, "THAW_WARM_PATHS=secret/", "THAW_AUDIENCE=a"}, ""},
		{[]string{enabled, aNode, aKey, aLogin, warming, "PROACTIVE_CACHE_WORKERS=9"}, "PROACTIVE_CACHE_WORKERS has no effect"},
		{[]string{enabled, aNode, aKey, aLogin, warming, "THAW_DUMP=/x"}, "PROACTIVE_CACHE_DUMP_INTERVAL"},
		{[]string{enabled, aNode, aKey, aLogin, warming, modern, "THAW_DUMP=/x", "PROACTIVE_CACHE_DUMP_INTERVAL=5"}, "no effect with NEW_PROACTIVE_CACHE_ENABLE"},
		{[]string{enabled, aNode, aLogin, warming, modern, `THAW_WARM_AUDIENCES=[{"audience":"b","paths":"kv/","key":"` + otherKey + `"}]`}, ""},
		{[]string{"CACHE_TTL=soon"}, ""}, // another program's
		{[]string{"CACHE_TTL=90", "CACHE_ENABLE=false"}, "CACHE_TTL has no effect without CACHE_ENABLE=true"},
		{[]string{enabled, aNode, aKey, aLogin, modern, "PROACTIVE_CACHE_WORKERS=9"}, "NEW_PROACTIVE_CACHE_ENABLE, PROACTIVE_CACHE_WORKERS have no effect without PROACTIVE_CACHE_ENABLE=true"},
		{[]string{enabled, aNode, aKey, aLogin, warming, modern, "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1"}, "NEW_PROACTIVE_CACHE_ENABLE, PROACTIVE_CACHE_ENABLE have no effect in the extension: the warm-up is a function of its own"},
		{[]string{enabled, aNode, aKey, aLogin, warming, modern, "THAW_WARM_PATHS=*", "THAW_AUDIENCE=a"}, ""},
	} {
		_, warnings, err := loadAll(tt.environ...)
		if err != nil {
			t.Errorf("%q: %v", tt.environ, err)
		}
		if tt.words == "" && len(warnings) > 0 || tt.words != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].Message, tt.words)) {
			t.Errorf("%q: warnings %v, want %q", tt.environ, warnings, tt.words)
		}
	}
}

func TestTheAudienceIsMountRoleAndFunctionUnlessItIsNamed(t *testing.T) {
	t.Parallel()
	shared := []string{enabled, aNode, aKey, "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "VAULT_AUTH_ROLE=r"}
	c, _, err := loadAll(append(shared, "AWS_LAMBDA_FUNCTION_NAME=f")...)
	if err != nil || c.Audience != `"aws","r","f"` || c.CacheTTL != time.Hour {
		t.Errorf("audience %q, CACHE_TTL %s, %v", c.Audience, c.CacheTTL, err)
	}
	if c, _, _ = loadAll(append(shared, "THAW_AUDIENCE=team")...); c.Audience != "team" {
		t.Errorf("audience %q", c.Audience)
	}
	c, _, err = loadAll(enabled, aKey, aLogin, "THAW_MEMCACHED=x.abc123.cfg.use1.cache.amazonaws.com:11211")
	if err != nil || !c.MemcachedDiscover || c.MemcachedTLS {
		t.Errorf("a configuration endpoint: %+v, %v", c.Memcached, err)
	}
}

func TestG5KeysAreNeverShown(t *testing.T) {
	t.Parallel()
	for _, v := range []string{
		"THAW_CACHE_KEY=" + testKey + "x", "THAW_CACHE_KEY=" + testKey + "," + testKey, "THAW_CACHE_KEY=" + testKey[:30],
		`THAW_WARM_AUDIENCES=[{"audience":"b","paths":"kv/","key":"` + testKey + `x"}]`, `THAW_WARM_AUDIENCES=[{"audience":"b","key":"` + testKey + `"`,
	} {
		_, warnings, err := loadAll(enabled, aNode, aLogin, v)
		if err == nil {
			t.Errorf("%s is taken", v)
			continue
		}
		text := err.Error()
		for _, w := range warnings {
			text += w.Message
		}
		if strings.Contains(text, testKey[:16]) {
			t.Errorf("shown: %s", text)
		}
	}
}

func FuzzParseWarmAudiences(f *testing.F) {
	f.Add(`[{"audience":"a","namespace":"n","paths":["secret/"],"key":"` + testKey + `"}]`)
	f.Add(`[{"audience":"a","paths":"secret/,kv/x"}]`)
	f.Fuzz(func(t *testing.T, v string) {
		audiences, err := parseWarmAudiences(v)
		if err != nil {
			return
		}
		for _, a := range audiences {
			if a.Audience == "" || len(a.Paths) == 0 || a.Key != "" && checkCacheKeys(string(a.Key)) != nil {
				t.Errorf("%q gives %+v", v, a.Paths)
			}
			for _, p := range a.Paths {
				if strings.HasPrefix(p, "/") || strings.Contains("/"+p+"/", "/../") {
					t.Errorf("%q gives %q", v, p)
				}
			}
		}
	})
}
