// Package azure is what thaw needs of Azure: tokens of the app's managed
// identity, keys that Key Vault unwraps, and backups in Blob storage. Only
// thaw-azure links it.
//
// A token comes from the endpoint that the platform gives the app in
// IDENTITY_ENDPOINT, and is kept until shortly before it expires: see
// Credential. Key Vault and Blob storage are asked by the SDK's own clients, which
// retry, put the token in, and check a vault's challenge. A token goes to https
// addresses of Azure's own domains and to nobody else.
package azure

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// ErrNoIdentity says that something asks for the managed identity and there is none.
var ErrNoIdentity = errors.New("this app has no managed identity")

// errForeign says that a token of ours must not go to a host.
var errForeign = errors.New("its host is none of Azure's: a token must not go there")

// clientOptions are every client's of Azure's services.
func (c *Credential) clientOptions() policy.ClientOptions {
	return policy.ClientOptions{
		Transport: direct(c.o.Services), Retry: policy.RetryOptions{MaxRetries: 2}, Telemetry: policy.TelemetryOptions{ApplicationID: "thaw"},
	}
}

// direct is a client like c that does not follow redirects: what is meant for
// one host goes to no other.
func direct(c *http.Client) *http.Client {
	d := *c
	d.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &d
}

// answered is the error for an answer by which a service refuses, and says what to check;
// empty: nothing is known. Of the answer it has the status, and the code where that is
// letters only.
func answered(of string, answer *azcore.ResponseError, check string) error {
	what := of + " answered " + strconv.Itoa(answer.StatusCode)
	if c := answer.ErrorCode; c != "" && len(c) <= 64 && !strings.ContainsFunc(c, func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' }) {
		what += " " + c
	}
	if check != "" {
		what += ": " + check
	}
	return errors.New(what)
}
