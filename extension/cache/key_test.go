package cache

import (
	"net/url"
	"strings"
	"testing"
)

func TestG3KeysTellRequestsApart(t *testing.T) {
	t.Parallel()
	cases := []struct {
		method, target, namespace string
		cacheable                 bool
		want                      Key
	}{
		{"GET", "/v1/secret/data/a", "", true, Key{Path: "secret/data/a"}},
		{"GET", "/v1/secret/data/A", "", true, Key{Path: "secret/data/A"}},
		{"GET", "/v1/secret/data/a?version=2", "", true, Key{Path: "secret/data/a", Query: "version=2"}},
		{"GET", "/v1/secret/data/a?version=0", "", true, Key{Path: "secret/data/a", Query: "version=0"}},
		{"GET", "/v1/secret/data/a?version=02", "", false, Key{}},
		{"GET", "/v1/secret/data/a?version=2&version=3", "", false, Key{}},
		{"GET", "/v1/secret/data/a?version=-1", "", false, Key{}},
		{"LIST", "/v1/secret/metadata/a", "", true, Key{Path: "secret/metadata/a", Op: List}},
		{"LIST", "/v1/secret/metadata/a/", "", true, Key{Path: "secret/metadata/a", Op: List}},
		{"GET", "/v1/secret/metadata/a?list=true", "", true, Key{Path: "secret/metadata/a", Op: List}},
		{"GET", "/v1/secret/metadata/a?list=1", "", false, Key{}},
		{"LIST", "/v1/secret/metadata/a?list=true", "", false, Key{}}, // answered with a warning
		{"GET", "/v1/secret/data/a", "ns1/ns2", true, Key{Namespace: "ns1/ns2", Path: "secret/data/a"}},
		{"GET", "/v1/secret/data/a", "ns1//ns2", false, Key{}},
		{"GET", "/v1/secret/data/%61", "", false, Key{}}, // another spelling
		{"GET", "/v1/secret/data%2fa", "", false, Key{}},
		{"GET", "/v1/secret//data/a", "", false, Key{}},
		{"GET", "/v1/secret/data/a/", "", false, Key{}},
		{"GET", "/v1/secret/./data/a", "", false, Key{}},
		{"GET", "/v1/secret/../data/a", "", false, Key{}},
		{"GET", "/v1/secret/data/a%00", "", false, Key{}},
		{"GET", "/v1/secret/data/a%25", "", false, Key{}},
		{"GET", "/v1/secret/data/a;b", "", true, Key{Path: "secret/data/a;b"}},
		{"GET", "/v1/secret/data/a?", "", false, Key{}},
		{"GET", "/v1/", "", false, Key{}},
		{"GET", "/v1/secret/data/%C3%A9", "", true, Key{Path: "secret/data/é"}},
		{"GET", "/v1/secret/data/%c3%a9", "", false, Key{}},
		{"PUT", "/v1/secret/data/a", "", false, Key{}},
		{"HEAD", "/v1/secret/data/a", "", false, Key{}},
		{"GET", "/other", "", false, Key{}},
	}
	for _, c := range cases {
		u, err := url.ParseRequestURI(c.target)
		if err != nil {
			t.Fatal(err)
		}
		r := Classify(c.method, u, c.namespace)
		if r.Cacheable != c.cacheable || c.cacheable && r.Key != c.want {
			t.Errorf("%s %s in %q: %v %+v, want %v %+v", c.method, c.target, c.namespace, r.Cacheable, r.Key, c.cacheable, c.want)
		}
	}
}

func TestSameAnswerIgnoresTheRequestID(t *testing.T) {
	t.Parallel()
	a := []byte(`{"request_id":"1","data":{"v":"x"}}`)
	if !SameAnswer(a, []byte(`{"request_id":"22","data":{"v":"x"}}`)) || SameAnswer(a, []byte(`{"request_id":"1","data":{"v":"y"}}`)) {
		t.Error("request_id")
	}
	if SameAnswer([]byte(`{"request_id":"a\"b","x":1}`), []byte(`{"request_id":"a\"c","x":1}`)) {
		t.Error("an escaped quote is no end")
	}
}

// TestEveryPlainNameIsKeyed however its client encodes it, and no two names share a
// key; what is spelled in any other way has none.
func TestEveryPlainNameIsKeyed(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{ // to path and query; empty: not keyed
		"a(b)": "a(b)", "a%28b%29": "a(b)", "a%28b)": "a(b)", "it's!*": "it's!*", "my%20secret%20(1)": "my secret (1)", "caf\u00e9": "caf\u00e9", "caf%C3%A9": "caf\u00e9",
		"caf\u00e9%20(x)": "caf\u00e9 (x)", "a*": "a*", "a~b-c_d.e": "a~b-c_d.e", "a:b@c&d=e+f$,g": "a:b@c&d=e+f$,g", "a[b]": "a[b]", "a%5Bb%5D": "a[b]", "a%3Fb": "a?b", "a%23b": "a#b",
		"a;b": "a;b", "...": "...", "a..b": "a..b", ".a": ".a", "%E2%82%AC": "\u20ac",
		// encoded without need, or not as others do it
		"%61": "", "a%2Db": "", "caf%c3%a9": "", "a%2Fb": "", "a%2f(b)": "", "a%2E": "", "%2e%2e/a": "", "a(%2e%2e)/": "", "a%3Ab": "",
		// of which servers make different things
		"": "", "a//b": "", "/a": "", "a/": "", "a/./b": "", "a/../b": "", "a%5Cb": "", "a\\b": "", "a%25b": "", "a%2525b": "", "a%00b": "", "a%0Ab": "", "a%7Fb": "", "a%FFb": "", "caf\xe9": "",
		// queries
		"a?version=0": "a?version=0", "a?version=3": "a?version=3", "a?version=00": "", "a?version=-1": "", "a?version=%2B1": "", "a?version=": "", "a?version": "", "a?version=1&version=1": "",
		"a?version=1&version=2": "", "a?version=0&depth=1": "a?depth=1&version=0", "a?depth=0": "a?depth=0", "a?version=%30": "a?version=0", "a?Version=0": "a?Version=0", "a?": "",
		"a?list=true&version=0": "a?version=0", "a?list=1": "", "a?scan=true": "", "a?version=0;x=1": "", "a?version=%": "", "a?version=0#x": "",
	} {
		u, err := url.ParseRequestURI("/v1/secret/data/" + target)
		if err != nil {
			if want != "" {
				t.Errorf("%q: %v", target, err)
			}
			continue
		}
		r := Classify("GET", u, "")
		got := strings.TrimPrefix(r.Key.Path, "secret/data/")
		if r.Key.Query != "" {
			got += "?" + r.Key.Query
		}
		if r.Cacheable != (want != "") || r.Cacheable && got != want {
			t.Errorf("%q: keyed %v as %q, want %q", target, r.Cacheable, got, want)
		}
	}
}

func TestMatchPath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"secret/data/a", "secret/data/a", true},
		{"secret/data/a", "secret/data/ab", false},
		{"secret/data/*", "secret/data/a/b", true},
		{"secret/data/a*", "secret/data/ab", true},
		{"secret/+/a", "secret/data/a", true},
		{"secret/+/a", "secret/data/x/a", false},
		{"secret/+/*", "secret/data/x/a", true},
		{"*", "anything/at/all", true},
		{"/kv/x", "kv/x", true},
	} {
		if got := MatchPath([]string{c.pattern}, c.path); got != c.want {
			t.Errorf("%s against %s: %v", c.pattern, c.path, got)
		}
	}
}

func TestNoCachePathsStayOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.NoCache = []string{"secret/data/otp/*"} })
	w.origin.put("secret/data/otp/a", "x")
	w.load(key("secret/data/otp/a"), "")
	w.expect(key("secret/data/otp/a"), "", Absent, "")
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"secret/data/a", "secret/data/a?version=3", "a//b", "a/%2e%2e/b", "a?list=true", "é/ü", "a;b?x=1;y=2", "a(b)!'*", "a%20(b)", "a%28b)", "a%2Fb(", "%ff"} {
		f.Add("GET", s, "")
		f.Add("LIST", s, "ns")
	}
	f.Add("GET", "a?"+strings.Repeat("!", 400), "") // longer once it is encoded
	f.Fuzz(func(t *testing.T, method, target, namespace string) {
		u, err := url.ParseRequestURI("/v1/" + target)
		if err != nil {
			return
		}
		r := Classify(method, u, strings.Trim(namespace, "/ "))
		if !r.Cacheable {
			return
		}
		// What is asked of the origin for a key is classified as that key.
		again := &url.URL{Path: "/v1/" + r.Key.Path, RawQuery: r.Key.Query}
		parsed, err := url.ParseRequestURI(again.RequestURI())
		if err != nil {
			t.Fatalf("the key's own URL %s: %v", again, err)
		}
		if second := Classify(r.Key.Method(), parsed, r.Key.Namespace); !second.Cacheable || second.Key != r.Key {
			t.Fatalf("%+v became %+v", r.Key, second)
		}
		if strings.Contains("/"+r.Key.Path+"/", "/../") || strings.Contains(r.Key.Path, "//") {
			t.Fatalf("path %q", r.Key.Path)
		}
	})
}
