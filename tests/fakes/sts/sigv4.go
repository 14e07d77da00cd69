package sts

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm = "AWS4-HMAC-SHA256"
	dateForm  = "20060102T150405Z"
	skew      = 15 * time.Minute // how far a signature's date may be off
)

func wrongScope(message string) *fault {
	return &fault{http.StatusForbidden, "SignatureDoesNotMatch", message}
}

func incomplete(message string) *fault {
	return &fault{http.StatusBadRequest, "IncompleteSignature", message}
}

// authorization is a parsed Authorization header.
type authorization struct {
	id, date, region, service string
	signed                    []string // lower-case header names, sorted
	signature                 string   // hex
}

// parseAuthorization reads "AWS4-HMAC-SHA256 Credential=<id>/<date>/<region>/<service>/aws4_request,
// SignedHeaders=<a;b>, Signature=<hex>".
func parseAuthorization(header string) (authorization, *fault) {
	var a authorization
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return a, incomplete("Unsupported AWS 'algorithm'")
	}
	parts := map[string]string{}
	for p := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(p), "=")
		if _, twice := parts[name]; !ok || twice {
			return a, incomplete("'" + p + "' not a valid key=value pair (missing equal-sign) in Authorization header")
		}
		parts[name] = value
	}
	if len(parts) != 3 || parts["Credential"] == "" || parts["SignedHeaders"] == "" || parts["Signature"] == "" {
		return a, incomplete("Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters.")
	}
	c := strings.Split(parts["Credential"], "/")
	if len(c) != 5 {
		return a, incomplete("Credential must have exactly 5 slash-delimited elements")
	}
	if c[4] != "aws4_request" {
		return a, wrongScope("Credential should be scoped with a valid terminator: 'aws4_request', not '" + c[4] + "'. ")
	}
	a = authorization{id: c[0], date: c[1], region: c[2], service: c[3], signed: strings.Split(parts["SignedHeaders"], ";"), signature: parts["Signature"]}
	if !slices.IsSorted(a.signed) || len(slices.Compact(slices.Clone(a.signed))) != len(a.signed) {
		return a, incomplete("SignedHeaders must be sorted, each once")
	}
	return a, nil
}

// verify recomputes a request's signature and returns whose it is.
func (s *Server) verify(r *http.Request, body []byte) (*key, string, *fault) {
	headers := r.Header.Values("Authorization")
	if len(headers) != 1 {
		return nil, "", &fault{http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token"}
	}
	a, f := parseAuthorization(headers[0])
	if f != nil {
		return nil, "", f
	}
	if s.o.Host != "" && r.Host != s.o.Host {
		return nil, "", wrongScope("the request is addressed to another host")
	}
	if f := s.checkScope(a); f != nil {
		return nil, "", f
	}
	if f := checkSigned(r, a); f != nil {
		return nil, "", f
	}
	when := r.Header.Get("X-Amz-Date")
	if f := s.checkDate(when, a); f != nil {
		return nil, "", f
	}
	s.mu.Lock()
	k := s.keys[a.id]
	s.mu.Unlock()
	if k == nil || k.SessionToken != r.Header.Get("X-Amz-Security-Token") {
		return nil, "", &fault{http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid."}
	}
	if !k.Expires.IsZero() && !s.o.Now().Before(k.Expires) {
		return nil, "", &fault{http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired"}
	}
	sum := hash(body)
	if h := r.Header.Get("X-Amz-Content-Sha256"); h != "" && h != sum {
		return nil, "", wrongScope("the body is not the one that was signed")
	}
	scope := a.date + "/" + a.region + "/" + a.service + "/aws4_request"
	toSign := algorithm + "\n" + when + "\n" + scope + "\n" + hash([]byte(canonical(r, a, sum)))
	want := hex.EncodeToString(mac(signingKey(k.SecretAccessKey, a), toSign))
	if !hmac.Equal([]byte(want), []byte(a.signature)) {
		return nil, "", wrongScope("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return k, a.service, nil
}

// checkScope checks region and service: IAM is global and signed for us-east-1.
func (s *Server) checkScope(a authorization) *fault {
	region := s.o.Region
	switch a.service {
	case "sts":
	case "iam":
		if s.o.Partition == "aws" {
			region = "us-east-1"
		}
	default:
		return wrongScope("Credential should be scoped to correct service: 'sts'. ")
	}
	if a.region != region {
		return wrongScope("Credential should be scoped to a valid region, not '" + a.region + "'. ")
	}
	return nil
}

// checkSigned checks that whatever must be signed is.
func checkSigned(r *http.Request, a authorization) *fault {
	must := []string{"host", "x-amz-date"}
	for name := range r.Header {
		n := strings.ToLower(name)
		if strings.HasPrefix(n, "x-amz-") || n == "content-type" || n == "x-vault-aws-iam-server-id" {
			must = append(must, n)
		}
	}
	for _, n := range must {
		if !slices.Contains(a.signed, n) {
			return wrongScope("'" + n + "' must be a 'SignedHeader' in the AWS Authorization.")
		}
	}
	for _, n := range a.signed {
		if n != "host" && n != "content-length" && len(r.Header.Values(n)) == 0 {
			return wrongScope("the signed header '" + n + "' is missing")
		}
	}
	return nil
}

func (s *Server) checkDate(when string, a authorization) *fault {
	t, err := time.Parse(dateForm, when)
	if err != nil {
		return incomplete("Date must be in ISO-8601 'basic format'. Got '" + when + "'.")
	}
	now := s.o.Now().UTC()
	switch {
	case when[:8] != a.date:
		return wrongScope("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" + a.date + "' != '" + when[:8] + "', from '" + when + "'.")
	case now.Sub(t) > skew:
		return wrongScope("Signature expired: " + when + " is now earlier than " + now.Add(-skew).Format(dateForm) + " (" + now.Format(dateForm) + " - 15 min.)")
	case t.Sub(now) > skew:
		return wrongScope("Signature not yet current: " + when + " is still later than " + now.Add(skew).Format(dateForm) + " (" + now.Format(dateForm) + " + 15 min.)")
	}
	return nil
}

// canonical is the canonical request. Paths are normalised, as for every
// service but S3: Vault's "//" is signed as "/".
func canonical(r *http.Request, a authorization, sum string) string {
	p := r.URL.EscapedPath()
	trailing := strings.HasSuffix(p, "/")
	if p = path.Clean("/" + p); trailing && p != "/" {
		p += "/"
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n" + encode(p, true) + "\n" + canonicalQuery(r.URL.Query()) + "\n")
	for _, n := range a.signed {
		values := slices.Clone(r.Header.Values(n))
		switch n {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		for i, v := range values {
			values[i] = strings.Join(strings.Fields(v), " ")
		}
		b.WriteString(n + ":" + strings.Join(values, ",") + "\n")
	}
	b.WriteString("\n" + strings.Join(a.signed, ";") + "\n" + sum)
	return b.String()
}

func canonicalQuery(q url.Values) string {
	var pairs []string
	for name, values := range q {
		for _, v := range values {
			pairs = append(pairs, encode(name, false)+"="+encode(v, false))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// encode is UriEncode of the signing process: all but unreserved characters.
func encode(s string, keepSlash bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

func signingKey(secret string, a authorization) []byte {
	k := []byte("AWS4" + secret)
	for _, s := range []string{a.date, a.region, a.service, "aws4_request"} {
		k = mac(k, s)
	}
	return k
}

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
