package azure

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// KeySize is the size of a data key in bytes.
const KeySize = 32

// keyVersion of Key Vault's API.
const keyVersion = "7.4"

// KeyVault unwraps keys.
type KeyVault struct {
	Credential azcore.TokenCredential
	Transport  policy.Transporter // see Direct
}

// Unwrap has Key Vault unwrap a data key of 32 bytes that was wrapped with
// RSA-OAEP-256. key is the wrapping key's identifier with its version,
// https://NAME.vault.azure.net/keys/KEY/VERSION
// (https://learn.microsoft.com/en-us/rest/api/keyvault/keys/unwrap-key/unwrap-key).
// No error holds a key, nor anything else of the answer but its status and code.
func (v *KeyVault) Unwrap(ctx context.Context, key string, wrapped []byte) ([KeySize]byte, error) {
	var out [KeySize]byte
	u, err := url.Parse(key)
	if err != nil {
		return out, errors.New("the key is not an address: give https://NAME.vault.azure.net/keys/KEY/VERSION")
	}
	scope, ok := find(keyVaults(), u.Host)
	if !ok || u.Scheme != "https" {
		return out, fmt.Errorf("unwrap with %s: %w", u.Host, errForeign)
	}
	req, err := runtime.NewRequest(ctx, http.MethodPost, "https://"+u.Host+strings.TrimRight(u.EscapedPath(), "/")+"/unwrapkey?api-version="+keyVersion)
	if err != nil {
		return out, fmt.Errorf("make the request to Key Vault: %w", err)
	}
	req.Raw().Header.Set("Accept", "application/json")
	if err := runtime.MarshalAsJSON(req, map[string]string{"alg": "RSA-OAEP-256", "value": base64.RawURLEncoding.EncodeToString(wrapped)}); err != nil {
		return out, fmt.Errorf("encode the request to Key Vault: %w", err)
	}
	res, err := pipeline(v.Credential, scope, v.Transport).Do(req)
	if err != nil {
		return out, fmt.Errorf("reach Key Vault at %s: %w", u.Host, err)
	}
	defer drain(res)
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return out, fmt.Errorf("read Key Vault's answer: %w", err)
	}
	defer clear(body)
	var a struct {
		Value string `json:"value"`
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	err = json.Unmarshal(body, &a)
	if res.StatusCode != http.StatusOK {
		return out, vaultRefusal(u, res.StatusCode, code(a.Error.Code))
	}
	plain, bad := base64.RawURLEncoding.DecodeString(strings.TrimRight(a.Value, "="))
	defer clear(plain)
	if err != nil || bad != nil || len(plain) == 0 {
		return out, fmt.Errorf("%s is no Key Vault: its answer is not unwrapKey's", u.Host)
	}
	if len(plain) != KeySize {
		return out, fmt.Errorf("the key that Key Vault unwrapped has %d bytes and needs %d", len(plain), KeySize)
	}
	copy(out[:], plain)
	return out, nil
}

// vaultRefusal says what to check.
func vaultRefusal(u *url.URL, status int, code string) error {
	what := "Key Vault at " + u.Host + " answered " + strconv.Itoa(status)
	if code != "" {
		what += " " + code
	}
	switch status {
	case http.StatusUnauthorized:
		what += ": it does not take this identity's token; the vault must be of the app's own tenant"
	case http.StatusForbidden:
		what += ": give the app's managed identity the role Key Vault Crypto Service Encryption User on the key (unwrap), and look at the vault's firewall"
	case http.StatusNotFound:
		what += ": there is no such key or version: " + u.Path
	case http.StatusBadRequest:
		what += ": the wrapped key is damaged, or was not wrapped with RSA-OAEP-256 by this version of the key"
	}
	return errors.New(what)
}
