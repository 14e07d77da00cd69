package harness

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// SignAWS signs a request to "/" without a query with AWS Signature Version 4
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).
// It is written apart from the code under test, so that one checks the other.
// All headers set before are signed.
func SignAWS(req *http.Request, body string, cred AWSCredentials, region, service string, at time.Time) {
	stamp := at.UTC().Format("20060102T150405Z")
	scope := strings.Join([]string{stamp[:8], region, service, "aws4_request"}, "/")
	req.Header.Set("X-Amz-Date", stamp)
	if cred.SessionToken != "" {
		req.Header.Set("X-Amz-Security-Token", cred.SessionToken)
	}
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	lines := []string{"host:" + host}
	names := []string{"host"}
	for name, values := range req.Header {
		name = strings.ToLower(name)
		names = append(names, name)
		lines = append(lines, name+":"+strings.Join(values, ","))
	}
	slices.Sort(names)
	slices.SortFunc(lines, func(a, b string) int {
		na, _, _ := strings.Cut(a, ":")
		nb, _, _ := strings.Cut(b, ":")
		return strings.Compare(na, nb)
	})
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{req.Method, "/", "", strings.Join(lines, "\n") + "\n", signed, hexSHA(body)}, "\n")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hexSHA(canonical)}, "\n")

	key := []byte("AWS4" + cred.SecretAccessKey)
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x",
		cred.AccessKeyID, scope, signed, mac(key, text)))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexSHA(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
