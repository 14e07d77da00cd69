package cache

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/wire"
)

// FuzzSameAnswer: a re-read verifies an entry where both are the same answer. So
// nothing but the request_id may differ then.
func FuzzSameAnswer(f *testing.F) {
	for _, s := range [][2]string{
		{`{"request_id":"1","data":{"v":"x"}}`, `{"request_id":"22","data":{"v":"x"}}`}, {`{"request_id":"1","data":{"v":"x"}}`, `{"request_id":"1","data":{"v":"y"}}`},
		{`{"request_id":"a\"b","x":1}`, `{"request_id":"a\"c","x":1}`}, {`{"request_id":"1"}`, `{"request_id":"2"}`}, {`{"request_id":"1","request_id":"2"}`, `{"request_id":"3","request_id":"2"}`},
		{`","data":1}`, `{"request_id":"","data":1}`}, {`{"request_id":"`, `{"request_id":"x`}, {``, `{}`}, {`{"data":{"request_id":"1"}}`, `{"data":{"request_id":"2"}}`},
	} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		same := SameAnswer(a, b)
		if same != SameAnswer(b, a) || !SameAnswer(a, a) {
			t.Fatal("no equivalence")
		}
		var x, y map[string]any
		if !same || json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
			return
		}
		delete(x, "request_id")
		delete(y, "request_id")
		if !reflect.DeepEqual(x, y) {
			t.Fatalf("%s\nis taken for\n%s", a, b)
		}
	})
}

// FuzzAnswer reads what an origin may send as a secret, a mount or a refusal.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"request_id":"1","lease_id":"","lease_duration":0,"data":{"data":{"v":"x"},"metadata":{"version":3,"deletion_time":"2026-11-21T08:01:59.257334083Z"}},"wrap_info":null,"mount_type":"kv"}`,
		`{"data":{"current_version":4,"oldest_version":2,"versions":{"2":{}}}}`, `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`, `{"data":{"path":"///","type":"generic","options":null}}`,
		`{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, `{"data":{"metadata":{"version":1e9}}}`, `{"data":{"metadata":{"version":-1}}}`, `{"data":{"metadata":{"version":"3"}}}`,
		`{"data":{"current_version":"x","versions":[]}}`, `{"data":null}`, `[]`, `{"data":{"metadata":{"version":99999999999999999999,"deletion_time":"never"}}}`, `{"lease_duration":9223372036854775807}`,
	} {
		f.Add([]byte(s), "secret/data/app")
	}
	f.Fuzz(func(t *testing.T, body []byte, path string) {
		s, ok := parseShape(wire.New(200, nil, body))
		if ok && !json.Valid(body) {
			t.Fatalf("no JSON and taken: %s", body)
		}
		if s.hasMetadata && s.version < 1 {
			t.Fatalf("version %d of %s", s.version, body)
		}
		if m, ok := ParseMount("ns", body); ok && (m.Version < 0 || m.Version > 2 || strings.HasPrefix(m.Path, "/") || strings.HasSuffix(m.Path, "/")) {
			t.Fatalf("%+v of %s", m, body)
		}
		if wire.TokenRefused(403, body) && !bytes.Contains(body, []byte("token")) && !bytes.Contains(body, []byte("denied")) && !bytes.Contains(body, []byte(`\u`)) {
			t.Fatalf("the token is refused by %s", body)
		}
		// Whatever it says of its kind, none is a list that was no list.
		for _, mount := range []Mount{{}, {Path: "secret", Version: 1}, {Path: "secret", Version: 2}} {
			if k := kindOf(Key{Path: path}, mount, mount.Version > 0, s); k == Listing {
				t.Fatalf("%s makes a list of a read of %s", body, path)
			}
		}
		if !s.deletion.IsZero() && s.deletion.Year() > 9999 {
			t.Fatal(s.deletion.Format(time.RFC3339))
		}
	})
}
