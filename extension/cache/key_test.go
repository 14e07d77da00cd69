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
		{"GET", "/v1/secret/data/a?version=0", "", true, Key{Path: "secret/data/a"}},
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
	w.origin.put("secret/data/otp/a", v2("x", 1, ""))
	w.load(key("secret/data/otp/a"), "")
	w.expect(key("secret/data/otp/a"), "", Absent, "")
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"secret/data/a", "secret/data/a?version=3", "a//b", "a/%2e%2e/b", "a?list=true", "é/ü", "a;b?x=1;y=2"} {
		f.Add("GET", s, "")
		f.Add("LIST", s, "ns")
	}
	f.Add("GET", "a?"+strings.Repeat("!", 400), "") // longer once it is encoded
	f.Fuzz(func(t *testing.T, method, target, namespace string) {
		u, err := url.ParseRequestURI("/v1/" + target)
		if err != nil {
			return
		}
		r := Classify(method, u, Namespace(namespace))
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
