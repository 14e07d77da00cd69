package sts

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// The worked example of AWS's documentation ("Create a signed AWS API
// request", IAM ListUsers).
func TestSignatureMatchesTheDocumentedExample(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "http://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", nil)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r.Header.Set("X-Amz-Date", "20150830T123600Z")
	a := authorization{date: "20150830", region: "us-east-1", service: "iam", signed: []string{"content-type", "host", "x-amz-date"}}
	request := canonical(r, a, hash(nil))
	if got, want := hash([]byte(request)), "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"; got != want {
		t.Fatalf("canonical request hashes to %s, want %s:\n%s", got, want, request)
	}
	key := signingKey("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", a)
	toSign := algorithm + "\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n" + hash([]byte(request))
	if got, want := hex.EncodeToString(mac(key, toSign)), "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"; got != want {
		t.Fatalf("signature %s, want %s", got, want)
	}
}

const identity = "Action=GetCallerIdentity&Version=2011-06-15"

// send signs a form with the SDK's signer and sends it; bend changes the signed
// request.
func send(t *testing.T, s *Server, k Keys, form string, region, service string, at time.Time, bend func(*http.Request)) (int, string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://sts.amazonaws.com/", strings.NewReader(form))
	req.RequestURI = ""
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Vault-AWS-IAM-Server-ID", "vault.example")
	creds := aws.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, req, hash([]byte(form)), service, region, at); err != nil {
		t.Fatal(err)
	}
	if bend != nil {
		bend(req)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, req)
	if ct := w.Header().Get("Content-Type"); ct != "text/xml" {
		t.Errorf("content type %q, want text/xml", ct)
	}
	return w.Code, w.Body.String()
}

func TestAcceptsWhatIsSignedProperlyAndNothingElse(t *testing.T) {
	t.Parallel()
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	s := New(Options{Region: "eu-west-1", Now: func() time.Time { return now }})
	s.Role("/", "fn")
	k := s.Session("fn", "app", time.Hour)
	old := s.Session("fn", "app", -time.Minute)
	wrong := k
	wrong.SecretAccessKey = "another"
	noToken := k
	noToken.SessionToken = ""
	for name, c := range map[string]struct {
		keys    Keys
		form    string
		region  string
		service string
		at      time.Time
		bend    func(*http.Request)
		status  int
		text    string
	}{
		"proper":               {status: 200, text: ":assumed-role/fn/app</Arn>"},
		"path of two slashes":  {bend: func(r *http.Request) { r.URL.Path = "//" }, status: 200},
		"another secret":       {keys: wrong, status: 403, text: "SignatureDoesNotMatch"},
		"another region":       {region: "us-east-1", status: 403, text: "scoped to a valid region"},
		"another service":      {service: "s3", status: 403, text: "correct service"},
		"scope of IAM":         {region: "us-east-1", service: "iam", status: 403, text: "correct service: "},
		"16 minutes old":       {at: now.Add(-16 * time.Minute), status: 403, text: "Signature expired"},
		"16 minutes ahead":     {at: now.Add(16 * time.Minute), status: 403, text: "not yet current"},
		"14 minutes old":       {at: now.Add(-14 * time.Minute), status: 200},
		"expired keys":         {keys: old, status: 403, text: "ExpiredToken"},
		"session token left":   {keys: noToken, status: 403, text: "InvalidClientTokenId"},
		"no signature":         {bend: func(r *http.Request) { r.Header.Del("Authorization") }, status: 403, text: "MissingAuthenticationToken"},
		"broken authorization": {bend: func(r *http.Request) { r.Header.Set("Authorization", algorithm+" Credential=a") }, status: 400, text: "IncompleteSignature"},
		"another host":         {bend: func(r *http.Request) { r.Host = "sts.evil.example" }, status: 403, text: "does not match"},
		"another body":         {bend: func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(identity + "&")) }, status: 403, text: "does not match"},
		"another server id":    {bend: func(r *http.Request) { r.Header.Set("X-Vault-AWS-IAM-Server-ID", "other") }, status: 403, text: "does not match"},
		"unsigned x-amz":       {bend: func(r *http.Request) { r.Header.Set("X-Amz-Target", "x") }, status: 403, text: "in the AWS Authorization"},
		"another action":       {form: "Action=GetSessionToken&Version=2011-06-15", status: 400, text: "InvalidAction"},
		"another version":      {form: "Action=GetCallerIdentity&Version=2010-05-08", status: 400, text: "InvalidAction"},
		"no action":            {form: "Version=2011-06-15", status: 400, text: "MissingAction"},
		"a stray parameter":    {form: identity + "&X=1", status: 400, text: "unexpected parameter"},
		"an action twice":      {form: identity + "&Action=AssumeRole", status: 400, text: "more than once"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.keys, c.form = orKeys(c.keys, k), or(c.form, identity)
			if c.at.IsZero() {
				c.at = now
			}
			status, body := send(t, s, c.keys, c.form, or(c.region, "eu-west-1"), or(c.service, "sts"), c.at, c.bend)
			if status != c.status || !strings.Contains(body, c.text) {
				t.Errorf("got %d %s, want %d with %q", status, body, c.status, c.text)
			}
		})
	}
}

func TestAssumeRoleNeedsTrustAndItsKeysExpire(t *testing.T) {
	t.Parallel()
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	s := New(Options{Now: func() time.Time { return now }})
	fn := s.Role("/service-role/", "fn")
	target := s.Role("/", "target")
	k := s.Session("fn", "app", 12*time.Hour)
	form := url.Values{"Action": {"AssumeRole"}, "Version": {"2011-06-15"}, "RoleArn": {target}, "RoleSessionName": {"vault_auth"}}.Encode()
	if status, body := send(t, s, k, form, "us-east-1", "sts", now, nil); status != 403 || !strings.Contains(body, "AccessDenied") {
		t.Fatalf("without trust: %d %s", status, body)
	}
	s.Trust("target", fn)
	status, body := send(t, s, k, form, "us-east-1", "sts", now, nil)
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	given := Keys{AccessKeyID: between(body, "AccessKeyId"), SecretAccessKey: between(body, "SecretAccessKey"), SessionToken: between(body, "SessionToken")}
	if status, body := send(t, s, given, identity, "us-east-1", "sts", now, nil); status != 200 || !strings.Contains(body, ":assumed-role/target/vault_auth") {
		t.Fatalf("%d %s", status, body)
	}
	now = now.Add(time.Hour)
	if status, body := send(t, s, given, identity, "us-east-1", "sts", now, nil); status != 403 || !strings.Contains(body, "ExpiredToken") {
		t.Fatalf("after an hour: %d %s", status, body)
	}
}

func TestDescribesPrincipalsAsVaultAsks(t *testing.T) {
	t.Parallel()
	s := New(Options{Region: "eu-central-1"})
	s.Role("/service-role/", "fn")
	k := s.User("/", "vault")
	for form, want := range map[string]string{
		"Action=GetRole&RoleName=fn&Version=2010-05-08":         "<Arn>arn:aws:iam::123456789012:role/service-role/fn</Arn>",
		"Action=GetUser&UserName=vault&Version=2010-05-08":      "<Arn>arn:aws:iam::123456789012:user/vault</Arn>",
		"Action=GetRole&RoleName=none&Version=2010-05-08":       "NoSuchEntity",
		"Action=GetRole&Other=1&RoleName=fn&Version=2010-05-08": "unexpected parameter",
	} {
		if _, body := send(t, s, k, form, "us-east-1", "iam", time.Now(), nil); !strings.Contains(body, want) {
			t.Errorf("%s: got %s, want %q", form, body, want)
		}
	}
}

func FuzzParseAuthorization(f *testing.F) {
	f.Add(algorithm + " Credential=AKIA/20240506/us-east-1/sts/aws4_request, SignedHeaders=host;x-amz-date, Signature=00")
	f.Add(algorithm + " Credential=,SignedHeaders=,Signature=")
	f.Fuzz(func(t *testing.T, h string) {
		a, f := parseAuthorization(h)
		if f == nil && (len(a.signed) == 0 || a.signature == "") {
			t.Errorf("accepted %q as %+v", h, a)
		}
	})
}

func between(text, name string) string {
	_, rest, _ := strings.Cut(text, "<"+name+">")
	inner, _, _ := strings.Cut(rest, "</"+name+">")
	return inner
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func orKeys(a, b Keys) Keys {
	if a.AccessKeyID == "" {
		return b
	}
	return a
}
