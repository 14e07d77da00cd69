package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/thaw-project/thaw/extension/config"
)

// KeySize is the size of a data key in bytes.
const KeySize = 32

// Unwrap has Key Vault unwrap a data key of 32 bytes that was wrapped with
// RSA-OAEP-256. key is the wrapping key's identifier with its version,
// https://NAME.vault.azure.net/keys/KEY/VERSION
// (https://learn.microsoft.com/en-us/rest/api/keyvault/keys/unwrap-key/unwrap-key).
// No error holds a key, nor anything else of the answer but its status and code.
func (c *Credential) Unwrap(ctx context.Context, key string, wrapped []byte) (out [KeySize]byte, err error) {
	u, err := url.Parse(key)
	if err != nil {
		return out, errBadKey
	}
	if !config.IsKeyVault(u) {
		return out, fmt.Errorf("unwrap with %s: %w", u.Host, errForeign)
	}
	id := azkeys.ID(key)
	if strings.Trim(u.Path, "/") != "keys/"+id.Name()+"/"+id.Version() || id.Version() == "" {
		return out, errBadKey
	}
	client, err := azkeys.NewClient("https://"+u.Host, c, &azkeys.ClientOptions{ClientOptions: c.clientOptions()})
	if err != nil {
		return out, fmt.Errorf("make a client of Key Vault: %w", err)
	}
	res, err := client.UnwrapKey(ctx, id.Name(), id.Version(), azkeys.KeyOperationParameters{
		Algorithm: to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP256), Value: wrapped,
	}, nil)
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok && answer.StatusCode != http.StatusOK {
		return out, answered("Key Vault at "+u.Host, answer, vaultCheck(answer.StatusCode, u.Path))
	}
	if err != nil {
		return out, fmt.Errorf("reach Key Vault at %s: %w", u.Host, err)
	}
	defer clear(res.Result)
	switch len(res.Result) {
	case KeySize:
		return [KeySize]byte(res.Result), nil
	case 0:
		return out, fmt.Errorf("%s is no Key Vault: its answer is not unwrapKey's", u.Host)
	}
	return out, fmt.Errorf("the key that Key Vault unwrapped has %d bytes and needs %d", len(res.Result), KeySize)
}

var errBadKey = errors.New("the key is not an address: give https://NAME.vault.azure.net/keys/KEY/VERSION")

// vaultCheck says what to check when Key Vault refuses to unwrap with the key at a path.
func vaultCheck(status int, path string) string {
	return map[int]string{
		http.StatusUnauthorized: "it does not take this identity's token; the vault must be of the app's own tenant",
		http.StatusForbidden:    "give the app's managed identity the role Key Vault Crypto Service Encryption User on the key (unwrap), and look at the vault's firewall",
		http.StatusNotFound:     "there is no such key or version: " + path,
		http.StatusBadRequest:   "the wrapped key is damaged, or was not wrapped with RSA-OAEP-256 by this version of the key",
	}[status]
}
