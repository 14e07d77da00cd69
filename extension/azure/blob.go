package azure

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
)

// blobVersion of Blob storage's API: the first with single writes of 5000 MiB
// is 2019-12-12.
const blobVersion = "2021-12-02"

// Blobs keeps backups of the warm-up as block blobs of one container.
type Blobs struct {
	Container  string // https://ACCOUNT.blob.core.windows.net/CONTAINER
	Credential azcore.TokenCredential
	Transport  policy.Transporter // see Direct
	Now        func() time.Time   // nil: time.Now
}

// Write puts a blob in one request
// (https://learn.microsoft.com/en-us/rest/api/storageservices/put-blob).
func (b *Blobs) Write(ctx context.Context, name string, from *os.File, size int64, _ [sha256.Size]byte) error {
	res, err := b.send(ctx, http.MethodPut, name, func(req *policy.Request) error {
		req.Raw().Header.Set("X-Ms-Blob-Type", "BlockBlob")
		req.Raw().ContentLength = size
		return req.SetBody(streaming.NopCloser(io.NewSectionReader(from, 0, size)), "application/octet-stream")
	})
	if err != nil {
		return err
	}
	defer drain(res)
	if res.StatusCode != http.StatusCreated {
		return b.refusal(res)
	}
	return nil
}

// Read gets a blob (https://learn.microsoft.com/en-us/rest/api/storageservices/get-blob).
// An error that is os.ErrNotExist: there is none.
func (b *Blobs) Read(ctx context.Context, name string) (io.ReadCloser, error) {
	res, err := b.send(ctx, http.MethodGet, name, func(req *policy.Request) error {
		runtime.SkipBodyDownload(req)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer drain(res)
	return nil, b.refusal(res)
}

func (b *Blobs) send(ctx context.Context, method, name string, prepare func(*policy.Request) error) (*http.Response, error) {
	u, err := url.Parse(b.Container)
	if err != nil {
		return nil, errors.New("THAW_DUMP is not an address: give https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
	}
	scope, ok := find(blobStores(), u.Host)
	if !ok || u.Scheme != "https" {
		return nil, fmt.Errorf("THAW_DUMP: %w", errForeign)
	}
	u = u.JoinPath(name)
	req, err := runtime.NewRequest(ctx, method, u.String())
	if err != nil {
		return nil, fmt.Errorf("make the request to Blob storage: %w", err)
	}
	now := b.Now
	if now == nil {
		now = time.Now
	}
	req.Raw().Header.Set("X-Ms-Version", blobVersion)
	req.Raw().Header.Set("X-Ms-Date", now().UTC().Format(http.TimeFormat))
	if err := prepare(req); err != nil {
		return nil, fmt.Errorf("make the request to Blob storage: %w", err)
	}
	res, err := pipeline(b.Credential, scope, b.Transport).Do(req)
	if err != nil {
		return nil, fmt.Errorf("reach Blob storage at %s: %w", u.Host, err)
	}
	return res, nil
}

// refusal says what to check. The code comes in a header.
func (b *Blobs) refusal(res *http.Response) error {
	what := strconv.Itoa(res.StatusCode)
	if c := code(res.Header.Get("X-Ms-Error-Code")); c != "" {
		what += " " + c
		if c == "BlobNotFound" {
			return fmt.Errorf("%s: %w", b.Container, os.ErrNotExist)
		}
	}
	check := "look at the account"
	switch res.StatusCode {
	case http.StatusForbidden, http.StatusUnauthorized:
		check = "give the app's managed identity the role Storage Blob Data Contributor on the container, and look at the account's firewall"
	case http.StatusNotFound:
		check = "the container does not exist"
	}
	return fmt.Errorf("the container %s answered %s: %s", b.Container, what, check)
}
