// Package bucket keeps the warm-up's backups in S3. It is a package of its own,
// since only programs that link it carry AWS's S3 client.
package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/functions/warmup"
)

// Bucket keeps backups as objects of one bucket.
type Bucket struct {
	name   string
	client *s3.Client
}

var _ warmup.Place = (*Bucket)(nil)

// New does no I/O. endpoint is another S3 than AWS's, with the bucket in the path; empty:
// AWS.
func New(name, endpoint string, o s3.Options) *Bucket {
	// Write gives a checksum of its own; others than AWS may know none by default.
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	if endpoint != "" {
		o.BaseEndpoint, o.UsePathStyle = aws.String(strings.TrimRight(endpoint, "/")), true
	}
	return &Bucket{name, s3.New(o)}
}

// Of is the bucket of THAW_DUMP, reached as the settings say.
func Of(cfg config.Config, name string) warmup.Place {
	k := cfg.Platform.AWS
	return New(name, k.Endpoint, s3.Options{
		Region:     cfg.Platform.Region,
		HTTPClient: &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{Proxy: cfg.EnvProxy, TLSHandshakeTimeout: 2 * cfg.ConnTimeout}},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			if k.AccessKeyID == "" || k.SecretAccessKey == "" {
				return aws.Credentials{}, errors.New("there are no AWS credentials in the environment for THAW_DUMP: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")
			}
			return aws.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: string(k.SecretAccessKey), SessionToken: string(k.SessionToken)}, nil
		}),
	})
}

var errNoRegion = errors.New("the region of THAW_DUMP's bucket is not known: set AWS_REGION")

// Write puts the object.
func (s *Bucket) Write(ctx context.Context, name string, from *os.File, size int64, sum [sha256.Size]byte) error {
	if s.client.Options().Region == "" {
		return errNoRegion
	}
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.name, Key: &name, Body: from, ContentLength: &size, ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	})
	return s.refusal(err)
}

// Read gets the object. An error that is os.ErrNotExist: there is none.
func (s *Bucket) Read(ctx context.Context, name string) (io.ReadCloser, error) {
	if s.client.Options().Region == "" {
		return nil, errNoRegion
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.name, Key: &name})
	if err != nil {
		return nil, s.refusal(err)
	}
	return out.Body, nil
}

// refusal says what to check. S3's own text may name keys, never secrets; its
// code is enough.
func (s *Bucket) refusal(err error) error {
	var answer *awshttp.ResponseError
	if err == nil || !errors.As(err, &answer) || answer.HTTPStatusCode() == 0 {
		return err
	}
	if answer.HTTPStatusCode() == http.StatusNotFound {
		return fmt.Errorf("s3://%s: %w", s.name, os.ErrNotExist)
	}
	code := ""
	if api, ok := errors.AsType[smithy.APIError](err); ok && !strings.ContainsFunc(api.ErrorCode(), func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' }) {
		code = api.ErrorCode()[:min(64, len(api.ErrorCode()))]
	}
	return fmt.Errorf("S3 answered %d %s: check that the function's role may s3:GetObject and s3:PutObject in the bucket %s", answer.HTTPStatusCode(), code, s.name)
}
