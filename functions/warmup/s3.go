package warmup

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

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// S3Options configure an S3.
type S3Options struct {
	Bucket      string
	Region      string
	Endpoint    string // another S3 than AWS's, with the bucket in the path; empty: AWS
	Credentials aws.CredentialsProvider
	HTTP        *http.Client
}

// S3 keeps backups as objects of one bucket.
type S3 struct {
	bucket, region string
	client         *s3.Client
}

var _ Place = (*S3)(nil)

// NewS3 does no I/O.
func NewS3(o S3Options) *S3 {
	options := s3.Options{
		Region: o.Region, Credentials: o.Credentials, HTTPClient: o.HTTP,
		// Write gives a checksum of its own; others than AWS may know none by default.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	if o.Endpoint != "" {
		options.BaseEndpoint, options.UsePathStyle = aws.String(strings.TrimRight(o.Endpoint, "/")), true
	}
	return &S3{bucket: o.Bucket, region: o.Region, client: s3.New(options)}
}

var errNoRegion = errors.New("the region of THAW_DUMP's bucket is not known: set AWS_REGION")

// Write puts the object.
func (s *S3) Write(ctx context.Context, name string, from *os.File, size int64, sum [sha256.Size]byte) error {
	if s.region == "" {
		return errNoRegion
	}
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.bucket, Key: &name, Body: from, ContentLength: &size, ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	})
	return s.refusal(err)
}

// Read gets the object. An error that is os.ErrNotExist: there is none.
func (s *S3) Read(ctx context.Context, name string) (io.ReadCloser, error) {
	if s.region == "" {
		return nil, errNoRegion
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: &name})
	if err != nil {
		return nil, s.refusal(err)
	}
	return out.Body, nil
}

// refusal says what to check. S3's own text may name keys, never secrets; its
// code is enough.
func (s *S3) refusal(err error) error {
	var answer *awshttp.ResponseError
	if err == nil || !errors.As(err, &answer) || answer.HTTPStatusCode() == 0 {
		return err
	}
	if answer.HTTPStatusCode() == http.StatusNotFound {
		return fmt.Errorf("s3://%s: %w", s.bucket, os.ErrNotExist)
	}
	code := ""
	if api, ok := errors.AsType[smithy.APIError](err); ok && !strings.ContainsFunc(api.ErrorCode(), func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' }) {
		code = api.ErrorCode()[:min(64, len(api.ErrorCode()))]
	}
	return fmt.Errorf("S3 answered %d %s: check that the function's role may s3:GetObject and s3:PutObject in the bucket %s", answer.HTTPStatusCode(), code, s.bucket)
}
