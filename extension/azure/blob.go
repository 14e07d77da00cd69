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

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/thaw-project/thaw/extension/config"
)

// Blobs keeps backups of the warm-up as block blobs of one container.
type Blobs struct {
	Container  string      // https://ACCOUNT.blob.core.windows.net/CONTAINER
	Credential *Credential // nil: the app has no managed identity, and each call fails
}

// Write puts a blob in one request, of up to 5000 MiB
// (https://learn.microsoft.com/en-us/rest/api/storageservices/put-blob).
func (b *Blobs) Write(ctx context.Context, name string, from *os.File, size int64, _ [sha256.Size]byte) error {
	client, err := b.client(name)
	if err != nil {
		return err
	}
	_, err = client.Upload(ctx, streaming.NopCloser(io.NewSectionReader(from, 0, size)), nil)
	return b.refusal(err)
}

// Read gets a blob (https://learn.microsoft.com/en-us/rest/api/storageservices/get-blob).
// An error that is os.ErrNotExist: there is none.
func (b *Blobs) Read(ctx context.Context, name string) (io.ReadCloser, error) {
	client, err := b.client(name)
	if err != nil {
		return nil, err
	}
	res, err := client.DownloadStream(ctx, nil)
	if err != nil {
		return nil, b.refusal(err)
	}
	return res.Body, nil
}

// client is one for a blob of the container.
func (b *Blobs) client(name string) (*blockblob.Client, error) {
	u, err := url.Parse(b.Container)
	if err != nil || !config.IsBlobStore(u) {
		return nil, fmt.Errorf("THAW_DUMP: %w", errForeign)
	}
	if b.Credential == nil {
		return nil, fmt.Errorf("THAW_DUMP: %w", ErrNoIdentity)
	}
	return blockblob.NewClient(u.JoinPath(name).String(), b.Credential, &blockblob.ClientOptions{ClientOptions: b.Credential.clientOptions()})
}

// refusal says what to check.
func (b *Blobs) refusal(err error) error {
	if err == nil {
		return nil
	}
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		return fmt.Errorf("reach Blob storage at %s: %w", b.Container, err)
	}
	if answer.ErrorCode == "BlobNotFound" {
		return fmt.Errorf("%s: %w", b.Container, os.ErrNotExist)
	}
	check := "look at the account"
	switch answer.StatusCode {
	case http.StatusForbidden, http.StatusUnauthorized:
		check = "give the app's managed identity the role Storage Blob Data Contributor on the container, and look at the account's firewall"
	case http.StatusNotFound:
		check = "the container does not exist"
	}
	return answered("the container "+b.Container, answer, check)
}
