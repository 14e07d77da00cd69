package config

import (
	"errors"
	"net/url"
	"slices"
	"strings"
)

// checkFunctionName is the host's rule for names of functions
// (https://github.com/Azure/azure-functions-host/blob/dev/src/WebJobs.Script/Utility.cs, FunctionNameValidationRegex).
func checkFunctionName(v string) error {
	if len(v) > 127 || !madeOf(v, "_-") || strings.IndexByte("0123456789_-", v[0]) >= 0 {
		return errors.New("is not a function's name: a letter, then letters, digits, - and _")
	}
	return nil
}

// splitResourceID finds subscription and group in a resource id
// (https://learn.microsoft.com/en-us/rest/api/resources/resources/get-by-id).
func splitResourceID(v string) (subscription, group string, err error) {
	p := strings.Split(v, "/")
	if len(p) < 9 || p[0] != "" || !strings.EqualFold(p[1], "subscriptions") || !strings.EqualFold(p[3], "resourceGroups") || !strings.EqualFold(p[5], "providers") || checkPath(v[1:]) != nil {
		return "", "", errors.New("is not a resource id")
	}
	return p[2], p[4], nil
}

func checkResourceID(v string) error {
	_, _, err := splitResourceID(v)
	return err
}

// maxWrappedRSA is what RSA of 4096 bits gives, in bytes.
const maxWrappedRSA = 512

// parseKeyVault reads a list of keys that Key Vault wrapped.
func parseKeyVault(v string) ([]WrappedKey, error) { return keyList(v, parseWrappedKey) }

func parseWrappedKey(v string) (WrappedKey, error) {
	id, text, ok := strings.Cut(v, "#")
	u, err := url.Parse(id)
	if !ok || err != nil || u.User != nil || u.RawQuery != "" || !IsKeyVault(u) {
		return WrappedKey{}, errors.New("holds something that is not https://NAME.vault.azure.net/keys/KEY/VERSION#BASE64")
	}
	if p := strings.Split(strings.Trim(u.Path, "/"), "/"); len(p) != 3 || p[0] != "keys" || p[1] == "" || p[2] == "" || strings.Contains(u.Path, "..") {
		return WrappedKey{}, errors.New("names no key with its version: https://NAME.vault.azure.net/keys/KEY/VERSION")
	}
	wrapped, err := decodeBase64(text)
	if err != nil || len(wrapped) == 0 || len(wrapped) > maxWrappedRSA {
		return WrappedKey{}, errors.New("holds something after # that is not a wrapped key in base64")
	}
	return WrappedKey{Key: id, Wrapped: wrapped}, nil
}

// IsKeyVault and IsBlobStore report whether an address is https at one of Azure's hosts
// in any cloud: no token of the identity goes to another, whatever its challenge claims
// (https://learn.microsoft.com/en-us/azure/china/resources-developer-guide,
// https://learn.microsoft.com/en-us/azure/azure-government/compare-azure-government-global-azure).

// IsKeyVault is for Key Vault's.
func IsKeyVault(u *url.URL) bool {
	return azureHost(u, ".vault.azure.net", ".managedhsm.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net")
}

// IsBlobStore is for Blob storage's.
func IsBlobStore(u *url.URL) bool {
	return azureHost(u, ".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net")
}

func azureHost(u *url.URL, suffixes ...string) bool {
	return u.Scheme == "https" && slices.ContainsFunc(suffixes, func(s string) bool {
		name, ok := strings.CutSuffix(strings.ToLower(u.Host), s) // without a port
		return ok && name != "" && !strings.ContainsAny(name, "./")
	})
}

// checkBlob checks https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB.
func checkBlob(v string) error {
	u, err := url.Parse(v)
	if err == nil && u.User == nil && u.RawQuery == "" && u.Fragment == "" && checkLine(v) == nil && IsBlobStore(u) {
		container, blob, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		if container != "" && blob != "" && !strings.HasSuffix(blob, "/") && !strings.Contains("/"+u.Path+"/", "/../") {
			return nil
		}
	}
	return errors.New("is not https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
}
