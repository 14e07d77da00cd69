package harness

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const callerIdentity = "Action=GetCallerIdentity&Version=2011-06-15"

// identityRequest is the signed request that Vault's aws login carries.
func identityRequest(t *testing.T, addr string, cred AWSCredentials, header http.Header) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, addr+"/", strings.NewReader(callerIdentity))
	Must(t, err)
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	SignAWS(req, callerIdentity, cred, "us-east-1", "sts", time.Now())
	return req
}

func TestMotoChecksSignatures(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := AWS(t)
	arn, err := m.CreateRole(ctx, "lambda")
	Must(t, err)
	role, err := m.AssumeRole(ctx, arn, "fn")
	Must(t, err)
	Must(t, m.EnableSignatureChecks(ctx))

	wrong := m.Admin
	wrong.SecretAccessKey += "x"
	for _, c := range []struct {
		name string
		cred AWSCredentials
		want int
	}{
		{"a user's key", m.Admin, 200},
		{"a role's temporary key", role, 200},
		{"a wrong secret", wrong, 403},
		{"an unknown key", AWSCredentials{AccessKeyID: "AKIAUNKNOWN", SecretAccessKey: "x"}, 403},
	} {
		resp, err := m.client.Do(identityRequest(t, m.Addr(), c.cred, nil))
		Must(t, err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: status %d, want %d: %s", c.name, resp.StatusCode, c.want, body)
		}
	}
}

// TestVaultLogsInThroughMoto is the whole path of an aws login: a request for
// our own identity, signed here, sent by Vault to STS, matched with a role.
func TestVaultLogsInThroughMoto(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m, v := AWS(t), Dev(t)
	arn, err := m.CreateRole(ctx, "lambda")
	Must(t, err)
	cred, err := m.AssumeRole(ctx, arn, "fn")
	Must(t, err)
	Must(t, m.EnableSignatureChecks(ctx), v.EnableAuth(ctx, "aws", "aws"),
		v.AWSConfig(ctx, "aws", m, "us-east-1", "vault.example.com"),
		v.AWSRole(ctx, "aws", "fn", []string{arn}, RoleSpec{Policies: []string{"default"}, Batch: true}))

	for _, c := range []struct{ name, serverID, tamper, want string }{
		{"as it should be", "vault.example.com", "", "hvb."},
		{"another server id", "other.example.com", "", "expected \\\"vault.example.com\\\""},
		{"a changed signature", "vault.example.com", "0", "status 4"},
	} {
		req := identityRequest(t, "https://sts.amazonaws.com", cred, http.Header{"X-Vault-Aws-Iam-Server-Id": {c.serverID}})
		req.Header.Set("Authorization", req.Header.Get("Authorization")+c.tamper)
		headers, err := json.Marshal(req.Header)
		Must(t, err)
		b64 := base64.StdEncoding.EncodeToString
		r, err := v.Do(ctx, Call{Method: http.MethodPost, Path: "auth/aws/login", Body: map[string]string{
			"role":                    "fn",
			"iam_http_request_method": "POST",
			"iam_request_url":         b64([]byte("https://sts.amazonaws.com/")),
			"iam_request_body":        b64([]byte(callerIdentity)),
			"iam_request_headers":     b64(headers),
		}})
		Must(t, err)
		if got := fmt.Sprintf("status %d %s", r.Status, r.Body); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// TestSignAWSMatchesTheDocumentedSignature is the example of AWS's test suite
// for Signature Version 4 (post-x-www-form-urlencoded).
func TestSignAWSMatchesTheDocumentedSignature(t *testing.T) {
	t.Parallel()
	req := &http.Request{
		Method: http.MethodPost, Host: "example.amazonaws.com", URL: &url.URL{Path: "/"},
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	}
	cred := AWSCredentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
	SignAWS(req, "Param1=value1", cred, "us-east-1", "service", time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC))
	const want = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, " +
		"SignedHeaders=content-type;host;x-amz-date, Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
	if got := req.Header.Get("Authorization"); got != want {
		t.Errorf("Authorization:\n got %s\nwant %s", got, want)
	}
}
