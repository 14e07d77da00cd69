package config

import (
	"bytes"
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

// apiPath takes "/v1/secret/data/app", "/secret/data/app" or
// "secret/data/app" and gives the last.
func apiPath(v string) (string, error) {
	v = strings.TrimPrefix(v, "/v1/")
	v = strings.TrimLeft(v, "/")
	return v, checkPath(v)
}

func parsePrefetch(d *draft, v string) error {
	var paths []string
	for _, part := range list(v) {
		path, err := apiPath(part)
		if err != nil {
			return err
		}
		if strings.Contains(path, "*") || strings.Contains("/"+path+"/", "/+/") {
			return errors.New("is read as written: no wildcards")
		}
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	d.Prefetch = paths
	return nil
}

func parsePatterns(d *draft, v string) (err error) {
	d.NoCachePaths, err = patterns(v)
	return err
}

// patterns reads paths with wildcards.
func patterns(v string) ([]string, error) {
	var patterns []string
	for _, part := range list(v) {
		path := strings.TrimLeft(strings.TrimPrefix(part, "/v1/"), "/")
		// A folder, "secret/data/app/", is itself and no more; checkPath wants
		// no empty segment.
		bare := strings.TrimSuffix(path, "/")
		if rest, ok := strings.CutSuffix(path, "*"); ok {
			bare = strings.TrimSuffix(rest, "/")
			if bare == "" {
				patterns = append(patterns, path)
				continue
			}
		}
		if err := checkPath(bare); err != nil {
			return nil, err
		}
		if strings.Contains(bare, "*") {
			return nil, errors.New(`"*" may only stand at the end`)
		}
		for segment := range strings.SplitSeq(bare, "/") {
			if segment != "+" && strings.Contains(segment, "+") {
				return nil, errors.New(`"+" stands for one whole segment`)
			}
		}
		patterns = append(patterns, path)
	}
	return patterns, nil
}

func parseKVMounts(d *draft, v string) error {
	var mounts []KVMount
	for _, part := range list(v) {
		i := strings.LastIndexByte(part, '=')
		if i < 0 {
			return errors.New("a mount lacks its version")
		}
		path := strings.Trim(strings.TrimSpace(part[:i]), "/")
		if err := checkPath(path); err != nil {
			return err
		}
		m := KVMount{Path: path}
		switch strings.TrimSpace(part[i+1:]) {
		case "1":
			m.Version = 1
		case "2":
			m.Version = 2
		default:
			return errors.New("a KV mount's version is 1 or 2")
		}
		if slices.ContainsFunc(mounts, func(o KVMount) bool { return o.Path == path }) {
			return errors.New("names a mount twice")
		}
		mounts = append(mounts, m)
	}
	d.KVMounts = mounts
	return nil
}

func parseHosts(d *draft, v string) error {
	var hosts []string
	for _, part := range list(v) {
		host := strings.TrimSuffix(strings.ToLower(part), ".")
		if strings.Contains(host, "://") {
			return errors.New("give host names only, without a scheme")
		}
		if h, ok := strings.CutPrefix(host, "["); ok {
			host = strings.TrimSuffix(h, "]")
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			hosts = append(hosts, addr.String())
			continue
		}
		if strings.Contains(host, ":") {
			return errors.New("give host names only, without a port")
		}
		if !isHostName(host) {
			return errors.New("not a host name")
		}
		hosts = append(hosts, host)
	}
	d.AllowedHosts = hosts
	return nil
}

// isHostName reports whether v is made of what names in DNS are made of, with
// the underscores of container networks.
func isHostName(v string) bool {
	if v == "" || len(v) > 253 {
		return false
	}
	for label := range strings.SplitSeq(v, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// parseHeaders reads VAULT_HEADERS as vault/api does: a JSON object of strings,
// where X-Vault- names are refused. It also refuses what would break a request
// or give every caller one token. Its errors never quote a value.
// https://github.com/hashicorp/vault/blob/v1.21.0/api/client.go (NewClient)
func parseHeaders(d *draft, v string) error {
	dec := json.NewDecoder(strings.NewReader(v))
	var object map[string]json.RawMessage
	if err := dec.Decode(&object); err != nil || object == nil {
		return errors.New("not a JSON object")
	}
	if dec.More() {
		return errors.New("more than one JSON value")
	}
	headers := make(http.Header, len(object))
	for _, name := range slices.Sorted(maps.Keys(object)) {
		raw, value := object[name], ""
		if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &value) != nil {
			return errors.New("a header's value is not a string")
		}
		if !isToken(name) {
			return errors.New("a header's name is not one")
		}
		if checkHeaderValue(value) != nil {
			return errors.New("the value of " + shownName(name) + " holds a character that cannot stand in a header")
		}
		key := http.CanonicalHeaderKey(name)
		switch {
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
		headers.Add(key, value)
	}
	d.Headers = headers
	return nil
}

func parsePEM(d *draft, v string) error {
	if len(v) > 1<<20 {
		return errors.New("too long")
	}
	if strings.Contains(v, "PRIVATE KEY") {
		return errors.New("holds a private key; give certificates only")
	}
	if !strings.Contains(v, "-----BEGIN CERTIFICATE-----") {
		return errors.New("holds no PEM certificate")
	}
	d.TLS.CACertPEM = v
	return nil
}

// parseRateLimit reads "rate" or "rate:burst" as vault/api does.
// https://github.com/hashicorp/vault/blob/v1.21.0/api/client.go (parseRateLimit)
func parseRateLimit(d *draft, v string) error {
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
	if len(v) > 63 || !isHostName(v) || strings.ContainsAny(v, "._ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		return errors.New("not a region")
	}
	return nil
}

func checkRoleARN(v string) error {
	// arn:partition:iam::account:role/path/name
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
