package config

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/memcached/envelope"
)

// resolveShared puts together what the shared tier and the warm-up need, and
// reports contradictions.
func (l *loader) resolveShared() {
	d := &l.d
	l.checkIdle()
	if !d.CacheEnable {
		const message = "has no effect without the shared cache; set CACHE_ENABLE=true, or remove it"
		l.wrongIf(l.isSet("THAW_MEMCACHED") && l.good("CACHE_ENABLE", "THAW_MEMCACHED"), "THAW_MEMCACHED", message)
		l.wrongIf(d.Warm.Enable && l.good("CACHE_ENABLE"), "PROACTIVE_CACHE_ENABLE", message)
		return
	}
	d.CacheTTL = time.Hour
	ttl := *l.row("CACHE_TTL")
	ttl.to = &d.CacheTTL
	l.apply(&ttl, place{Name: ttl.Name}, l.value(ttl.Name))
	// Quoted, so that no two triples read alike.
	d.Audience = cmp.Or(d.Audience, strconv.Quote(d.Auth.Mount)+","+strconv.Quote(d.Auth.Role)+","+strconv.Quote(d.Platform.FunctionName))
	l.checkNodes()
	l.checkWarm()
}

// checkNodes reports contradictions in the settings of memcached's nodes.
func (l *loader) checkNodes() {
	d := &l.d
	ways := []string{"THAW_CACHE_KEY", "THAW_CACHE_KEY_KMS", "THAW_CACHE_KEY_KEYVAULT"}
	keys := slices.DeleteFunc(slices.Clone(ways), func(name string) bool { return !l.isSet(name) || l.bad[name] })
	for i := 1; i < len(keys); i++ {
		l.wrong(keys[i], "contradicts "+keys[0]+"; keep one of them")
	}
	switch {
	case l.bad["THAW_MEMCACHED"]:
	case len(d.Memcached) == 0 && d.Warm.Enable:
		l.wrong("PROACTIVE_CACHE_ENABLE", "there is nothing to warm: set THAW_MEMCACHED")
	case len(d.Memcached) == 0:
		l.warn("CACHE_ENABLE has no effect without memcached; set THAW_MEMCACHED")
	case len(keys) == 0 && l.good(ways...) && !d.Warm.ownKeys():
		l.wrong("THAW_MEMCACHED", "needs a key, since nothing goes there unsealed; set THAW_CACHE_KEY (make one with: openssl rand -base64 32), or THAW_CACHE_KEY_KMS")
	}
	inClear := len(d.Memcached) > 0 && !d.MemcachedTLS
	for _, name := range []string{"THAW_MEMCACHED_CACERT", "THAW_MEMCACHED_TLS_SERVER_NAME", "THAW_MEMCACHED_CLIENT_CERT", "THAW_MEMCACHED_CLIENT_KEY"} {
		l.wrongIf(inClear && l.isSet(name) && l.good(name), name,
			"has no effect, since the nodes are asked without TLS; write tls:// before each in THAW_MEMCACHED, or remove it")
	}
	if !inClear {
		l.together("THAW_MEMCACHED_CLIENT_CERT", "THAW_MEMCACHED_CLIENT_KEY",
			d.MemcachedFiles.ClientCert != "", d.MemcachedFiles.ClientKey != "", "THAW_MEMCACHED_CLIENT_CERT", "THAW_MEMCACHED_CLIENT_KEY")
	}
	if len(d.Memcached) > 0 {
		l.warnIf(d.MaxAge > 0 && d.MaxAge <= d.ClockSkew,
			"THAW_MAX_AGE is not above THAW_CLOCK_SKEW, so no verification of another instance is young enough to count; raise THAW_MAX_AGE")
		l.warnIf(d.Auth.Method == AuthNone,
			"the shared cache holds only what thaw reads under a login of its own, and none is configured; set VAULT_AUTH_ROLE or THAW_AUTH_METHOD")
	}
}

// checkWarm reports contradictions in the warm-up's settings.
func (l *loader) checkWarm() {
	w := &l.d.Warm
	l.wrongIf(len(w.Audiences) > 0 && len(w.Paths) > 0, "THAW_WARM_PATHS",
		"contradicts THAW_WARM_AUDIENCES, which names the prefixes of each audience; keep one of them")
	switch {
	case !w.Enable:
		return
	case !w.Recommended:
		l.idle("without NEW_PROACTIVE_CACHE_ENABLE=true: the legacy implementation has five", "PROACTIVE_CACHE_WORKERS")
	case l.good("PROACTIVE_CACHE_DUMP_INTERVAL"):
		l.idle("with NEW_PROACTIVE_CACHE_ENABLE=true", "PROACTIVE_CACHE_DUMP_INTERVAL")
	}
	l.wrongIf(w.DumpEvery > 0 && w.Dump == "" && l.good("THAW_DUMP"), "PROACTIVE_CACHE_DUMP_INTERVAL",
		"there is no place for the backup; set THAW_DUMP to a file or s3://bucket/key")
	l.warnIf(w.Dump != "" && w.DumpEvery == 0 && l.good("PROACTIVE_CACHE_DUMP_INTERVAL") && !w.Recommended,
		"THAW_DUMP is only read from: no backup is written without PROACTIVE_CACHE_DUMP_INTERVAL")
	l.warnIf(len(w.Paths) > 0 && !l.isSet("THAW_AUDIENCE"),
		"THAW_WARM_PATHS without THAW_AUDIENCE warms only for processes with this one's login and function name; set THAW_AUDIENCE as the functions have it")
}

// checkIdle tells of the warm-up's settings where nothing is warmed. Their names
// are others', too, so those that stand alone may be meant for another program.
func (l *loader) checkIdle() {
	names := []string{"NEW_PROACTIVE_CACHE_ENABLE", "PROACTIVE_CACHE_WORKERS", "PROACTIVE_CACHE_MINIMUM_FETCHING_TIME", "PROACTIVE_CACHE_DUMP_INTERVAL"}
	switch {
	case l.d.Platform.Lambda && !l.mute:
		l.idle("in the extension: the warm-up is a function of its own", append(names, "PROACTIVE_CACHE_ENABLE")...)
	case !l.d.Warm.Enable && !l.isSet("PROACTIVE_CACHE_ENABLE"): // where it is false, they wait to be of use
		l.idle("without PROACTIVE_CACHE_ENABLE=true", names...)
	}
	if !l.d.CacheEnable && l.firstSet(append(names, "PROACTIVE_CACHE_ENABLE", "CACHE_ENABLE")...) != "" {
		l.idle("without CACHE_ENABLE=true", "CACHE_TTL")
	}
}

// idle warns of those settings that the environment has.
func (l *loader) idle(why string, names ...string) {
	names = slices.DeleteFunc(names, func(name string) bool { return !l.isSet(name) })
	has := " has"
	if len(names) > 1 {
		has = " have"
	}
	l.warnIf(len(names) > 0, strings.Join(names, ", ")+has+" no effect "+why)
}

// ownKeys reports whether every audience brings its key.
func (w *Warm) ownKeys() bool {
	return len(w.Audiences) > 0 && !slices.ContainsFunc(w.Audiences, func(a WarmAudience) bool { return a.Key == "" })
}

// parseMemcached reads the nodes. ElastiCache's configuration endpoints have
// ".cfg." in their names, and say themselves which nodes there are:
// https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.html
func (d *draft) parseMemcached(v string) error {
	parts, secure := list(v), 0
	nodes, err := each(parts, func(part string) (string, error) {
		node, ok := strings.CutPrefix(part, "tls://")
		if ok {
			secure++
		}
		node, err := parseNode(node)
		return node, wrapValue(part, err)
	})
	err = cmp.Or(err,
		errIf(len(nodes) == 0, "names no node"),
		errIf(secure > 0 && secure < len(parts), "mixes nodes with and without tls://: what is sealed would still show who reads what"))
	if err == nil {
		d.Memcached, d.MemcachedTLS = nodes, secure > 0
		d.MemcachedDiscover = len(nodes) == 1 && strings.Contains(nodes[0], ".cfg.")
	}
	return err
}

// parseNode reads host or host:port.
func parseNode(v string) (string, error) {
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		host, port = v, "11211"
	}
	host = strings.Trim(host, "[]")
	_, badPort := checkPort(port)
	return net.JoinHostPort(host, port), cmp.Or(
		errIf(err != nil && strings.Contains(v, ":") && !strings.HasSuffix(v, "]") || strings.ContainsAny(v, "/@?#"), "is not host:port"),
		checkHost(host),
		errIf(badPort != nil || port == "", "has no port"))
}

// keyList reads keys with commas between, each of which is another.
func keyList[T any](v string, one func(string) (T, error)) ([]T, error) {
	var keys []T
	for part := range strings.SplitSeq(v, ",") {
		key, err := one(strings.TrimSpace(part))
		twice := slices.ContainsFunc(keys, func(k T) bool { return reflect.DeepEqual(k, key) })
		if err = cmp.Or(err, errIf(twice, "holds a key twice")); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, errIf(len(keys) > 8, "holds more than 8 keys")
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
		return key, cmp.Or(
			errIf(err != nil || len(key) == 0, "holds something that is not base64; take the CiphertextBlob of kms:GenerateDataKey or kms:Encrypt"),
			errIf(len(key) > maxWrapped, "holds a key of more than "+strconv.Itoa(maxWrapped)+" bytes"))
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
	rest, isS3 := strings.CutPrefix(v, "s3://")
	bucket, key, _ := strings.Cut(rest, "/")
	switch {
	case isS3:
		return errIf(len(bucket) < 3 || !isHostName(bucket) || key == "" || strings.HasSuffix(key, "/") || checkLine(key) != nil || strings.ContainsAny(key, "?#"),
			"is not s3://bucket/key")
	case strings.HasPrefix(v, "https://"):
		return nil // see resolveAzure
	}
	return cmp.Or(errIf(strings.Contains(v, "://"), "is neither a file nor s3://bucket/key"), checkLine(v))
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
		return p, wrapValue(part, cmp.Or(checkPath(strings.TrimSuffix(p, "/")),
			errIf(wild(p) || strings.Contains(p, "%"), "is a prefix by itself: no wildcards, but * alone for everything")))
	})
	return out, cmp.Or(err, errIf(len(out) == 0, "names no prefix"))
}

// maxAudiences bounds THAW_WARM_AUDIENCES.
const maxAudiences = 256

// fileAudience is an audience as THAW_WARM_AUDIENCES has it.
type fileAudience struct {
	WarmAudience
	Paths json.RawMessage // a list, or text with commas
}

// parseWarmAudiences reads the list of audiences. Its errors never quote it:
// it holds keys.
func parseWarmAudiences(v string) ([]WarmAudience, error) {
	var rows []fileAudience
	dec := json.NewDecoder(strings.NewReader(v))
	dec.DisallowUnknownFields()
	err := dec.Decode(&rows)
	err = cmp.Or(
		errIf(err != nil || dec.More(), `is not a JSON list of {"audience","namespace","paths","key"}`),
		errIf(len(rows) == 0 || len(rows) > maxAudiences, "needs from 1 to "+strconv.Itoa(maxAudiences)+" audiences"))
	if err != nil {
		return nil, err
	}
	var out []WarmAudience
	for i, row := range rows {
		a, err := row.parse()
		twice := slices.ContainsFunc(out, func(o WarmAudience) bool { return o.Audience == a.Audience })
		if err = cmp.Or(err, errIf(twice, "has the name of another")); err != nil {
			return nil, errors.New("audience " + strconv.Itoa(i+1) + " " + err.Error())
		}
		out = append(out, a)
	}
	return out, nil
}

func (r *fileAudience) parse() (a WarmAudience, err error) {
	var many []string
	var one string
	if json.Unmarshal(r.Paths, &many) != nil && json.Unmarshal(r.Paths, &one) == nil {
		many = list(one)
	}
	a = r.WarmAudience
	namespace, badNamespace := parseNamespace(a.Namespace)
	paths, badPaths := prefixList(many)
	a.Namespace, a.Paths = namespace, paths
	err = cmp.Or(
		errIf(a.Audience == "" || checkLine(a.Audience) != nil, "has no name"),
		errIf(badNamespace != nil, "has a bad namespace"),
		errIf(badPaths != nil, `has bad paths: a list of prefixes such as ["secret/","kv/app/"], or one string with commas, without wildcards`))
	if bad := checkCacheKeys(string(a.Key)); err == nil && a.Key != "" && bad != nil {
		err = errors.New("has a bad key: " + bad.Error())
	}
	return a, err
}
