package bucket

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func TestS3RefusesWhatItCannotBe(t *testing.T) {
	t.Parallel()
	var asked string
	client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		asked = r.URL.String()
		return &http.Response{StatusCode: http.StatusForbidden, Body: io.NopCloser(strings.NewReader("<Error><Code>AccessDenied</Code><Message>PlantedKey</Message></Error>"))}, nil
	})}
	keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "x"}, nil
	})
	open := func(region, endpoint string) *Bucket {
		return New("bucket", endpoint, s3.Options{Region: region, HTTPClient: client, Credentials: keys})
	}
	if _, err := open("", "").Read(t.Context(), "key"); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("no region: %v", err)
	}
	for _, c := range []struct{ region, endpoint, want string }{
		{"eu-west-1", "", "https://bucket.s3.eu-west-1.amazonaws.com/a%20b/c"},
		{"cn-north-1", "", "https://bucket.s3.cn-north-1.amazonaws.com.cn/a%20b/c"},
		{"eu-west-1", "http://127.0.0.1:9000/", "http://127.0.0.1:9000/bucket/a%20b/c"},
	} {
		_, err := open(c.region, c.endpoint).Read(t.Context(), "a b/c")
		if got := strings.TrimSuffix(asked, "?x-id=GetObject"); got != c.want {
			t.Errorf("%s: %s", c.region, got)
		}
		if err == nil || !strings.Contains(err.Error(), "S3 answered 403 AccessDenied: check that") || strings.Contains(err.Error(), "Planted") {
			t.Errorf("%s: %v", c.region, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
