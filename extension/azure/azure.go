// Package azure is what thaw needs of Azure: tokens of the app's managed
// identity, keys that Key Vault unwraps, and backups in Blob storage. Only
// thaw-azure links it.
//
// A token comes from the endpoint that the platform gives the app in
// IDENTITY_ENDPOINT, and is kept until shortly before it expires: see
// Credential. Key Vault and Blob storage are two small REST calls each through
// azcore's pipeline, which retries and puts the token in; no more of the SDK is
// linked. A token goes to https addresses of Azure's own domains and to nobody
// else.
package azure

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// moduleName is thaw's in the User-Agent.
const (
	moduleName    = "thaw"
	moduleVersion = "v1"
)

// service is one of Azure's, by the domains of its hosts in each cloud
// (https://learn.microsoft.com/en-us/azure/china/resources-developer-guide,
// https://learn.microsoft.com/en-us/azure/azure-government/compare-azure-government-global-azure).
type service struct {
	suffix string // of the host, with the dot before it
	scope  string // that a token is asked for
}

func keyVaults() []service {
	return []service{
		{".vault.azure.net", "https://vault.azure.net/.default"},
		{".managedhsm.azure.net", "https://managedhsm.azure.net/.default"},
		{".vault.azure.cn", "https://vault.azure.cn/.default"},
		{".vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net/.default"},
	}
}

func blobStores() []service {
	const scope = "https://storage.azure.com/.default"
	return []service{
		{".blob.core.windows.net", scope}, {".blob.core.chinacloudapi.cn", scope}, {".blob.core.usgovcloudapi.net", scope},
	}
}

// find returns the scope for a host.
func find(list []service, host string) (scope string, ok bool) {
	for _, s := range list {
		if name, found := strings.CutSuffix(strings.ToLower(host), s.suffix); found && name != "" && !strings.ContainsAny(name, "./") {
			return s.scope, true
		}
	}
	return "", false
}

// errForeign says that a token of ours must not go to a host.
var errForeign = errors.New("its host is none of Azure's: a token must not go there")

// pipeline sends requests with a token for scope. The transport must not follow
// redirects; see Direct.
func pipeline(cred azcore.TokenCredential, scope string, transport policy.Transporter) runtime.Pipeline {
	return runtime.NewPipeline(moduleName, moduleVersion, runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(cred, []string{scope}, nil)},
	}, &policy.ClientOptions{
		Transport: transport, Retry: policy.RetryOptions{MaxRetries: 2},
		Telemetry: policy.TelemetryOptions{ApplicationID: moduleName},
	})
}

// Direct is a client like c that does not follow redirects: what is meant for
// one host goes to no other.
func Direct(c *http.Client) *http.Client {
	d := *c
	d.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &d
}

// code is the error code in an answer: letters only, or nothing.
func code(v string) string {
	if len(v) > 64 || strings.ContainsFunc(v, func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' }) {
		return ""
	}
	return v
}

// drain reads what is left of a small answer and closes it.
func drain(res *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	res.Body.Close()
}
