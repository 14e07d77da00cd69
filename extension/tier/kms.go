package tier

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/kms"
	"github.com/thaw-project/thaw/extension/memcached/envelope"
)

// KMS returns what has AWS KMS decrypt THAW_CACHE_KEY_KMS, with the audience
// in the encryption context; nil where that is not set.
func KMS(cfg config.Config, log *slog.Logger) (Unwrap, error) {
	if len(cfg.CacheKeyKMS) == 0 {
		return nil, nil
	}
	creds, err := auth.AWSCredentials(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("THAW_CACHE_KEY_KMS: %w", err)
	}
	client, err := kms.New(kms.Options{AWS: cfg.Platform.AWS, Region: cfg.Platform.Region, Credentials: creds, HTTP: auth.HTTPClient(cfg)})
	if err != nil {
		return nil, fmt.Errorf("THAW_CACHE_KEY_KMS: %w", err)
	}
	return func(ctx context.Context, audience string) (*envelope.Keyring, error) {
		keys, err := client.DataKeys(ctx, cfg.CacheKeyKMS, audience)
		if err != nil {
			return nil, err
		}
		defer clear(keys)
		return envelope.NewKeyring(keys...)
	}, nil
}
