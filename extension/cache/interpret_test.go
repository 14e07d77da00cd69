package cache

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestInterpretAgreesWithWhatACacheStores(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	v2, v1 := Mount{Path: "secret", Version: 2}, Mount{Path: "kv", Version: 1}
	anchor := Index{Applied: 7, ActiveTime: "t", FirstSeen: at}
	for name, c := range map[string]struct {
		path    string
		op      Op
		mount   Mount
		body    string
		header  http.Header
		status  int
		ok      bool
		kind    Kind
		version int
		expires time.Time
		as      string // path of the record, if not path
	}{
		"data":              {path: "secret/data/a", mount: v2, body: `{"data":{"data":{},"metadata":{"version":3,"deletion_time":""}},"mount_type":"kv"}`, ok: true, kind: Data, version: 3},
		"OpenBao":           {path: "secret/data/a", mount: v2, body: `{"data":{"data":{},"metadata":{"version":3}}}`, ok: true, kind: Data, version: 3},
		"deletion ahead":    {path: "secret/data/a", mount: v2, body: `{"data":{"data":{},"metadata":{"version":3,"deletion_time":"2026-01-03T00:00:00Z"}}}`, ok: true, kind: Data, version: 3, expires: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)},
		"deletion behind":   {path: "secret/data/a", mount: v2, body: `{"data":{"data":{},"metadata":{"version":3,"deletion_time":"2026-01-01T00:00:00Z"}}}`},
		"version 1":         {path: "kv/a", mount: v1, body: `{"data":{"x":"y"},"lease_duration":2764800}`, ok: true, kind: KV1},
		"like version 2":    {path: "kv/data/a", mount: v1, body: `{"data":{"metadata":{"version":9}}}`, ok: true, kind: KV1},
		"list":              {path: "secret/metadata", op: List, mount: v2, body: `{"data":{"keys":["a"]}}`, ok: true, kind: Listing},
		"list of a mount":   {path: "kv", op: List, mount: v1, body: `{"data":{"keys":["a"]}}`, ok: true, kind: Listing},
		"preflight":         {path: preflightPrefix + "secret/a", body: `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`, ok: true, kind: Preflight, as: preflightPrefix + "secret"},
		"other preflight":   {path: preflightPrefix + "secret/a", body: `{"data":{"path":"kv/","type":"kv"}}`},
		"wrapped":           {path: "secret/data/a", mount: v2, body: `{"wrap_info":{"token":"x"}}`},
		"a token":           {path: "secret/data/a", mount: v2, body: `{"auth":{"client_token":"x"}}`},
		"leased":            {path: "kv/a", mount: v1, body: `{"lease_id":"x","data":{}}`},
		"from in between":   {path: "kv/a", mount: v1, body: `{"data":{}}`, header: http.Header{"Age": {"3"}}},
		"not found":         {path: "kv/a", mount: v1, body: `{"errors":[]}`, status: 404},
		"another mount":     {path: "kvx/a", mount: v1, body: `{"data":{}}`},
		"not a secret":      {path: "secret/config", mount: v2, body: `{"data":{}}`},
		"not JSON":          {path: "kv/a", mount: v1, body: `<html>`},
		"not said to be it": {path: "kv/a", mount: v1, body: `{"data":{}}`, header: http.Header{"Content-Type": {"text/html"}}},
	} {
		h := http.Header{"Content-Type": {"application/json"}, "Date": {"Fri, 02 Jan 2026 03:04:05 GMT"}, "Connection": {"close"}}
		for k, v := range c.header {
			h[k] = v
		}
		status := 200
		if c.status != 0 {
			status = c.status
		}
		key := Key{Path: c.path, Op: c.op}
		r, ok := Interpret(key, c.mount, Answer{Status: status, Header: h, Body: []byte(strings.Replace(c.body, "{", `{"request_id":"1",`, 1)), SentAt: at}, anchor)
		if ok != c.ok {
			t.Errorf("%s: ok %t", name, ok)
			continue
		}
		if !ok {
			continue
		}
		if c.as != "" {
			key.Path, c.as = c.as, ""
		}
		if r.Key != key || r.Kind != c.kind || r.Version != c.version || !r.Expires.Equal(c.expires) || !r.SentAt.Equal(at) || !r.FetchedAt.Equal(at) {
			t.Errorf("%s: %+v", name, r)
		}
		if r.Date == "" || r.Header.Get("Date")+r.Header.Get("Connection") != "" || (r.Index == anchor) == (c.kind == Preflight) {
			t.Errorf("%s: headers %v, anchor %+v", name, r.Header, r.Index)
		}
	}
}

func TestResourceKeysCoverASecretHoweverItIsNamed(t *testing.T) {
	t.Parallel()
	want := []Key{
		{Path: "team/kv/data/app/db"}, {Path: "team/kv/metadata/app/db"}, {Path: "team/kv/subkeys/app/db"},
		{Path: "team/kv/data/app/db", Query: "version=1"}, {Path: "team/kv/data/app/db", Query: "version=3"}, {Path: "team/kv/subkeys/app/db", Query: "version=2"},
		{Path: "team/kv/metadata/app", Op: List}, {Path: "team/kv/metadata", Op: List},
	}
	for _, path := range []string{"team/kv/data/app/db", "team/kv/metadata/app/db", "team/kv/app/db"} {
		keys := ResourceKeys("", path, 3)
		for _, k := range want {
			if !slices.Contains(keys, k) {
				t.Errorf("%s: no %+v", path, k)
			}
		}
		for i, k := range keys {
			if slices.Contains(keys[:i], k) || k.Query == "version=4" {
				t.Errorf("%s: unwanted %+v", path, k)
			}
		}
	}
	if keys := ResourceKeys("ns", "kv/a", 1); !slices.Contains(keys, Key{Namespace: "ns", Path: "kv/a"}) || !slices.Contains(keys, Key{Namespace: "ns", Path: "kv", Op: List}) {
		t.Errorf("KV v1: %+v", keys)
	}
}
