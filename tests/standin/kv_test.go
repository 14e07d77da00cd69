package standin

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestKV2KeepsVersionsAndSaysWhatIsGone(t *testing.T) {
	t.Parallel()
	c := root(t, New(Options{}))
	for i := 1; i <= 3; i++ {
		c.must(200, "POST", "/v1/secret/data/app", fmt.Sprintf(`{"data":{"k":"v%d"}}`, i))
	}
	out := c.must(200, "GET", "/v1/secret/data/app", "")
	if got := at(out, "data", "data", "k"); got != "v3" {
		t.Errorf("latest = %v, want v3", got)
	}
	if at(out, "mount_type") != "kv" || len(at(out, "request_id").(string)) != 36 {
		t.Errorf("envelope = %v", out)
	}
	out = c.must(200, "GET", "/v1/secret/data/app?version=1", "")
	if at(out, "data", "data", "k") != "v1" || at(out, "data", "metadata", "version") != 1.0 {
		t.Errorf("version 1 = %v", out)
	}
	c.must(204, "DELETE", "/v1/secret/data/app", "")
	out = c.must(404, "GET", "/v1/secret/data/app", "")
	if at(out, "data", "metadata", "deletion_time") == "" || at(out, "data", "data") != nil {
		t.Errorf("deleted = %v", out)
	}
	c.must(204, "POST", "/v1/secret/undelete/app", `{"versions":[3]}`)
	c.must(200, "GET", "/v1/secret/data/app", "")
	c.must(204, "POST", "/v1/secret/destroy/app", `{"versions":"3"}`)
	out = c.must(404, "GET", "/v1/secret/data/app", "")
	if at(out, "data", "metadata", "destroyed") != true {
		t.Errorf("destroyed = %v", out)
	}
	c.must(204, "DELETE", "/v1/secret/metadata/app", "")
	out = c.must(404, "GET", "/v1/secret/data/app", "")
	if errs, _ := out["errors"].([]any); errs == nil || len(errs) != 0 {
		t.Errorf("gone = %v, want errors: []", out)
	}
}

func TestKV2ChecksAndSets(t *testing.T) {
	t.Parallel()
	c := root(t, New(Options{}))
	c.must(200, "POST", "/v1/secret/data/a", `{"options":{"cas":0},"data":{"k":1}}`)
	out := c.must(400, "POST", "/v1/secret/data/a", `{"options":{"cas":0},"data":{"k":2}}`)
	if got := out["errors"].([]any)[0]; got != "check-and-set parameter did not match the current version" {
		t.Errorf("error = %v", got)
	}
	c.must(204, "POST", "/v1/secret/metadata/a", `{"cas_required":true}`)
	out = c.must(400, "POST", "/v1/secret/data/a", `{"data":{"k":2}}`)
	if got := out["errors"].([]any)[0]; got != "check-and-set parameter required for this call" {
		t.Errorf("error = %v", got)
	}
	c.must(200, "POST", "/v1/secret/data/a", `{"options":{"cas":1},"data":{"k":2}}`)
}

func TestKV2PrunesToMaxVersionsAndRaisesOldest(t *testing.T) {
	t.Parallel()
	c := root(t, New(Options{}))
	c.must(204, "POST", "/v1/secret/metadata/p", `{"max_versions":2}`)
	for range 4 {
		c.must(200, "POST", "/v1/secret/data/p", `{"data":{"k":1}}`)
	}
	out := c.must(200, "GET", "/v1/secret/metadata/p", "")
	if at(out, "data", "oldest_version") != 3.0 || len(at(out, "data", "versions").(map[string]any)) != 2 {
		t.Errorf("metadata = %v", out)
	}
	c.must(404, "GET", "/v1/secret/data/p?version=2", "")
}

func TestKV2DeletesVersionsWhenTheirTimeComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := root(t, New(Options{}))
		c.must(204, "POST", "/v1/secret/metadata/d", `{"delete_version_after":"30s"}`)
		c.must(200, "POST", "/v1/secret/data/d", `{"data":{"k":1}}`)
		out := c.must(200, "GET", "/v1/secret/data/d", "")
		when, err := time.Parse(time.RFC3339Nano, at(out, "data", "metadata", "deletion_time").(string))
		if err != nil || time.Until(when) != 30*time.Second {
			t.Errorf("deletion_time = %v (%v), want in 30s", when, err)
		}
		time.Sleep(31 * time.Second) // the bubble's clock
		c.must(404, "GET", "/v1/secret/data/d", "")
	})
}

func TestKV2PatchesAndShowsSubkeysAndLists(t *testing.T) {
	t.Parallel()
	c := root(t, New(Options{}))
	c.must(200, "PUT", "/v1/secret/data/x/one", `{"data":{"a":{"b":1,"c":2},"d":3}}`)
	c.must(200, "PATCH", "/v1/secret/data/x/one", `{"data":{"a":{"b":null,"e":5}}}`)
	out := c.must(200, "GET", "/v1/secret/data/x/one", "")
	if got, _ := json.Marshal(at(out, "data", "data")); string(got) != `{"a":{"c":2,"e":5},"d":3}` {
		t.Errorf("patched = %s", got)
	}
	out = c.must(200, "GET", "/v1/secret/subkeys/x/one?depth=1", "")
	if got, _ := json.Marshal(at(out, "data", "subkeys")); string(got) != `{"a":null,"d":null}` {
		t.Errorf("subkeys = %s", got)
	}
	c.must(204, "PATCH", "/v1/secret/metadata/x/one", `{"custom_metadata":{"team":"a","tier":"1"}}`)
	c.must(204, "PATCH", "/v1/secret/metadata/x/one", `{"custom_metadata":{"tier":null}}`)
	out = c.must(200, "GET", "/v1/secret/data/x/one", "")
	if got, _ := json.Marshal(at(out, "data", "metadata", "custom_metadata")); string(got) != `{"team":"a"}` {
		t.Errorf("custom_metadata = %s", got)
	}
	c.must(200, "PUT", "/v1/secret/data/x", `{"data":{"k":1}}`)
	for _, ask := range []struct{ method, path string }{{"LIST", "/v1/secret/metadata"}, {"GET", "/v1/secret/metadata/?list=true"}} {
		out = c.must(200, ask.method, ask.path, "")
		if got, _ := json.Marshal(at(out, "data", "keys")); string(got) != `["x","x/"]` {
			t.Errorf("%s %s = %s", ask.method, ask.path, got)
		}
	}
	c.must(404, "LIST", "/v1/secret/metadata/none", "")
}

func TestKV1ReadsAndWrites(t *testing.T) {
	t.Parallel()
	c := root(t, New(Options{}))
	c.must(204, "POST", "/v1/kv/app", `{"k":"v","n":12345678901234567890}`)
	r := httptest.NewRequest("GET", "/v1/kv/app", nil)
	r.Header.Set("Authorization", "Bearer root")
	w := httptest.NewRecorder()
	c.o.ServeHTTP(w, r)
	if !strings.Contains(w.Body.String(), `"lease_duration":2764800,"data":{"k":"v","n":12345678901234567890}`) {
		t.Errorf("body = %s", w.Body)
	}
	c.must(400, "POST", "/v1/kv/app", "")
	c.must(200, "LIST", "/v1/kv", "")
	c.must(204, "DELETE", "/v1/kv/app", "")
	c.must(404, "GET", "/v1/kv/app", "")
}
