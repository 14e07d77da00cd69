package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/thaw-project/thaw/extension/memcached/envelope"
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

// parseMemcached reads the nodes. ElastiCache's configuration endpoints have
// ".cfg." in their names, and say themselves which nodes there are:
// https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.html
func (d *draft) parseMemcached(v string) error {
	secure := 0
	nodes, err := each(list(v), func(part string) (string, error) {
		node, ok := strings.CutPrefix(part, "tls://")
		if ok {
			secure++
		}
		node, err := parseNode(node)
		if err != nil {
			return "", wrapValue(part, err)
		}
		return node, nil
	})
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return errors.New("names no node")
	}
	if secure > 0 && secure < len(list(v)) {
		return errors.New("mixes nodes with and without tls://: what is sealed would still show who reads what")
	}
	d.Memcached, d.MemcachedTLS = nodes, secure > 0
	d.MemcachedDiscover = len(nodes) == 1 && strings.Contains(nodes[0], ".cfg.")
	return nil
}

// parseNode reads host or host:port.
func parseNode(v string) (string, error) {
	host, port := v, "11211"
	if h, p, err := net.SplitHostPort(v); err == nil {
		host, port = h, p
	} else if strings.Count(v, ":") > 0 && !strings.HasSuffix(v, "]") {
		return "", errors.New("is not host:port")
	}
	host = strings.Trim(host, "[]")
	if strings.ContainsAny(v, "/@?#") {
		return "", errors.New("is not host:port")
	}
	if err := checkHost(host); err != nil {
		return "", err
	}
	if _, err := checkPort(port); err != nil || port == "" {
		return "", errors.New("has no port")
	}
	return net.JoinHostPort(host, port), nil
}

// keyList reads keys with commas between, each of which is another.
func keyList[T any](v string, one func(string) (T, error)) ([]T, error) {
	var keys []T
	for part := range strings.SplitSeq(v, ",") {
		key, err := one(strings.TrimSpace(part))
		switch {
		case err != nil:
			return nil, err
		case slices.ContainsFunc(keys, func(k T) bool { return reflect.DeepEqual(k, key) }):
			return nil, errors.New("holds a key twice")
		}
		keys = append(keys, key)
	}
	if len(keys) > 8 {
		return nil, errors.New("holds more than 8 keys")
	}
	return keys, nil
}

// checkCacheKeys checks a list of keys. What is wrong with it never says what they are.
func checkCacheKeys(v string) error {
	_, err := envelope.ParseKeys(v)
	return err
}

// maxWrapped is the longest CiphertextBlob in bytes:
// https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html
const maxWrapped = 6144

// parseWrapped reads a list of encrypted keys.
func parseWrapped(v string) ([][]byte, error) {
	return keyList(v, func(part string) ([]byte, error) {
		key, err := decodeBase64(part)
		switch {
		case err != nil || len(key) == 0:
			return nil, errors.New("holds something that is not base64; take the CiphertextBlob of kms:GenerateDataKey or kms:Encrypt")
		case len(key) > maxWrapped:
			return nil, errors.New("holds a key of more than " + strconv.Itoa(maxWrapped) + " bytes")
		}
		return key, nil
	})
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
	switch {
	case strings.HasPrefix(v, "https://"):
		return nil // see resolveAzure
	case !ok && strings.Contains(v, "://"):
		return errors.New("is neither a file nor s3://bucket/key")
	case !ok:
		return checkLine(v)
	}
	bucket, key, _ := strings.Cut(rest, "/")
	if len(bucket) < 3 || !isHostName(bucket) || key == "" || strings.HasSuffix(key, "/") || checkLine(key) != nil || strings.ContainsAny(key, "?#") {
		return errors.New("is not s3://bucket/key")
	}
	return nil
}

// prefixes reads mounts and folders. A slash at the end stays: without it the
// secret of that name is meant too. "*" alone is everything.
func prefixes(v string) ([]string, error) { return prefixList(list(v)) }

func prefixList(parts []string) ([]string, error) {
	out, err := each(parts, func(part string) (string, error) {
		p := bare(strings.TrimSpace(part))
		if p == "*" && len(parts) == 1 {
			return p, nil
		}
		err := checkPath(strings.TrimSuffix(p, "/"))
		if err == nil && (wild(p) || strings.Contains(p, "%")) {
			err = errors.New("is a prefix by itself: no wildcards, but * alone for everything")
		}
		if err != nil {
			err = wrapValue(part, err)
		}
		return p, err
	})
	if err == nil && len(out) == 0 {
		err = errors.New("names no prefix")
	}
	return out, err
}

// maxAudiences bounds THAW_WARM_AUDIENCES.
const maxAudiences = 256

// fileAudience is an audience as THAW_WARM_AUDIENCES has it.
type fileAudience struct {
	Audience  string          `json:"audience"`
	Namespace string          `json:"namespace"`
	Paths     json.RawMessage `json:"paths"`
	Key       string          `json:"key"`
}

// parseWarmAudiences reads the list of audiences. Its errors never quote it:
// it holds keys.
func parseWarmAudiences(v string) ([]WarmAudience, error) {
	var rows []fileAudience
	dec := json.NewDecoder(strings.NewReader(v))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rows); err != nil || dec.More() {
		return nil, errors.New(`is not a JSON list of {"audience","namespace","paths","key"}`)
	}
	if len(rows) == 0 || len(rows) > maxAudiences {
		return nil, errors.New("needs from 1 to " + strconv.Itoa(maxAudiences) + " audiences")
	}
	var out []WarmAudience
	for i, row := range rows {
		a, err := row.parse()
		if err == nil && slices.ContainsFunc(out, func(o WarmAudience) bool { return o.Audience == a.Audience }) {
			err = errors.New("has the name of another")
		}
		if err != nil {
			return nil, errors.New("audience " + strconv.Itoa(i+1) + " " + err.Error())
		}
		out = append(out, a)
	}
	return out, nil
}

func (r *fileAudience) parse() (WarmAudience, error) {
	a := WarmAudience{Audience: r.Audience, Key: Secret(r.Key)}
	if r.Audience == "" || checkLine(r.Audience) != nil {
		return a, errors.New("has no name")
	}
	var err error
	if a.Namespace, err = parseNamespace(r.Namespace); err != nil {
		return a, errors.New("has a bad namespace")
	}
	var many []string
	var one string
	if json.Unmarshal(r.Paths, &many) != nil && json.Unmarshal(r.Paths, &one) == nil {
		many = list(one)
	}
	if a.Paths, err = prefixList(many); err != nil {
		return a, errors.New(`has bad paths: a list of prefixes such as ["secret/","kv/app/"], or one string with commas, without wildcards`)
	}
	if r.Key != "" {
		if err := checkCacheKeys(r.Key); err != nil {
			return a, errors.New("has a bad key: " + err.Error())
		}
	}
	return a, nil
}
