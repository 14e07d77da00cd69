package cache

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Head is what an answer to a read of a KV v2 secret is made of besides its data,
// which no version ever changes: where all of it is as in an answer that is held,
// a read would bring the same answer. A secret that was deleted with its metadata
// and written again has version 1 again, so the time of a version counts, too.
type Head struct {
	version   string
	created   string // of that version, as all below
	deletion  string
	destroyed bool
	custom    string // the secret's custom metadata, compact JSON
}

// Heads reads the answer to a list of OpenBao's detailed-metadata
// (https://openbao.org/api-docs/secret/kv/kv-v2/#list-secrets): key_info holds for
// each key what a read of its metadata answers. A secret of which something is
// missing there has no head. ok is false for what is no such answer.
func Heads(body []byte) (names []string, heads map[string]Head, ok bool) {
	var answer struct {
		Data struct {
			Keys []string                   `json:"keys"`
			Info map[string]json.RawMessage `json:"key_info"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Data.Info) == 0 {
		return nil, nil, false
	}
	heads = make(map[string]Head, len(answer.Data.Info))
	for name, raw := range answer.Data.Info {
		var m struct {
			Current  json.Number     `json:"current_version"`
			Custom   json.RawMessage `json:"custom_metadata"`
			Versions map[string]struct {
				Created   string  `json:"created_time"`
				Deletion  *string `json:"deletion_time"`
				Destroyed *bool   `json:"destroyed"`
			} `json:"versions"`
		}
		if json.Unmarshal(raw, &m) != nil {
			continue
		}
		v, there := m.Versions[m.Current.String()]
		if n, err := strconv.Atoi(m.Current.String()); err != nil || n <= 0 || !there || v.Created == "" || v.Deletion == nil || v.Destroyed == nil || m.Custom == nil {
			continue
		}
		heads[name] = Head{version: m.Current.String(), created: v.Created, deletion: *v.Deletion, destroyed: *v.Destroyed, custom: compact(m.Custom)}
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

// Matches reports whether a read would bring what is held of the secret, by a
// list whose request was sent at sentAt.
func (h Head) Matches(kind Kind, status int, body []byte, sentAt time.Time) bool {
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
	if h.version == "" || h.absent(sentAt) || kind != Data || status != http.StatusOK || json.Unmarshal(body, &answer) != nil {
		return false
	}
	m := answer.Data.Metadata
	return m.Version.String() == h.version && m.Created == h.created && m.Deletion == h.deletion && m.Custom != nil && compact(m.Custom) == h.custom
}

// absent reports whether a read answered 404 then, or may have.
func (h Head) absent(sentAt time.Time) bool {
	if h.destroyed || h.deletion == "" {
		return h.destroyed
	}
	at, err := time.Parse(time.RFC3339Nano, h.deletion)
	return err != nil || !sentAt.Add(time.Minute).Before(at) // of which clock is not known
}

// Compare verifies key's entry as of v, where the head that the origin told then
// shows that a read would bring the same. index is the list's, as a read's would be.
// It reports whether the head shows it.
func (l *Ledger) Compare(key Key, head Head, index Index, v Revalidation) (shows bool) {
	var e *Entry
	l.look(key, func(s *slot) { e = s.entry })
	if e == nil || !head.Matches(e.Kind, e.Status, e.Body, v.At) {
		return false
	}
	l.look(key, func(s *slot) {
		if shows = s.entry == e && !v.At.Before(s.truth.since); shows && v.newer(s.truth.read) { // else read or written meanwhile
			l.readLocked(&s.truth, index, v)
		}
	})
	return shows
}
