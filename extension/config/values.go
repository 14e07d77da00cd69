package config

import (
	"cmp"
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

// errIf is an error that says what is wrong, if something is. Checks are a row of
// these, of which cmp.Or takes the first. A copy of it in each row would make the
// binary larger.
//
//go:noinline
func errIf(wrong bool, what string) error {
	if wrong {
		return errors.New(what)
	}
	return nil
}

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

// listOf makes a parser of a list of a parser of one.
func listOf[T comparable](one func(string) (T, error)) func(string) ([]T, error) {
	return func(v string) ([]T, error) { return each(list(v), one) }
}

// longestLine bounds free text: longer than any name, path or address in use.
const longestLine = 4096

// checkLine refuses text that no path, name or address holds.
func checkLine(v string) error {
	return cmp.Or(errIf(len(v) > longestLine, "too long"), errIf(!printable(v), "holds a control character or is not UTF-8"))
}

// checkHeaderValue refuses what cannot stand in a header: anything but visible
// ASCII, blanks and tabs (RFC 9110, section 5.5).
func checkHeaderValue(v string) error {
	unfit := func(c rune) bool { return c != '\t' && (c < ' ' || c > '~') }
	return cmp.Or(
		errIf(len(v) > 64<<10, "too long"),
		errIf(strings.ContainsFunc(v, unfit), "holds a character that cannot stand in a header (a line break, perhaps)"))
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
	unfit := func(label string) bool {
		return label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-'
	}
	return len(v) <= 253 && madeOf(v, ".-_") && !slices.ContainsFunc(strings.Split(v, "."), unfit)
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
	v = strings.Trim(strings.TrimPrefix(strings.Trim(v, "/"), "auth/"), "/")
	return v, cmp.Or(errIf(v == "" || v == "auth", "names no mount"), checkPath(v))
}

// checkPath refuses a path in Vault that would mean another one, or a query,
// once it stands in a URL.
func checkPath(v string) error {
	has := func(segment string) bool { return strings.Contains("/"+v+"/", "/"+segment+"/") }
	return cmp.Or(
		checkLine(v),
		errIf(v == "", "empty"),
		errIf(strings.ContainsAny(v, `?#\`), `must not hold "?", "#" or "\"`),
		errIf(has(""), "has an empty segment"),
		errIf(has(".") || has(".."), `must not have a segment "." or ".."`))
}

// bare takes "/v1/secret/data/app", "/secret/data/app" or "secret/data/app" and
// gives the last.
func bare(v string) string { return strings.TrimLeft(strings.TrimPrefix(v, "/v1/"), "/") }

// apiPath is bare for a path that must be one.
func apiPath(v string) (string, error) { return bare(v), checkPath(bare(v)) }

// wild reports whether a path holds a wildcard.
func wild(path string) bool {
	return strings.Contains(path, "*") || strings.Contains("/"+path+"/", "/+/")
}

// prefetchPath is a path that is read as written.
func prefetchPath(v string) (string, error) {
	path, err := apiPath(v)
	return path, cmp.Or(err, errIf(wild(path), "is read as written: no wildcards"))
}

// pattern is a path that may have wildcards.
func pattern(v string) (string, error) {
	path := bare(v)
	// A folder, "secret/data/app/", is itself and no more; checkPath wants no
	// empty segment.
	rest, open := strings.CutSuffix(path, "*")
	folder := strings.TrimSuffix(rest, "/")
	if open && folder == "" {
		return path, nil
	}
	part := func(segment string) bool { return segment != "+" && strings.Contains(segment, "+") }
	return path, cmp.Or(
		checkPath(folder),
		errIf(strings.Contains(folder, "*"), `"*" may only stand at the end`),
		errIf(slices.ContainsFunc(strings.Split(folder, "/"), part), `"+" stands for one whole segment`))
}

func parseKVMounts(v string) ([]KVMount, error) {
	mounts, err := each(list(v), func(part string) (KVMount, error) {
		i := strings.LastIndexByte(part, '=')
		if i < 0 {
			return KVMount{}, errors.New("a mount lacks its version")
		}
		version, err := strconv.Atoi(strings.TrimSpace(part[i+1:]))
		path := strings.Trim(strings.TrimSpace(part[:i]), "/")
		return KVMount{path, version}, cmp.Or(errIf(err != nil || version != 1 && version != 2, "a KV mount's version is 1 or 2"), checkPath(path))
	})
	for i, m := range mounts {
		twice := slices.ContainsFunc(mounts[:i], func(o KVMount) bool { return o.Path == m.Path })
		err = cmp.Or(err, errIf(twice, "names a mount twice"))
	}
	return mounts, err
}

// parseHost reads a host's name or address, for THAW_ALLOWED_HOSTS.
func parseHost(v string) (string, error) {
	host := strings.TrimSuffix(strings.ToLower(v), ".")
	if h, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(h, "]")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String(), nil
	}
	return host, cmp.Or(
		errIf(strings.Contains(host, "://"), "give host names only, without a scheme"),
		errIf(strings.Contains(host, ":"), "give host names only, without a port"),
		errIf(!isHostName(host), "not a host name"))
}

// parseHeaders reads VAULT_HEADERS as vault/api does: a JSON object of strings,
// where X-Vault- names are refused. It also refuses what would break a request
// or give every caller one token. Its errors never quote a value.
// https://github.com/hashicorp/vault/blob/v1.21.0/api/client.go (NewClient)
func parseHeaders(v string) (http.Header, error) {
	dec := json.NewDecoder(strings.NewReader(v))
	var object map[string]any
	err := dec.Decode(&object)
	err = cmp.Or(
		errIf(err != nil || object == nil, "not a JSON object"),
		errIf(dec.More(), "more than one JSON value"))
	headers := make(http.Header, len(object))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		value, isText := object[name].(string)
		err = cmp.Or(err, errIf(!isText, "a header's value is not a string"), checkHeader(name, value))
		headers.Add(name, value)
	}
	return headers, err
}

// checkHeader refuses a header that thaw must not send with every request.
func checkHeader(name, value string) error {
	key := http.CanonicalHeaderKey(name)
	ofConnection := []string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Expect"}
	bearer := key == "Authorization" && strings.HasPrefix(strings.ToLower(strings.TrimSpace(value)), "bearer")
	return cmp.Or(
		errIf(!isToken(name), "a header's name is not one"),
		errIf(checkHeaderValue(value) != nil, "the value of "+shownName(name)+" holds a character that cannot stand in a header"),
		errIf(strings.HasPrefix(key, "X-Vault-"), shownName(key)+": headers that start with X-Vault- are thaw's to set; use VAULT_NAMESPACE or VAULT_TOKEN"),
		errIf(strings.HasPrefix(key, "X-Thaw-"), shownName(key)+": headers that start with X-Thaw- never leave thaw"),
		errIf(bearer, "a bearer token in Authorization would be everybody's; use VAULT_TOKEN"),
		errIf(slices.Contains(ofConnection, key), key+" belongs to the connection and cannot be set"))
}

func checkPEM(v string) error {
	return cmp.Or(
		errIf(len(v) > 1<<20, "too long"),
		errIf(strings.Contains(v, "PRIVATE KEY"), "holds a private key; give certificates only"),
		errIf(!strings.Contains(v, "-----BEGIN CERTIFICATE-----"), "holds no PEM certificate"))
}

// parseRateLimit reads "rate" or "rate:burst" as vault/api does.
// https://github.com/hashicorp/vault/blob/v1.21.0/api/client.go (parseRateLimit)
func (d *draft) parseRateLimit(v string) error {
	first, second, hasBurst := strings.Cut(v, ":")
	rate, notRate := strconv.ParseFloat(strings.TrimSpace(first), 64)
	burst, notWhole := strconv.Atoi(strings.TrimSpace(second))
	if !hasBurst {
		burst, notWhole = int(math.Ceil(rate)), nil
	}
	err := cmp.Or(
		errIf(notRate != nil || math.IsNaN(rate) || math.IsInf(rate, 0), "not a rate"),
		errIf(rate < 0, "must not be negative"),
		errIf(rate > 1e6, "too large"),
		errIf(notWhole != nil, "burst is not a whole number"),
		errIf(burst < 0 || burst > 1e6, "burst is out of range"),
		errIf(burst == 0 && rate > 0, "with a burst of 0 no request would ever pass"))
	if rate == 0 {
		burst = 0
	}
	if err == nil {
		d.RateLimit, d.RateBurst = rate, burst
	}
	return err
}

// wrapValue says which of several values an error is about, if there is one and
// the value may be shown.
func wrapValue(v string, err error) error {
	if v = shown(v); v == "" || err == nil {
		return err
	}
	return fmt.Errorf("%q %w", v, err)
}
