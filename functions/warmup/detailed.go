package warmup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// head is what an answer to a read of a KV v2 secret is made of besides its
// data, which no version ever changes: where all of it is as in the answer that
// the tier holds, a read would bring the same answer.
type head struct {
	version   string
	created   string // of that version, as all below
	deletion  string
	destroyed bool
	custom    string      // the secret's custom metadata, compact JSON
	at        time.Time   // when the request was sent
	index     cache.Index // received before that
}

// absent reports whether a read answered 404 then, or may have.
func (h *head) absent() bool {
	if h.destroyed || h.deletion == "" {
		return h.destroyed
	}
	at, err := time.Parse(time.RFC3339Nano, h.deletion)
	return err != nil || !h.at.Add(time.Minute).Before(at) // of which clock is not known
}

// detailed lists a KV v2 prefix with the metadata of every secret in one
// request: OpenBao's detailed-metadata by the method SCAN
// (https://openbao.org/api-docs/secret/kv/kv-v2/#list-secrets; key_info holds
// for each key what a read of its metadata answers). Without it, or where the
// answer is too large, the error is errNoScan. heads has no entry where
// something is missing.
func (k *walker) detailed(ctx context.Context) (names []string, heads map[string]*head, err error) {
	if k.p.mount.Version != 2 {
		return nil, nil, errNoScan
	}
	index := k.w.cursor.indexNow()
	a, err := k.w.readBy(ctx, "SCAN", k.namespace, join(k.p.under("detailed-metadata"), k.p.folder))
	if errors.As(err, new(errRefused)) || err == nil && a.Status != http.StatusOK {
		return nil, nil, errNoScan
	} else if err != nil {
		return nil, nil, err
	}
	names, heads, ok := readDetailed(a.Body)
	if !ok {
		return nil, nil, errNoScan
	}
	for _, h := range heads {
		h.at, h.index = a.SentAt, index
	}
	return names, heads, nil
}

// readDetailed reads an answer of detailed-metadata.
func readDetailed(body []byte) (names []string, heads map[string]*head, ok bool) {
	var answer struct {
		Data struct {
			Keys []string                   `json:"keys"`
			Info map[string]json.RawMessage `json:"key_info"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Data.Info) == 0 {
		return nil, nil, false
	}
	heads = make(map[string]*head, len(answer.Data.Info))
	for name, raw := range answer.Data.Info {
		var m struct {
			Current  json.Number     `json:"current_version"`
			Custom   json.RawMessage `json:"custom_metadata"`
			Versions map[string]struct {
				Created   string `json:"created_time"`
				Deletion  string `json:"deletion_time"`
				Destroyed bool   `json:"destroyed"`
			} `json:"versions"`
		}
		if json.Unmarshal(raw, &m) != nil {
			continue
		}
		v, there := m.Versions[m.Current.String()]
		if n, err := strconv.Atoi(m.Current.String()); err != nil || n <= 0 || !there || v.Created == "" || m.Custom == nil {
			continue
		}
		heads[name] = &head{version: m.Current.String(), created: v.Created, deletion: v.Deletion, destroyed: v.Destroyed, custom: compact(m.Custom)}
	}
	return answer.Data.Keys, heads, true
}

func compact(raw json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return string(raw)
	}
	return out.String()
}

// matches reports whether a read would bring what r holds.
func (h *head) matches(r cache.Record) bool {
	var answer struct {
		Data struct {
			Metadata struct {
				Version  json.Number     `json:"version"`
				Created  string          `json:"created_time"`
				Deletion string          `json:"deletion_time"`
				Custom   json.RawMessage `json:"custom_metadata"`
			} `json:"metadata"`
		} `json:"data"`
	}
	if h == nil || h.absent() || r.Kind != cache.Data || r.Status != http.StatusOK || json.Unmarshal(r.Body, &answer) != nil {
		return false
	}
	m := answer.Data.Metadata
	return m.Version.String() == h.version && m.Created == h.created && m.Deletion == h.deletion && m.Custom != nil && compact(m.Custom) == h.custom
}

// spare takes from the work of a modified pass what the listing's metadata
// shows to be as the tier holds it.
func (p *pass) spare(ctx context.Context) error {
	if p.name != passModified {
		return nil
	}
	a, ns := p.l.audience, p.l.audience.Namespace
	var known []int
	for i, it := range p.todo.list {
		if it.head != nil {
			known = append(known, i)
		}
	}
	for chunk := range slices.Chunk(known, batchRecords) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !p.l.held() {
			return errLost
		}
		keys := make([]cache.Key, len(chunk))
		for n, i := range chunk {
			keys[n] = p.todo.list[i].key(ns)
		}
		held := a.Store.Entries(ctx, keys)
		var same []cache.Record
		var done []int
		for n, i := range chunk {
			h, r := p.todo.list[i].head, held[keys[n]]
			if !h.matches(r) {
				continue
			}
			if h.at.After(r.SentAt) {
				r.SentAt, r.Index = h.at, h.index
			}
			same, done = append(same, r), append(done, i)
		}
		p.share(ctx, same)
		p.todo.finish(done)
		p.todo.spared += len(done)
		p.w.note(func(s *Summary) { s.Unchanged += len(same) })
	}
	return nil
}
