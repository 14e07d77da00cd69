package cache

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Op is the operation of a cacheable request.
type Op uint8

// Operations.
const (
	Read Op = iota
	List
)

// Key identifies an entry. Two requests that the origin may answer
// differently never share one.
type Key struct {
	Namespace string // as the request names it, without slashes at either end
	Path      string // canonical API path without /v1/ and without a slash at either end
	Query     string // sorted, without list=true
	Op        Op
	Personal  uint64 // the identity's ID for answers that only it may see; 0: shared among those with the capability
}

// Method returns the HTTP method that asks for the key.
func (k Key) Method() string {
	if k.Op == List {
		return "LIST"
	}
	return http.MethodGet
}

// Request is what the cache makes of a request line.
type Request struct {
	Key       Key
	Cacheable bool // a plain read or list that an entry may answer
	KVShaped  bool // its query is one that KV knows (none, version, list, depth), and so is its path, or it is the mounts preflight
}

// Classify reads the method and URL of a request below /v1/. Only plain paths
// are cacheable: whatever encodes what needs no encoding, has an empty, "." or ".."
// segment or a control character passes through and touches no entry, so that
// no two spellings can be mistaken for each other.
func Classify(method string, u *url.URL, namespace string) Request {
	path, ok := strings.CutPrefix(u.Path, "/v1/")
	list := method == "LIST"
	if !ok || !list && method != http.MethodGet || !plainEncoding(u.RawPath) || u.Fragment != "" || u.ForceQuery {
		return Request{}
	}
	key, shaped := Key{Namespace: namespace, Path: path}, true
	if u.RawQuery != "" {
		var asked bool
		if key.Query, asked, shaped, ok = canonicalQuery(u.RawQuery); !ok || list && asked {
			return Request{} // to a list Vault adds a warning about the parameter
		}
		list = list || asked
	}
	if list {
		key.Op, key.Path = List, strings.TrimSuffix(path, "/")
	}
	if !plainPath(key.Path) || namespace != "" && !plainPath(namespace) {
		return Request{}
	}
	_, preflight := preflightPath(key.Path)
	return Request{Key: key, Cacheable: true, KVShaped: shaped && (preflight || askable(key.Path))}
}

// plainEncoding reports whether a path as it came encodes nothing but what Go would
// encode, too. Others leave more of it as it is: ( ) ! ' * as JavaScript does, or
// UTF-8. Empty: it is encoded as Go does it.
func plainEncoding(raw string) bool {
	for {
		_, rest, found := strings.Cut(raw, "%")
		if !found {
			return true
		}
		b, err := strconv.ParseUint(rest[:min(2, len(rest))], 16, 8)
		if err != nil || (&url.URL{Path: "/" + string([]byte{byte(b)})}).EscapedPath() != "/%"+rest[:2] {
			return false
		}
		raw = rest[2:]
	}
}

// maxPath bounds the path and the namespace of what is cacheable, in bytes.
const maxPath = 2048

// plainPath reports whether each segment of a path is one, and spelled as it is.
func plainPath(p string) bool {
	if len(p) > maxPath || !utf8.ValidString(p) { // other bytes don't survive JSON, in which capabilities are asked for
		return false
	}
	encoded := func(c rune) bool { return c < 0x20 || c == 0x7f || c == '%' || c == '\\' }
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, encoded) {
			return false
		}
	}
	return true
}

// maxQuery bounds the query of what is cacheable, in bytes.
const maxQuery = 1024

// canonicalQuery sorts a query. It refuses repeated names and anything that
// does not survive being decoded and encoded again.
func canonicalQuery(raw string) (query string, list, shaped, ok bool) {
	if len(raw) > maxQuery || strings.ContainsAny(raw, ";#") {
		return "", false, false, false
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return "", false, false, false
	}
	shaped = true
	for name, vs := range values {
		if len(vs) != 1 {
			return "", false, false, false
		}
		switch name {
		case "list":
			if vs[0] != "true" {
				return "", false, false, false
			}
			list = true
			delete(values, name)
		case "scan": // OpenBao's recursive list, a capability of its own
			return "", false, false, false
		case "version", "depth", "limit":
			n, err := strconv.Atoi(vs[0])
			if err != nil || n < 0 || strconv.Itoa(n) != vs[0] {
				return "", false, false, false
			}
		case "after":
		default:
			shaped = false
		}
	}
	if query = values.Encode(); len(query) > maxQuery {
		return "", false, false, false // the key's own request must be of its key
	}
	return query, list, shaped, true
}

// versionOf returns N when the query is exactly version=N.
func versionOf(query string) int {
	v, ok := strings.CutPrefix(query, "version=")
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0
	}
	return n
}

func firstSegment(p string) string {
	first, _, _ := strings.Cut(p, "/")
	return first
}

func lastSegment(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

func joined(namespace, path string) string {
	if namespace == "" {
		return path
	}
	return namespace + "/" + path
}

// MatchPath reports whether path matches one of the patterns: exact, with "+"
// for one whole segment, or with "*" at the end for any rest, as in Vault's
// policies (https://developer.hashicorp.com/vault/docs/concepts/policies).
func MatchPath(patterns []string, path string) bool {
	for _, p := range patterns {
		if matchPath(strings.Trim(p, " "), path) {
			return true
		}
	}
	return false
}

func matchPath(pattern, path string) bool {
	pattern = strings.TrimPrefix(pattern, "/")
	for {
		ps, prest, pmore := strings.Cut(pattern, "/")
		s, rest, more := strings.Cut(path, "/")
		if prefix, ok := strings.CutSuffix(ps, "*"); ok && !pmore {
			return strings.HasPrefix(s, prefix)
		}
		if ps != "+" && ps != s {
			return false
		}
		if !pmore || !more {
			return pmore == more
		}
		pattern, path = prest, rest
	}
}
