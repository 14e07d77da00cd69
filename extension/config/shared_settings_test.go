package config_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// cacheKey is a key for tests, in base64.
func cacheKey(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(b)), 32)))
}

// sharedVariables are the settings of the shared tier and the warm-up.
func sharedVariables() map[string]variable {
	type cfg = config.Config
	secured := []string{"CACHE_ENABLE=true", "THAW_MEMCACHED=tls://m", "THAW_CACHE_KEY=" + cacheKey('k')}
	enable, nodes, key := "CACHE_ENABLE=true", "THAW_MEMCACHED=m", "THAW_CACHE_KEY="+cacheKey('k')
	shared := []string{enable, nodes, key}
	line := []string{"a\x01b", "a\nb", strings.Repeat("x", 5000), "\xff"}
	bools := []string{"x", "yes", "2", "tru"}
	minutes := []string{"x", "-1", "1.5", "5m", "525601", "99999999999999999999"}
	return map[string]variable{
		"CACHE_ENABLE": {good: "true", got: func(c cfg) any { return c.CacheEnable }, want: true, bad: bools},
		"CACHE_TTL":    {good: "90", got: func(c cfg) any { return c.CacheTTL }, want: 90 * time.Minute, also: shared, bad: append(minutes, "0", "a\nb")},
		"THAW_MEMCACHED": {good: "tls://a:1, tls://B, tls://[::1]:2,tls://a:1", got: func(c cfg) any { return fmt.Sprint(c.Memcached, c.MemcachedTLS, c.MemcachedDiscover) },
			want: "[a:1 B:11211 [::1]:2] true false", also: []string{enable, key},
			bad: []string{",", "a:", "a:99999", "http://a", "a,tls://b", "u@a:1", "a:1/x", "a b", "a:b:c", "a_\x01"}},
		"THAW_MEMCACHED_CACERT":          {good: "/ca", got: func(c cfg) any { return c.MemcachedFiles.CACert }, want: "/ca", also: secured, bad: line},
		"THAW_MEMCACHED_TLS_SERVER_NAME": {good: "n", got: func(c cfg) any { return c.MemcachedFiles.ServerName }, want: "n", also: secured, bad: line},
		"THAW_MEMCACHED_CLIENT_CERT":     {good: "/c", got: func(c cfg) any { return c.MemcachedFiles.ClientCert }, want: "/c", also: append([]string{"THAW_MEMCACHED_CLIENT_KEY=/k"}, secured...), bad: line},
		"THAW_MEMCACHED_CLIENT_KEY":      {good: "/k", got: func(c cfg) any { return c.MemcachedFiles.ClientKey }, want: "/k", also: append([]string{"THAW_MEMCACHED_CLIENT_CERT=/c"}, secured...), bad: line},
		"THAW_MEMCACHED_TIMEOUT":         {good: "5ms", got: func(c cfg) any { return c.MemcachedTimeout }, want: 5 * time.Millisecond, bad: []string{"x", "0", "1us", "6s"}},
		"THAW_CACHE_KEY":                 {good: cacheKey('a') + ", " + strings.TrimRight(cacheKey('b'), "="), got: func(c cfg) any { return c.CacheKey }, want: config.Secret(cacheKey('a') + ", " + strings.TrimRight(cacheKey('b'), "=")), bad: []string{"x", "secret", base64.StdEncoding.EncodeToString(make([]byte, 32)), cacheKey('a') + ",", cacheKey('a') + "," + cacheKey('a'), cacheKey('a')[:40], "!" + cacheKey('a')}},
		"THAW_CACHE_KEY_KMS":             {good: "AQID, BAUG", got: func(c cfg) any { return c.CacheKeyKMS }, want: [][]byte{{1, 2, 3}, {4, 5, 6}}, bad: []string{"x", "!!!!", "=", "AQID,", "AQID,AQID", strings.Repeat("AQID", 2049)}},
		"THAW_AUDIENCE":                  {good: "orders", got: func(c cfg) any { return c.Audience }, want: "orders", also: shared, bad: []string{"a\x01b", "a\nb", "\xff"}},
		"THAW_CLOCK_SKEW":                {good: "0", got: func(c cfg) any { return c.ClockSkew }, want: time.Duration(0), bad: []string{"x", "-1", "2m"}},
		"THAW_NO_SHARE_PATHS":            {good: "secret/data/a,kv/*", got: func(c cfg) any { return c.NoSharePaths }, want: []string{"secret/data/a", "kv/*"}, bad: []string{"a/*/b", "a//b", "**"}},
		"PROACTIVE_CACHE_ENABLE":         {good: "true", got: func(c cfg) any { return c.Warm.Enable }, want: true, also: shared, bad: bools},
		"PROACTIVE_CACHE_WORKERS":        {good: "8", got: func(c cfg) any { return c.Warm.Workers }, want: 8, bad: []string{"x", "0", "65", "-1"}},
		"THAW_DUMP":                      {good: "s3://bucket/some/key", got: func(c cfg) any { return c.Warm.Dump }, want: "s3://bucket/some/key", bad: []string{"s3://", "s3://b/k", "s3://bucket", "s3://bucket/", "s3://bucket/a/", "ftp://x/y", "a\nb", "s3://buc ket/k"}},
		"THAW_WARM_FOR":                  {good: "50", got: func(c cfg) any { return c.Warm.For }, want: 50 * time.Second, bad: []string{"-1s", "2h", "x"}},
		"THAW_WARM_CONFIRMED_ONLY":       {good: "true", got: func(c cfg) any { return c.Warm.ConfirmedOnly }, want: true, bad: bools},

		"NEW_PROACTIVE_CACHE_ENABLE":            {good: "true", got: func(c cfg) any { return c.Warm.Recommended }, want: true, bad: bools},
		"PROACTIVE_CACHE_MINIMUM_FETCHING_TIME": {good: "0", got: func(c cfg) any { return c.Warm.FetchEvery }, want: time.Duration(0), bad: minutes},
		"PROACTIVE_CACHE_DUMP_INTERVAL":         {good: "30", got: func(c cfg) any { return c.Warm.DumpEvery }, want: 30 * time.Minute, bad: append(minutes, "0")},
		"THAW_WARM_PATHS":                       {good: "/v1/secret/, /kv/app/,kv/one,secret/", got: func(c cfg) any { return c.Warm.Paths }, want: []string{"secret/", "kv/app/", "kv/one"}, bad: []string{",", "/", "a//b", "a/../b/", "a/*", "a/+/b", "a?b", "a%2fb", "*,a/", "**"}},
		"THAW_WARM_AUDIENCES": {good: `[{"audience":"a","namespace":"/team/","paths":["secret/","kv/x"],"key":"` + cacheKey('a') + `"},{"audience":"b","paths":"secret/b/, kv/"}]`,
			got: func(c cfg) any { return c.Warm.Audiences }, want: []config.WarmAudience{
				{Audience: "a", Namespace: "team", Paths: []string{"secret/", "kv/x"}, Key: config.Secret(cacheKey('a'))},
				{Audience: "b", Paths: []string{"secret/b/", "kv/"}},
			}, bad: []string{"x", "[]", "{}", "null", `[{"audience":"a"}]`, `[{"paths":["a"]}]`, `[{"audience":"a","paths":"a"},{"audience":"a","paths":"b"}]`, `[{"audience":"a","paths":["a//b"]}]`,
				`[{"audience":"a","paths":[1]}]`, `[{"audience":"a","paths":["a"],"key":"x"}]`, `[{"audience":"a","paths":["a"],"kye":""}]`, `[{"audience":"a","namespace":"a//b","paths":["a"]}]`, `[{"audience":"a","paths":["a"]}] []`}},
	}
}
