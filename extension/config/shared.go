package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// resolveShared puts together what the shared tier and the warm-up need.
func (l *loader) resolveShared() {
	d := &l.d
	l.checkIdle()
	if !d.CacheEnable {
		l.checkShared()
		return
	}
	d.CacheTTL = time.Hour
	if err := assign(&d.CacheTTL, l.row(nameCacheTTL).Type, d.cacheTTL); err != nil && d.cacheTTL != "" {
		l.refuse(place{name: nameCacheTTL}, d.cacheTTL, err.Error()+"; allowed: "+l.row(nameCacheTTL).Type)
	}
	if d.Audience == "" {
		// Quoted, so that no two triples read alike.
		d.Audience = strconv.Quote(d.Auth.Mount) + "," + strconv.Quote(d.Auth.Role) + "," + strconv.Quote(d.Platform.FunctionName)
	}
	l.checkShared()
	l.checkWarm()
}

// checkShared reports contradictions in the shared tier's settings.
func (l *loader) checkShared() {
	d := &l.d
	if !d.CacheEnable {
		const message = "has no effect without the shared cache; set CACHE_ENABLE=true, or remove it"
		if l.isSet(nameMemcached) && l.good(nameCacheEnable, nameMemcached) {
			l.wrong(nameMemcached, message)
		}
		if d.Warm.Enable && l.good(nameCacheEnable) {
			l.wrong(nameProactive, message)
		}
		return
	}
	keys := slices.DeleteFunc([]string{nameCacheKey, nameCacheKMS, nameKeyVault}, func(name string) bool { return !l.isSet(name) || l.bad[name] })
	for i := 1; i < len(keys); i++ {
		l.wrong(keys[i], "contradicts "+keys[0]+"; keep one of them")
	}
	switch {
	case l.bad[nameMemcached]:
	case len(d.Memcached) == 0 && d.Warm.Enable:
		l.wrong(nameProactive, "there is nothing to warm: set THAW_MEMCACHED")
	case len(d.Memcached) == 0:
		l.warn("CACHE_ENABLE has no effect without memcached; set THAW_MEMCACHED")
	case len(keys) == 0 && l.good(nameCacheKey, nameCacheKMS, nameKeyVault) && !d.Warm.ownKeys():
		l.wrong(nameMemcached, "needs a key, since nothing goes there unsealed; set THAW_CACHE_KEY (make one with: openssl rand -base64 32), or THAW_CACHE_KEY_KMS")
	}
	l.checkMemcachedTLS()
	if len(d.Memcached) > 0 && d.MaxAge > 0 && d.MaxAge <= d.ClockSkew {
		l.warn("THAW_MAX_AGE is not above THAW_CLOCK_SKEW, so no verification of another instance is young enough to count; raise THAW_MAX_AGE")
	}
	if len(d.Memcached) > 0 && d.Auth.Method == AuthNone {
		l.warn("the shared cache holds only what thaw reads under a login of its own, and none is configured; set VAULT_AUTH_ROLE or THAW_AUTH_METHOD")
	}
}

// checkMemcachedTLS reports what only makes sense with TLS, or together.
func (l *loader) checkMemcachedTLS() {
	d := &l.d
	if len(d.Memcached) > 0 && !d.MemcachedTLS {
		for _, name := range []string{nameNodesCA, nameNodesName, nameNodesCert, nameNodesKey} {
			if l.isSet(name) && l.good(name) {
				l.wrong(name, "has no effect, since the nodes are asked without TLS; write tls:// before each in THAW_MEMCACHED, or remove it")
			}
		}
		return
	}
	l.together(nameNodesCert, nameNodesKey, d.MemcachedFiles.ClientCert != "", d.MemcachedFiles.ClientKey != "",
		"a client certificate needs its key; set "+nameNodesKey, "a key without its client certificate; set "+nameNodesCert)
}

// checkWarm reports contradictions in the warm-up's settings.
func (l *loader) checkWarm() {
	d := &l.d
	w := &d.Warm
	if len(w.Audiences) > 0 && len(w.Paths) > 0 {
		l.wrong(nameWarmPaths, "contradicts THAW_WARM_AUDIENCES, which names the prefixes of each audience; keep one of them")
	}
	if !w.Enable {
		return
	}
	if w.Recommended && l.good(nameDumpEvery) {
		l.idle("with NEW_PROACTIVE_CACHE_ENABLE=true", nameDumpEvery)
	}
	if !w.Recommended {
		l.idle("without NEW_PROACTIVE_CACHE_ENABLE=true: the legacy implementation has five", nameWorkers)
	}
	if w.DumpEvery > 0 && w.Dump == "" && l.good(nameDump) {
		l.wrong(nameDumpEvery, "there is no place for the backup; set THAW_DUMP to a file or s3://bucket/key")
	}
	if w.Dump != "" && w.DumpEvery == 0 && l.good(nameDumpEvery) && !w.Recommended {
		l.warn("THAW_DUMP is only read from: no backup is written without PROACTIVE_CACHE_DUMP_INTERVAL")
	}
	if len(w.Paths) > 0 && !l.isSet("THAW_AUDIENCE") {
		l.warn("THAW_WARM_PATHS without THAW_AUDIENCE warms an audience of the warm-up's own, which no function shares; set THAW_AUDIENCE as the functions have it")
	}
}

// checkIdle tells of the warm-up's settings where nothing is warmed. Their names
// are others', too, so those that stand alone may be meant for another program.
func (l *loader) checkIdle() {
	names := []string{nameRecommended, nameWorkers, nameFetching, nameDumpEvery}
	switch {
	case l.d.Platform.Lambda && !l.mute:
		l.idle("in the extension: the warm-up is a function of its own", append(names, nameProactive)...)
	case !l.d.Warm.Enable && !l.isSet(nameProactive): // where it is false, they wait to be of use
		l.idle("without PROACTIVE_CACHE_ENABLE=true", names...)
	}
	if !l.d.CacheEnable && l.firstSet(append(names, nameProactive, nameCacheEnable)...) != "" {
		l.idle("without CACHE_ENABLE=true", nameCacheTTL)
	}
}

// idle warns of those settings that the environment has.
func (l *loader) idle(why string, names ...string) {
	names = slices.DeleteFunc(names, func(name string) bool { return !l.isSet(name) })
	switch len(names) {
	case 0:
	case 1:
		l.warn(names[0] + " has no effect " + why)
	default:
		l.warn(strings.Join(names, ", ") + " have no effect " + why)
	}
}

// ownKeys reports whether every audience brings its key.
func (w *Warm) ownKeys() bool {
	return len(w.Audiences) > 0 && !slices.ContainsFunc(w.Audiences, func(a WarmAudience) bool { return a.Key == "" })
}
