package warmup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Files keeps backups in files, 0600, replaced at once.
type Files struct{}

var _ Place = Files{}

// Write copies beside the old file and renames.
func (Files) Write(_ context.Context, name string, from *os.File, _ int64, _ [sha256.Size]byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	to, err := os.CreateTemp(filepath.Dir(name), ".thaw-backup-")
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Rename(to.Name(), name)
	}
	if err != nil {
		_ = os.Remove(to.Name())
	}
	return err
}

// Read opens the file.
func (Files) Read(_ context.Context, name string) (io.ReadCloser, error) { return os.Open(name) }

// S3 keeps backups as objects of one bucket. It signs requests itself: of the
// SDK only the signer is linked.
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
type S3 struct {
	Bucket      string
	Region      string
	Endpoint    string                                         // another S3 than AWS's, with the bucket in the path; empty: AWS
	Credentials func(context.Context) (aws.Credentials, error) //
	HTTP        *http.Client
	Now         func() time.Time
}

var _ Place = (*S3)(nil)

// Write puts the object.
func (s *S3) Write(ctx context.Context, name string, from *os.File, size int64, sum [sha256.Size]byte) error {
	res, err := s.send(ctx, http.MethodPut, name, io.NopCloser(from), size, hex.EncodeToString(sum[:]))
	if err != nil {
		return err
	}
	return s.done(res)
}

// Read gets the object.
func (s *S3) Read(ctx context.Context, name string) (io.ReadCloser, error) {
	empty := sha256.Sum256(nil)
	res, err := s.send(ctx, http.MethodGet, name, nil, 0, hex.EncodeToString(empty[:]))
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	return nil, s.done(res)
}

func (s *S3) send(ctx context.Context, method, name string, body io.ReadCloser, size int64, sum string) (*http.Response, error) {
	u, err := s.object(name)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	req.Header.Set("X-Amz-Content-Sha256", sum)
	keys, err := s.Credentials(ctx)
	if err != nil {
		return nil, err
	}
	// S3 signs the path as it is sent, encoded once.
	err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(ctx, keys, req, sum, "s3", s.Region, s.Now())
	if err != nil {
		return nil, fmt.Errorf("sign the request to S3: %w", err)
	}
	return s.HTTP.Do(req)
}

func (s *S3) object(name string) (string, error) {
	if s.Region == "" {
		return "", errors.New("the region of THAW_DUMP's bucket is not known: set AWS_REGION")
	}
	base := "https://" + s.Bucket + ".s3." + s.Region + ".amazonaws.com"
	switch {
	case s.Endpoint != "":
		base = strings.TrimRight(s.Endpoint, "/") + "/" + s.Bucket
	case strings.HasPrefix(s.Region, "cn-"):
		base += ".cn"
	}
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("the address of S3: %w", err)
	}
	u.Path = strings.TrimRight(u.Path, "/") + "/" + name
	return u.String(), nil
}

// done ends an answer, with an error unless it is a success. S3's own text may
// name keys, never secrets; its code is enough.
func (s *S3) done(res *http.Response) error {
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	switch {
	case res.StatusCode < 300:
		return nil
	case res.StatusCode == http.StatusNotFound:
		return fmt.Errorf("s3://%s: %w", s.Bucket, os.ErrNotExist)
	}
	_, code, _ := strings.Cut(string(text), "<Code>")
	code, _, _ = strings.Cut(code, "</Code>")
	if len(code) > 64 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" {
		code = ""
	}
	return fmt.Errorf("S3 answered %d %s: check that the function's role may s3:GetObject and s3:PutObject in the bucket %s", res.StatusCode, code, s.Bucket)
}
