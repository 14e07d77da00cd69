package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// list splits v at its commas and drops blanks and empty parts.
func list(v string) []string {
	var parts []string
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// each parses the parts of a list, and leaves out what says the same again.
func each[T comparable](parts []string, one func(string) (T, error)) ([]T, error) {
	var out []T
	for _, part := range parts {
		got, err := one(part)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, got) {
			out = append(out, got)
		}
	}
	return out, nil
}

// longestLine bounds free text: longer than any name, path or address in use.
const longestLine = 4096

// checkLine refuses text that no path, name or address holds.
func checkLine(v string) error {
	switch {
	case len(v) > longestLine:
		return errors.New("too long")
	case !printable(v):
		return errors.New("holds a control character or is not UTF-8")
	}
	return nil
}

// checkHeaderValue refuses what cannot stand in a header: anything but visible
// ASCII, blanks and tabs (RFC 9110, section 5.5).
func checkHeaderValue(v string) error {
	if len(v) > 64<<10 {
		return errors.New("too long")
	}
	if strings.ContainsFunc(v, func(c rune) bool { return c != '\t' && (c < ' ' || c > '~') }) {
		return errors.New("holds a character that cannot stand in a header (a line break, perhaps)")
	}
	return nil
}

// madeOf reports whether v is made of ASCII letters, digits and the characters
// of more.
func madeOf(v, more string) bool {
	return !strings.ContainsFunc(v, func(c rune) bool {
		lower := c | 0x20
		return (lower < 'a' || lower > 'z') && (c < '0' || c > '9') && !strings.ContainsRune(more, c)
	})
}

// isToken reports whether v is a header's name (RFC 9110, section 5.6.2).
func isToken(v string) bool { return v != "" && madeOf(v, "!#$%&'*+-.^_`|~") }

// isHostName reports whether v is made of what names in DNS are made of, with
// the underscores of container networks.
func isHostName(v string) bool {
	if v == "" || len(v) > 253 || !madeOf(v, ".-_") {
		return false
	}
	for label := range strings.SplitSeq(v, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// parseNamespace trims the slashes of a namespace path; "root" is the root.
func parseNamespace(v string) (string, error) {
	v = strings.Trim(v, "/")
	if v == "root" || v == "" {
		return "", nil
	}
	return v, checkPath(v)
}

// parseMount gives the mount of an auth method without "auth/" in front.
func parseMount(v string) (string, error) {
	v = strings.Trim(v, "/")
	if rest, ok := strings.CutPrefix(v, "auth/"); ok {
		v = strings.Trim(rest, "/")
	}
	if v == "" || v == "auth" {
		return "", errors.New("names no mount")
	}
	return v, checkPath(v)
}

// checkPath refuses a path in Vault that would mean another one, or a query,
// once it stands in a URL.
func checkPath(v string) error {
	if err := checkLine(v); err != nil {
		return err
	}
	if v == "" {
		return errors.New("empty")
	}
	if strings.ContainsAny(v, `?#\`) {
		return errors.New(`must not hold "?", "#" or "\"`)
	}
	for segment := range strings.SplitSeq(v, "/") {
		switch segment {
		case "":
			return errors.New("has an empty segment")
		case ".", "..":
			return errors.New(`must not have a segment "." or ".."`)
		}
	}
	return nil
}

// bare takes "/v1/secret/data/app", "/secret/data/app" or "secret/data/app" and
// gives the last.
func bare(v string) string { return strings.TrimLeft(strings.TrimPrefix(v, "/v1/"), "/") }

// apiPath is bare for a path that must be one.
func apiPath(v string) (string, error) {
	v = bare(v)
	return v, checkPath(v)
}

// wild reports whether a path holds a wildcard.
func wild(path string) bool {
	return strings.Contains(path, "*") || strings.Contains("/"+path+"/", "/+/")
}

func parsePrefetch(v string) ([]string, error) {
	return each(list(v), func(part string) (string, error) {
		path, err := apiPath(part)
		if err == nil && wild(path) {
			err = errors.New("is read as written: no wildcards")
		}
		return path, err
	})
}

// patterns reads paths with wildcards.
func patterns(v string) ([]string, error) { return each(list(v), pattern) }

func pattern(v string) (string, error) {
	path := bare(v)
	// A folder, "secret/data/app/", is itself and no more; checkPath wants no
	// empty segment.
	rest, open := strings.CutSuffix(path, "*")
	folder := strings.TrimSuffix(rest, "/")
	if open && folder == "" {
		return path, nil
	}
	if err := checkPath(folder); err != nil {
		return "", err
	}
	if strings.Contains(folder, "*") {
		return "", errors.New(`"*" may only stand at the end`)
	}
	for segment := range strings.SplitSeq(folder, "/") {
		if segment != "+" && strings.Contains(segment, "+") {
			return "", errors.New(`"+" stands for one whole segment`)
		}
	}
	return path, nil
}

func parseKVMounts(v string) ([]KVMount, error) {
	mounts, err := each(list(v), func(part string) (KVMount, error) {
		i := strings.LastIndexByte(part, '=')
		if i < 0 {
			return KVMount{}, errors.New("a mount lacks its version")
		}
		version, err := strconv.Atoi(strings.TrimSpace(part[i+1:]))
		if err != nil || version != 1 && version != 2 {
			return KVMount{}, errors.New("a KV mount's version is 1 or 2")
		}
		path := strings.Trim(strings.TrimSpace(part[:i]), "/")
		return KVMount{path, version}, checkPath(path)
	})
	for i, m := range mounts {
		if slices.ContainsFunc(mounts[:i], func(o KVMount) bool { return o.Path == m.Path }) {
			return nil, errors.New("names a mount twice")
		}
	}
	return mounts, err
}

func parseHosts(v string) ([]string, error) { return each(list(v), parseHost) }

func parseHost(v string) (string, error) {
	host := strings.TrimSuffix(strings.ToLower(v), ".")
	if strings.Contains(host, "://") {
		return "", errors.New("give host names only, without a scheme")
	}
	if h, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(h, "]")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String(), nil
	}
	if strings.Contains(host, ":") {
		return "", errors.New("give host names only, without a port")
	}
	if !isHostName(host) {
		return "", errors.New("not a host name")
	}
	return host, nil
}

// parseHeaders reads VAULT_HEADERS as vault/api does: a JSON object of strings,
// where X-Vault- names are refused. It also refuses what would break a request
// or give every caller one token. Its errors never quote a value.
// https://github.com/hashicorp/vault/blob/v1.21.0/api/client.go (NewClient)
func parseHeaders(v string) (http.Header, error) {
	dec := json.NewDecoder(strings.NewReader(v))
	var object map[string]*string
	if err := dec.Decode(&object); err != nil || object == nil {
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && object != nil {
			return nil, errors.New("a header's value is not a string")
		}
		return nil, errors.New("not a JSON object")
	}
	if dec.More() {
		return nil, errors.New("more than one JSON value")
	}
	headers := make(http.Header, len(object))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if object[name] == nil {
			return nil, errors.New("a header's value is not a string")
		}
		if err := checkHeader(name, *object[name]); err != nil {
			return nil, err
		}
		headers.Add(name, *object[name])
	}
	return headers, nil
}

// checkHeader refuses a header that thaw must not send with every request.
func checkHeader(name, value string) error {
	key := http.CanonicalHeaderKey(name)
	switch {
	case !isToken(name):
		return errors.New("a header's name is not one")
	case checkHeaderValue(value) != nil:
		return errors.New("the value of " + shownName(name) + " holds a character that cannot stand in a header")
	case strings.HasPrefix(key, "X-Vault-"):
		return errors.New(shownName(key) + ": headers that start with X-Vault- are thaw's to set; use VAULT_NAMESPACE or VAULT_TOKEN")
	case strings.HasPrefix(key, "X-Thaw-"):
		return errors.New(shownName(key) + ": headers that start with X-Thaw- never leave thaw")
	case key == "Authorization" && strings.HasPrefix(strings.ToLower(strings.TrimSpace(value)), "bearer"):
		return errors.New("a bearer token in Authorization would be everybody's; use VAULT_TOKEN")
	}
	switch key {
	case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Expect":
		return errors.New(key + " belongs to the connection and cannot be set")
	}
	return nil
}

func checkPEM(v string) error {
	switch {
	case len(v) > 1<<20:
		return errors.New("too long")
	case strings.Contains(v, "PRIVATE KEY"):
		return errors.New("holds a private key; give certificates only")
	case !strings.Contains(v, "-----BEGIN CERTIFICATE-----"):
		return errors.New("holds no PEM certificate")
	}
	return nil
}

// parseRateLimit reads "rate" or "rate:burst" as vault/api does.
// https://github.com/hashicorp/vault/blob/v1.21.0/api/client.go (parseRateLimit)
func (d *draft) parseRateLimit(v string) error {
	first, second, hasBurst := strings.Cut(v, ":")
	rate, err := strconv.ParseFloat(strings.TrimSpace(first), 64)
	if err != nil || math.IsNaN(rate) || math.IsInf(rate, 0) {
		return errors.New("not a rate")
	}
	if rate < 0 {
		return errNegative
	}
	if rate > 1e6 {
		return errTooLarge
	}
	burst := int(math.Ceil(rate))
	if hasBurst {
		if burst, err = strconv.Atoi(strings.TrimSpace(second)); err != nil {
			return errors.New("burst is not a whole number")
		}
		if burst < 0 || burst > 1e6 {
			return errors.New("burst is out of range")
		}
		if burst == 0 && rate > 0 {
			return errors.New("with a burst of 0 no request would ever pass")
		}
	}
	d.RateLimit, d.RateBurst = rate, burst
	if rate == 0 {
		d.RateBurst = 0
	}
	return nil
}

// checkRegion refuses what cannot be a region: it becomes part of a host name.
func checkRegion(v string) error {
	if v == "" || !IsRegion(v) {
		return errors.New("not a region")
	}
	return nil
}

// checkRoleARN wants arn:partition:iam::account:role/path/name.
func checkRoleARN(v string) error {
	parts := strings.SplitN(v, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") || len(parts[5]) == len("role/") || checkLine(v) != nil {
		return errors.New("not the ARN of a role")
	}
	return nil
}

// wrapValue says which of several values an error is about, if it may be shown.
func wrapValue(v string, err error) error {
	if v = shown(v); v == "" {
		return err
	}
	return fmt.Errorf("%q %w", v, err)
}
