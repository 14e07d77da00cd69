package config

import (
	"cmp"
	"log/slog"
	"time"
)

// levelOf maps the words of VAULT_LOG_LEVEL.
func levelOf(word string) slog.Level {
	return map[string]slog.Level{"TRACE": LevelTrace, "DEBUG": slog.LevelDebug, "WARN": slog.LevelWarn, "ERROR": slog.LevelError, "OFF": LevelOff}[word]
}

// shortToken is the length under which a local token can be guessed.
const shortToken = 16

// lambdaInit is how long Lambda waits for extensions to register.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
const lambdaInit = 10 * time.Second

// checkAll reports settings that contradict each other or deserve a warning.
func (l *loader) checkAll() {
	d := &l.d
	l.together("VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY", d.TLS.ClientCert != "", d.TLS.ClientKey != "",
		"VAULT_CLIENT_CERT (client_cert in the file)", "VAULT_CLIENT_KEY (client_key in the file)")
	if d.TLS.SkipVerify {
		at := l.at("VAULT_SKIP_VERIFY")
		but, remedy := "", "Set VAULT_CACERT instead"
		if d.TLS.CACert != "" || d.TLS.CACertPEM != "" || d.TLS.CAPath != "" {
			but, remedy = " although a CA is configured", "Remove "+at.Name
		}
		l.warn(at.prefix() + at.Name + ": Vault's certificate is not verified" + but + "; anyone in between can read every secret. " + remedy)
	}
	off := d.Poll == PollOff && d.RunMode != RunFile
	l.warnIf(off, "THAW_POLL=off: cached secrets are not verified and may be old until their TTL ends")
	l.warnIf(off && d.DefaultTTL == 0 && d.StaticCache, "THAW_POLL=off without VAULT_DEFAULT_CACHE_TTL: nothing bounds how old a cached secret may be; set a TTL")
	if d.ConsistencyScope == ScopeAudience && (!d.CacheEnable || len(d.Memcached) == 0) && l.good("CACHE_ENABLE", "THAW_MEMCACHED") {
		l.problem(place{Name: "THAW_CONSISTENCY_SCOPE"}, ScopeAudience, "instances tell each other of their writes through the shared cache; set CACHE_ENABLE and THAW_MEMCACHED, or remove it")
	}
	l.warnIf(d.Platform.Lambda && d.FileTimeout >= lambdaInit && len(d.Files) > 0, "THAW_FILE_TIMEOUT: Lambda ends the start after 10 seconds in any case")
	l.warnIf(d.LocalToken != "" && len(d.LocalToken) < shortToken, "THAW_LOCAL_TOKEN is short enough to be guessed; use at least 16 random characters")
	l.checkListeners()
	l.checkFileRules()
}

// checkListeners warns of listeners that others can reach.
func (l *loader) checkListeners() {
	open := 0
	for _, listener := range l.d.Listeners {
		if onLoopback(listener) {
			continue
		}
		open++
		what := "the listener " + listener.Address + " is not on loopback"
		l.warnIf(len(l.d.AllowedHosts) == 0, what+", but requests must still name a loopback host; set THAW_ALLOWED_HOSTS to the names that callers use")
		l.warnIf(l.d.LocalToken == "", what+": whoever reaches it can read secrets with thaw's own token; set THAW_LOCAL_TOKEN or listen on 127.0.0.1")
		l.warnIf(listener.CertFile == "", what+" and has no TLS: secrets cross the network in clear; set tls_cert_file and tls_key_file in the file's listener block, or listen on 127.0.0.1")
	}
	l.warnIf(len(l.d.AllowedHosts) > 0 && len(l.d.Listeners) > 0 && open == 0 && l.good("THAW_LISTEN"),
		"THAW_ALLOWED_HOSTS has no effect: every listener is on loopback")
}

// checkFileRules is what Vault Proxy asks of a whole file.
// https://github.com/hashicorp/vault/blob/v1.21.0/command/proxy/config/config.go (ValidateConfig)
func (l *loader) checkFileRules() {
	f := &l.file
	if f.path == "" || f.broken {
		return
	}
	listening := f.listening || l.isSet("THAW_LISTEN") || l.d.RunMode == RunFile || l.mute
	const aListener = " needs a listener, as in Vault Proxy; add a listener block or set THAW_LISTEN"
	l.check(f.at["cache"], "", errIf(f.at["cache"].Line > 0 && !listening, "a cache"+aListener))
	l.check(f.at["api_proxy"], "", errIf(f.at["api_proxy"].Line > 0 && !listening, "api_proxy"+aListener))
	const aLogin = "needs a login, as in Vault Proxy; add an auto_auth block or set VAULT_AUTH_ROLE or THAW_AUTH_METHOD"
	login := l.d.Auth.Method != AuthNone || f.badAuth || l.bad["THAW_AUTH_METHOD"]
	l.check(f.at["cache.cache_static_secrets"], "true", errIf(l.d.StaticCache && !login, aLogin))
	at := cmp.Or(f.at["api_proxy.use_auto_auth_token"], f.at["cache.use_auto_auth_token"])
	l.check(at, string(l.d.OwnToken), errIf(l.d.OwnToken != OwnTokenNever && !login, aLogin))
}

// Freshness says in words when a change in Vault is seen.
func (c Config) Freshness() string {
	within := "; within one, THAW_RECHECK=" + c.Recheck.String() + " later at most"
	switch {
	case c.Poll == PollOff && c.DefaultTTL > 0:
		return "when a VAULT_DEFAULT_CACHE_TTL of " + c.DefaultTTL.String() + " is over (THAW_POLL=off)"
	case c.Poll == PollOff:
		return "never while a secret is cached (THAW_POLL=off without VAULT_DEFAULT_CACHE_TTL)"
	case c.MaxAge > 0:
		return "THAW_MAX_AGE=" + c.MaxAge.String() + " late at most, for later invocations" + within
	case c.Poll == PollRead:
		return "at an invocation's first read" + within
	}
	return "at the next invocation" + within
}
