package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/azure"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/functions/warmup"
)

// platform is what Azure gives the app.
type platform struct {
	credential *azure.Credential // nil: the app has no managed identity
	unwrap     tier.Unwrap       // nil: the shared tier's key is in the settings
}

// newPlatform makes it of the settings. It does no I/O.
func newPlatform(cfg config.Config, log *slog.Logger) (p platform, err error) {
	a := cfg.Platform.Azure
	if a.IdentityEndpoint != "" {
		p.credential, err = azure.NewCredential(azure.Options{
			Endpoint: a.IdentityEndpoint, Header: string(a.IdentityHeader), ClientID: cfg.Auth.AzureClientID,
			Services: &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
				Proxy: cfg.EnvProxy, TLSHandshakeTimeout: 2 * cfg.ConnTimeout, IdleConnTimeout: cfg.IdleConn,
				DialContext: (&net.Dialer{Timeout: 2 * cfg.ConnTimeout}).DialContext,
			}},
		})
		if err != nil {
			return p, err
		}
	}
	if len(cfg.CacheKeyVault) == 0 {
		p.unwrap, err = tier.KMS(cfg, log)
		return p, err
	}
	if p.credential == nil {
		return p, fmt.Errorf("THAW_CACHE_KEY_KEYVAULT: %w", azure.ErrNoIdentity)
	}
	p.unwrap = func(ctx context.Context, _ string) (*envelope.Keyring, error) {
		keys := make([][azure.KeySize]byte, 0, len(cfg.CacheKeyVault))
		defer func() { clear(keys) }()
		for i, k := range cfg.CacheKeyVault {
			key, err := p.credential.Unwrap(ctx, k.Key, k.Wrapped)
			if err != nil {
				return nil, fmt.Errorf("THAW_CACHE_KEY_KEYVAULT, key %d of %d: %w", i+1, len(cfg.CacheKeyVault), err)
			}
			keys = append(keys, key)
		}
		return envelope.NewKeyring(keys...)
	}
	return p, nil
}

// login is the login by the managed identity; nil: there is none.
func (p platform) login() auth.Platform {
	if p.credential == nil {
		return nil
	}
	return auth.ManagedIdentity(p.credential)
}

// blobs is where backups at https addresses are kept.
func (p platform) blobs(container string) warmup.Place {
	return &azure.Blobs{Container: container, Credential: p.credential}
}
