package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names of the shared tier's and the warm-up's settings that rules are about.
const (
	nameCacheEnable = "CACHE_ENABLE"
	nameCacheTTL    = "CACHE_TTL"
	nameProactive   = "PROACTIVE_CACHE_ENABLE"
	nameRecommended = "NEW_PROACTIVE_CACHE_ENABLE"
	nameWorkers     = "PROACTIVE_CACHE_WORKERS"
	nameFetching    = "PROACTIVE_CACHE_MINIMUM_FETCHING_TIME"
	nameDumpEvery   = "PROACTIVE_CACHE_DUMP_INTERVAL"
	nameMemcached   = "THAW_MEMCACHED"
	nameNodesCA     = "THAW_MEMCACHED_CACERT"
	nameNodesName   = "THAW_MEMCACHED_TLS_SERVER_NAME"
	nameNodesCert   = "THAW_MEMCACHED_CLIENT_CERT"
	nameNodesKey    = "THAW_MEMCACHED_CLIENT_KEY"
	nameCacheKey    = "THAW_CACHE_KEY"
	nameCacheKMS    = "THAW_CACHE_KEY_KMS"
	nameDump        = "THAW_DUMP"
	nameWarmPaths   = "THAW_WARM_PATHS"
	nameAudiences   = "THAW_WARM_AUDIENCES"
)

// sharedSettings is the tier that instances share, and the function that fills
// it ahead of reads. The names without THAW_ are those of Akeyless' Gateway:
// https://docs.akeyless.io/docs/gateway-proactive-caching
func sharedSettings(rows []setting) []setting {
	return append(rows,
		flag(nameCacheEnable, "false", func(d *draft) *bool { return &d.CacheEnable },
			"Use the shared cache at all."),
		parsed(nameMemcached, "", "host[:port], comma-separated, all with tls:// before them or none", parseMemcached,
			"memcached nodes of the shared cache, or ElastiCache's configuration endpoint. Needs `CACHE_ENABLE=true` and a key."),
		duration("THAW_MEMCACHED_TIMEOUT", "20ms", time.Millisecond, 5*time.Second, func(d *draft) *time.Duration { return &d.MemcachedTimeout },
			"Longest time for one call of memcached. Later is a miss."),
		text(nameNodesCA, "file", func(d *draft) *string { return &d.MemcachedFiles.CACert },
			"PEM file of the CA that signed the nodes' certificates. Default: the system's."),
		text(nameNodesName, "name", func(d *draft) *string { return &d.MemcachedFiles.ServerName },
			"Name in the nodes' certificates, where it is not the node's own."),
		text(nameNodesCert, "file", func(d *draft) *string { return &d.MemcachedFiles.ClientCert },
			"PEM file of the client certificate shown to the nodes."),
		text(nameNodesKey, "file", func(d *draft) *string { return &d.MemcachedFiles.ClientKey },
			"PEM file of that certificate's key."),
		secret(parsed(nameCacheKey, "", "32 bytes in base64, comma-separated", func(d *draft, v string) error {
			d.CacheKey = Secret(v)
			return checkCacheKeys(v)
		}, "Key that seals the shared cache. With several the first writes and all read, for rotation.")),
		parsed(nameCacheKMS, "", "base64, comma-separated", func(d *draft, v string) (err error) {
			d.CacheKeyKMS, err = parseWrapped(v)
			return err
		}, "The same as data keys of 32 bytes that AWS KMS encrypted, with the encryption context `audience`=`THAW_AUDIENCE`."),
		text("THAW_AUDIENCE", "name", func(d *draft) *string { return &d.Audience },
			"Functions with the same audience and key share what is cached. Default: made of auth mount, role and function name."),
		duration("THAW_CLOCK_SKEW", "1s", 0, time.Minute, func(d *draft) *time.Duration { return &d.ClockSkew },
			"How far the clocks of two instances may be apart."),
		parsed("THAW_NO_SHARE_PATHS", "", "paths, comma-separated", func(d *draft, v string) (err error) {
			d.NoSharePaths, err = patterns(v)
			return err
		}, "Paths that never go to the shared cache. As `THAW_NO_CACHE_PATHS`."),
		text(nameCacheTTL, "whole number of minutes from 1 to 525600", func(d *draft) *string { return &d.cacheTTL },
			"Minutes until the warm-up reads a secret again whatever the cursor says; memcached keeps it for `THAW_STALE_IF_ERROR` more. Default: 60. Read with `CACHE_ENABLE=true` only."),
		flag(nameProactive, "false", func(d *draft) *bool { return &d.Warm.Enable },
			"Warm-up: run it."),
		flag(nameRecommended, "false", func(d *draft) *bool { return &d.Warm.Recommended },
			"Warm-up: the recommended implementation, with workers to choose and one backoff for all of them. Without it: five workers that don't heed a rate limit."),
		number(nameWorkers, "3", 1, 64, func(d *draft) *int { return &d.Warm.Workers },
			"Warm-up: secrets read at a time."),
		minutes(nameFetching, "5", 0, func(d *draft) *time.Duration { return &d.Warm.FetchEvery },
			"Warm-up: minutes between two looks for changed secrets. `0`: every run."),
		minutes(nameDumpEvery, "", 1, func(d *draft) *time.Duration { return &d.Warm.DumpEvery },
			"Warm-up without `NEW_PROACTIVE_CACHE_ENABLE`: minutes between sealed backups to `THAW_DUMP`."),
		parsed(nameDump, "", "file, s3://bucket/key or, in thaw-azure, https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB", func(d *draft, v string) error {
			d.Warm.Dump = v
			return checkDump(v)
		}, "Warm-up: where those backups go, and are restored from when memcached is empty and Vault away."),
		parsed(nameWarmPaths, "", "prefixes, comma-separated", func(d *draft, v string) (err error) {
			d.Warm.Paths, err = prefixes(list(v))
			return err
		}, "Warm-up: mounts and folders to warm for `THAW_AUDIENCE`, such as `secret/,kv/app/`."),
		secret(parsed(nameAudiences, "", `JSON list of {"audience","namespace","paths","key"}`, parseWarmAudiences,
			"Warm-up: several audiences instead, each with its prefixes and, unless it is `THAW_CACHE_KEY`, its key.")),
		duration("THAW_WARM_FOR", "0", 0, time.Hour, func(d *draft) *time.Duration { return &d.Warm.For },
			"Warm-up: how long a scheduled run goes on after what is due is done, to keep verifications in the shared cache young. Of use with `THAW_MAX_AGE` above `THAW_CLOCK_SKEW`. `0`: it ends."),
		flag("THAW_WARM_CONFIRMED_ONLY", "false", func(d *draft) *bool { return &d.Warm.ConfirmedOnly },
			"Warm-up: store only what some function of the audience is known to be allowed to read."),
	)
}

// longestMinutes bounds settings in minutes: a year.
const longestMinutes = 365 * 24 * 60

// minutes is a setting of a whole number of minutes.
func minutes(name, def string, lo int, at func(*draft) *time.Duration, meaning string) setting {
	return setting{
		Setting: Setting{Name: name, Default: def, Meaning: meaning},
		kind:    boundNumber, lo: int64(lo), hi: longestMinutes,
		parse: func(d *draft, v string) error {
			n, err := parseMinutes(v, lo)
			*at(d) = n
			return err
		},
	}
}

func parseMinutes(v string, lo int) (time.Duration, error) {
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, errNotNumber
	}
	if n < lo || n > longestMinutes {
		return 0, errors.New("out of range")
	}
	return time.Duration(n) * time.Minute, nil
}

// parseMemcached reads the nodes. ElastiCache's configuration endpoints have
// ".cfg." in their names, and say themselves which nodes there are:
// https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.html
func parseMemcached(d *draft, v string) error {
	var nodes []string
	secure, plain := false, false
	for _, part := range list(v) {
		node, ok := strings.CutPrefix(part, "tls://")
		secure, plain = secure || ok, plain || !ok
		if strings.Contains(node, "://") || strings.ContainsAny(node, "/@?#") {
			return wrapValue(part, errors.New("is not host:port"))
		}
		host, port := node, "11211"
		if h, p, err := net.SplitHostPort(node); err == nil {
			host, port = h, p
		} else if strings.Count(node, ":") > 0 && !strings.HasSuffix(node, "]") {
			return wrapValue(part, errors.New("is not host:port"))
		}
		host = strings.Trim(host, "[]")
		if err := checkHost(host); err != nil {
			return wrapValue(part, err)
		}
		if _, err := checkPort(port); err != nil || port == "" {
			return wrapValue(part, errors.New("has no port"))
		}
		if node = net.JoinHostPort(host, port); !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	if len(nodes) == 0 {
		return errors.New("names no node")
	}
	if secure && plain {
		return errors.New("mixes nodes with and without tls://: what is sealed would still show who reads what")
	}
	d.Memcached, d.MemcachedTLS = nodes, secure
	d.MemcachedDiscover = len(nodes) == 1 && strings.Contains(nodes[0], ".cfg.")
	return nil
}

// keySize is the size of a root key: AES-256.
const keySize = 32

// checkCacheKeys checks a list of keys and never says what they are.
func checkCacheKeys(v string) error {
	seen := map[string]bool{}
	for part := range strings.SplitSeq(v, ",") {
		part = strings.TrimSpace(part)
		key, err := decodeBase64(part)
		switch {
		case part == "":
			return errors.New("has an empty key in its list")
		case err != nil:
			return errors.New("a key is not base64; make one with: openssl rand -base64 32")
		case len(key) != keySize:
			return errors.New("a key has " + strconv.Itoa(len(key)) + " bytes and needs 32; make one with: openssl rand -base64 32")
		case seen[string(key)]:
			return errors.New("holds a key twice")
		case len(bytes.Trim(key, "\x00")) == 0:
			return errors.New("a key is all zero; make one with: openssl rand -base64 32")
		}
		seen[string(key)] = true
	}
	if len(seen) > 8 {
		return errors.New("holds more than 8 keys")
	}
	return nil
}

// maxWrapped is the longest CiphertextBlob in bytes:
// https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html
const maxWrapped = 6144

// parseWrapped reads a list of encrypted keys.
func parseWrapped(v string) ([][]byte, error) {
	var keys [][]byte
	for part := range strings.SplitSeq(v, ",") {
		key, err := decodeBase64(strings.TrimSpace(part))
		switch {
		case err != nil || len(key) == 0:
			return nil, errors.New("holds something that is not base64; take the CiphertextBlob of kms:GenerateDataKey or kms:Encrypt")
		case len(key) > maxWrapped:
			return nil, errors.New("holds a key of more than " + strconv.Itoa(maxWrapped) + " bytes")
		case slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }):
			return nil, errors.New("holds a key twice")
		}
		keys = append(keys, key)
	}
	if len(keys) > 8 {
		return nil, errors.New("holds more than 8 keys")
	}
	return keys, nil
}

// decodeBase64 takes either alphabet, padded or not.
func decodeBase64(v string) ([]byte, error) {
	if strings.ContainsAny(v, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	v = strings.TrimRight(v, "=")
	if strings.ContainsAny(v, "-_") {
		return base64.RawURLEncoding.DecodeString(v)
	}
	return base64.RawStdEncoding.DecodeString(v)
}

func checkDump(v string) error {
	rest, ok := strings.CutPrefix(v, "s3://")
	if strings.HasPrefix(v, "https://") {
		return nil // see resolveAzure
	}
	if !ok {
		if strings.Contains(v, "://") {
			return errors.New("is neither a file nor s3://bucket/key")
		}
		return checkLine(v)
	}
	bucket, key, _ := strings.Cut(rest, "/")
	if len(bucket) < 3 || !isHostName(bucket) || key == "" || strings.HasSuffix(key, "/") || checkLine(key) != nil || strings.ContainsAny(key, "?#") {
		return errors.New("is not s3://bucket/key")
	}
	return nil
}

// prefixes checks mounts and folders. A slash at the end stays: without it the
// secret of that name is meant too.
func prefixes(parts []string) ([]string, error) {
	var out []string
	for _, part := range parts {
		p := strings.TrimLeft(strings.TrimPrefix(strings.TrimSpace(part), "/v1/"), "/")
		if err := checkPath(strings.TrimSuffix(p, "/")); err != nil {
			return nil, wrapValue(part, err)
		}
		if strings.ContainsAny(p, "*%") || strings.Contains("/"+p+"/", "/+/") {
			return nil, wrapValue(part, errors.New("is a prefix by itself: no wildcards"))
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("names no prefix")
	}
	return out, nil
}

// maxAudiences bounds THAW_WARM_AUDIENCES.
const maxAudiences = 256

// parseWarmAudiences reads the list of audiences. Its errors never quote it:
// it holds keys.
func parseWarmAudiences(d *draft, v string) error {
	var rows []struct {
		Audience  string          `json:"audience"`
		Namespace string          `json:"namespace"`
		Paths     json.RawMessage `json:"paths"`
		Key       string          `json:"key"`
	}
	dec := json.NewDecoder(strings.NewReader(v))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rows); err != nil || dec.More() {
		return errors.New(`is not a JSON list of {"audience","namespace","paths","key"}`)
	}
	if len(rows) == 0 || len(rows) > maxAudiences {
		return errors.New("needs from 1 to " + strconv.Itoa(maxAudiences) + " audiences")
	}
	var out []WarmAudience
	for i, row := range rows {
		which := "audience " + strconv.Itoa(i+1) + " "
		if row.Audience == "" || checkLine(row.Audience) != nil {
			return errors.New(which + "has no name")
		}
		if slices.ContainsFunc(out, func(a WarmAudience) bool { return a.Audience == row.Audience }) {
			return errors.New(which + "has the name of another")
		}
		a := WarmAudience{Audience: row.Audience, Key: Secret(row.Key)}
		var err error
		if a.Namespace, err = parseNamespace(row.Namespace); err != nil {
			return errors.New(which + "has a bad namespace")
		}
		var many []string
		var one string
		switch {
		case json.Unmarshal(row.Paths, &many) == nil:
		case json.Unmarshal(row.Paths, &one) == nil:
			many = list(one)
		}
		if a.Paths, err = prefixes(many); err != nil {
			return errors.New(which + `has bad paths: a list of prefixes such as ["secret/","kv/app/"], or one string with commas, without wildcards`)
		}
		if row.Key != "" {
			if err := checkCacheKeys(row.Key); err != nil {
				return errors.New(which + "has a bad key: " + err.Error())
			}
		}
		out = append(out, a)
	}
	d.Warm.Audiences = out
	return nil
}
