package kms

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/thaw-project/thaw/extension/config"
	fake "github.com/thaw-project/thaw/tests/fakes/kms"
	"github.com/thaw-project/thaw/tests/harness"
)

var planted = []byte("PlantedSecret-0123456789abcdefgh")

// ours is not the default transport, of which each test server that closes closes the idle
// connections. That breaks off a request whose answer has no body.
var ours = &http.Transport{}

// client makes a Client of a KMS at url.
func client(t *testing.T, url, region string, k harness.AWSCredentials) *Client {
	t.Helper()
	c, err := New(Options{
		AWS: config.AWS{EndpointKMS: url}, Region: region, HTTP: &http.Client{Timeout: 10 * time.Second, Transport: ours},
		Credentials: func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func keysOf(session string) harness.AWSCredentials {
	return harness.AWSCredentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "PlantedSecret-key", SessionToken: session}
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// check fails the test where an error shows what it must not.
func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q in it", name, err, want)
	}
	if s := fmt.Sprintf("%v %+v", err, err); strings.Contains(s, "PlantedSecret") || strings.Contains(s, base64.StdEncoding.EncodeToString(planted)) {
		t.Errorf("%s: the error shows a secret: %s", name, s)
	}
}

func TestDataKeysAreDecryptedInOrder(t *testing.T) {
	t.Parallel()
	for _, session := range []string{"", "a/session+token=="} {
		server := fake.New(fake.Options{Region: "eu-west-1", Keys: keysOf(session)})
		c := client(t, serve(t, server), "eu-west-1", keysOf(session))
		audience := map[string]string{"audience": `"aws","r<&>","fn"`}
		second := bytes.Repeat([]byte("2"), KeySize)
		got, err := c.DataKeys(t.Context(), [][]byte{server.Encrypt(planted, audience), server.Encrypt(second, audience)}, audience["audience"])
		if err != nil || len(got) != 2 || got[0] != [KeySize]byte(planted) || got[1] != [KeySize]byte(second) {
			t.Errorf("%v, %d keys; faults %q", err, len(got), server.Faults())
		}
	}
}

func TestRefusalsSayWhatToCheckAndNoSecret(t *testing.T) {
	t.Parallel()
	shop := map[string]string{"audience": "shop"}
	for name, c := range map[string]struct {
		wrapped func(s *fake.Server) []byte
		region  string
		keys    harness.AWSCredentials
		change  func(s *fake.Server)
		want    string
	}{
		"another audience": {wrapped: func(s *fake.Server) []byte { return s.Encrypt(planted, map[string]string{"audience": "bank"}) }, want: "encryption context audience=shop"},
		"no context":       {wrapped: func(s *fake.Server) []byte { return s.Encrypt(planted, nil) }, want: "encryption context"},
		"more context": {wrapped: func(s *fake.Server) []byte {
			return s.Encrypt(planted, map[string]string{"audience": "shop", "x": "y"})
		}, want: "encryption context"},
		"damaged":             {wrapped: func(*fake.Server) []byte { return []byte("PlantedSecret") }, want: "damaged"},
		"too short":           {wrapped: func(s *fake.Server) []byte { return s.Encrypt(planted[:16], shop) }, want: "16 bytes and needs 32"},
		"too long":            {wrapped: func(s *fake.Server) []byte { return s.Encrypt(append(planted[:32:32], 'x'), shop) }, want: "33 bytes"},
		"empty":               {wrapped: func(s *fake.Server) []byte { return s.Encrypt(nil, shop) }, want: "no KMS"},
		"disabled":            {change: func(s *fake.Server) { s.SetDisabled(true) }, want: "disabled"},
		"away":                {change: func(s *fake.Server) { s.SetAway(true) }, want: "answered 503"},
		"another region":      {region: "eu-west-2", want: "InvalidSignatureException"},
		"another secret key":  {keys: harness.AWSCredentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "PlantedSecret-other"}, want: "AWS credentials of this function"},
		"no session token":    {keys: harness.AWSCredentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "PlantedSecret-key", SessionToken: "PlantedSecret"}, want: "UnrecognizedClientException"},
		"another access key":  {keys: harness.AWSCredentials{AccessKeyID: "ASIAOTHER", SecretAccessKey: "PlantedSecret-key"}, want: "InvalidSignatureException"},
		"the second is wrong": {want: "key 2 of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := fake.New(fake.Options{Keys: keysOf("")})
			if c.change != nil {
				c.change(server)
			}
			wrapped := [][]byte{server.Encrypt(planted, shop), []byte("x")}
			if c.wrapped != nil {
				wrapped = [][]byte{c.wrapped(server)}
			}
			keys := c.keys
			if keys.AccessKeyID == "" {
				keys = keysOf("")
			}
			if c.region == "" {
				c.region = "us-east-1"
			}
			got, err := client(t, serve(t, server), c.region, keys).DataKeys(t.Context(), wrapped, "shop")
			check(t, name, err, c.want)
			if got != nil {
				t.Error("keys came along")
			}
		})
	}
}

func TestHostileAnswersAreRefused(t *testing.T) {
	t.Parallel()
	b64 := base64.StdEncoding.EncodeToString(planted)
	elsewhere := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the signed request was sent elsewhere")
		w.WriteHeader(http.StatusOK)
	}))
	for name, c := range map[string]struct {
		status     int
		body, want string
	}{
		"not JSON":         {200, "PlantedSecret", "no KMS"},
		"cut":              {200, `{"Plaintext":"` + b64, "no KMS"},
		"a number":         {200, `{"Plaintext":1234}`, "no KMS"},
		"not base64":       {200, `{"Plaintext":"PlantedSecret!"}`, "no KMS"},
		"nothing":          {200, `{}`, "no KMS"},
		"endless":          {200, `{"Plaintext":"` + strings.Repeat(b64, 4000) + `"}`, "no KMS"},
		"key in the error": {400, `{"__type":"` + b64 + `","message":"` + b64 + `","Plaintext":"` + b64 + `"}`, "answered 400"},
		"a long code":      {400, `{"__type":"` + strings.Repeat("PlantedSecret", 10) + `"}`, "answered 400"},
		"a namespace":      {400, `{"__type":"com.amazonaws.kms#AccessDeniedException","Message":"PlantedSecret"}`, "allow this function's role kms:Decrypt"},
		"a redirect":       {307, ``, "answered 307"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", elsewhere)
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			_, err := client(t, url, "us-east-1", keysOf("")).DataKeys(t.Context(), [][]byte{[]byte("PlantedSecret")}, "shop")
			check(t, name, err, c.want)
		})
	}
}

func TestTheHeaderTellsTheCodeToo(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"NotFoundException:http://internal.amazon.com/x": "NotFoundException", "NotFoundException": "NotFoundException", "a b": "", "": "",
	} {
		if got := code("", header); got != want {
			t.Errorf("%q: %q", header, got)
		}
	}
}

func TestEndpointsFollowRegionPartitionAndFIPS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		region string
		aws    config.AWS
		want   string // empty: an error
	}{
		{"eu-west-1", config.AWS{}, "https://kms.eu-west-1.amazonaws.com/"},
		{"us-west-2", config.AWS{UseFIPS: true}, "https://kms-fips.us-west-2.amazonaws.com/"},
		{"us-gov-west-1", config.AWS{}, "https://kms.us-gov-west-1.amazonaws.com/"},
		{"us-gov-east-1", config.AWS{UseFIPS: true}, "https://kms-fips.us-gov-east-1.amazonaws.com/"},
		{"cn-north-1", config.AWS{}, "https://kms.cn-north-1.amazonaws.com.cn/"},
		{"us-iso-east-1", config.AWS{}, "https://kms.us-iso-east-1.c2s.ic.gov/"},
		{"eu-west-1", config.AWS{EndpointKMS: "https://vpce-1.kms.eu-west-1.vpce.amazonaws.com", UseFIPS: true}, "https://vpce-1.kms.eu-west-1.vpce.amazonaws.com/"},
		{"eu-west-1", config.AWS{EndpointKMS: "ftp://kms"}, ""},
		{"eu-west-1", config.AWS{EndpointKMS: "https://u:PlantedSecret@kms"}, ""},
		{"eu-west-1.evil.example/", config.AWS{}, ""},
		{"", config.AWS{EndpointKMS: "https://kms"}, ""},
	} {
		k, err := New(Options{AWS: c.aws, Region: c.region, HTTP: &http.Client{Transport: ours}})
		if c.want == "" {
			check(t, c.region, err, "AWS_")
		} else if err != nil || k.url.String() != c.want {
			t.Errorf("%+v: %v, %v", c, k, err)
		}
	}
}

func TestAnUnreachableKMSIsAnErrorWithinTheContext(t *testing.T) {
	t.Parallel()
	hanging := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice who hangs up
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := client(t, hanging, "us-east-1", keysOf("")).DataKeys(ctx, [][]byte{[]byte("x")}, "shop")
	check(t, "hanging", err, "reach KMS")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
