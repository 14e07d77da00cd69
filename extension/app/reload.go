package app

import (
	"context"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/material"
)

// credentials are the files that a login reads; what is made of them is made by
// the login.
func credentials(a config.Auth) *material.Kept[struct{}] {
	k := material.Keep(func() (struct{}, error) { return struct{}{}, nil }, a.RoleIDFile, a.SecretFile, a.JWTFile)
	_, _ = k.Get() // of nothing
	return k
}

// reloadEvery is how often files are looked at where nothing freezes.
const reloadEvery = time.Minute

// Reload reads the files again that may change: TLS files of Vault, of memcached and
// of the listeners, and what a login reads. What was learned under a token whose
// identity is another one's then counts no more.
func (a *App) Reload(ctx context.Context) {
	var changed []string
	note := func(what string, did bool) {
		if did {
			changed = append(changed, what)
			a.reloads.Add(1)
		}
	}
	if a.client.Reload() { // which counts them itself: it does so after a failed handshake, too
		changed = append(changed, "Vault's TLS files")
	}
	if a.tier != nil {
		note("memcached's TLS files", a.tier.Reload())
	}
	if a.proxy.Reload() { // likewise, at each handshake
		changed = append(changed, "the listener's certificate")
	}
	switch a.cfg.Auth.Method {
	case config.AuthTokenFile:
		before := a.tokens.Peek()
		if err := a.tokens.Maintain(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("keep the login alive", "error", err)
		}
		note("the token", before != "" && before != a.tokens.Peek())
	default:
		note("the credentials", a.replaceLogin(ctx))
	}
	if len(changed) > 0 {
		a.log.Info("reloaded", "changed", changed)
	}
}

// replaceLogin logs in with credentials that are new, and reports whether they are in
// use. Those that Vault refuses wait for other files, and where it could not be asked
// the next call tries again.
func (a *App) replaceLogin(ctx context.Context) bool {
	fresh, err := a.credentials.Look()
	due := a.loginDue.Swap(false) || fresh
	if due && a.tokens.Peek() != "" {
		_, err = a.tokens.Replace(ctx)
		a.loginDue.Store(err != nil && statusFor(err) != http.StatusForbidden)
	}
	// A secret id whose file is gone was taken: that is no news.
	if err != nil && (fresh || !due) && !material.Missing(err) && ctx.Err() == nil {
		a.log.Warn("log in with the new credentials; the old token stays in use", "error", err)
	}
	return due && err == nil
}
