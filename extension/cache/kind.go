package cache

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/wire"
)

// Kind says what an entry holds.
type Kind uint8

// Kinds of entries.
const (
	Other     Kind = iota // a GET whose caller opted in
	KV1                   // a KV v1 secret
	Data                  // KV v2 data/
	Metadata              // KV v2 metadata/
	Subkeys               // KV v2 subkeys/
	Listing               // a list of either
	Preflight             // sys/internal/ui/mounts/
)

// segment is what the paths of a kind have behind their mount of KV v2; empty: they have
// none.
func (k Kind) segment() string {
	switch k {
	case Data:
		return "data"
	case Metadata:
		return "metadata"
	case Subkeys:
		return "subkeys"
	}
	return ""
}

// Mount is a mount whose type is known.
type Mount struct {
	Namespace string
	Path      string // without slashes at either end
	Version   int    // KV version; 0: not KV
}

// holds reports whether a path is on the mount.
func (m Mount) holds(path string) bool { return path == m.Path || hasPathPrefix(path, m.Path) }

// place is where the mount is, and size its estimated memory.
func (m Mount) place() Key { return Key{Namespace: m.Namespace, Path: m.Path} }

func (m Mount) size() int64 { return mountSize + int64(len(m.Namespace)+len(m.Path)) }

// askable reports whether a path may be on a KV mount.
func askable(path string) bool {
	switch firstSegment(path) {
	case "sys", "auth", "identity", "cubbyhole":
		return false
	}
	return true
}

// preflightPrefix is where Vault's CLI asks which mount a path is on
// (https://github.com/hashicorp/vault/blob/main/command/kv_helpers.go).
const preflightPrefix = "sys/internal/ui/mounts/"

func preflightPath(path string) (mounted string, ok bool) {
	return strings.CutPrefix(path, preflightPrefix)
}

// ParseMount reads the answer to sys/internal/ui/mounts/<path>.
func ParseMount(namespace string, body []byte) (Mount, bool) {
	var answer struct {
		Data struct {
			Path    string            `json:"path"`
			Type    string            `json:"type"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Data.Path == "" {
		return Mount{}, false
	}
	m := Mount{Namespace: namespace, Path: strings.Trim(answer.Data.Path, "/")}
	switch answer.Data.Type {
	case "kv", "generic":
		m.Version = 1
		if answer.Data.Options["version"] == "2" {
			m.Version = 2
		}
	}
	return m, true
}

// shape is what the cache reads of an answer.
type shape struct {
	MountType     string `json:"mount_type"`
	LeaseID       string `json:"lease_id"`
	LeaseDuration int64  `json:"lease_duration"`

	version       int
	oldest        int
	deletion      time.Time
	hasMetadata   bool // data.metadata with a version: KV v2 data or subkeys
	isKeyMetadata bool // data.versions: KV v2 metadata
}

func parseShape(said wire.Answer) (shape, bool) {
	var s shape
	if json.Unmarshal(said.Body, &s) != nil {
		return s, false
	}
	var data struct {
		Metadata *struct {
			Version      json.Number `json:"version"`
			DeletionTime string      `json:"deletion_time"`
		} `json:"metadata"`
		CurrentVersion json.Number     `json:"current_version"`
		OldestVersion  json.Number     `json:"oldest_version"`
		Versions       json.RawMessage `json:"versions"`
	}
	// KV v1 data is free-form: what doesn't fit isn't KV v2.
	if json.Unmarshal(said.Member("data"), &data) == nil {
		if data.Metadata != nil {
			s.version, _ = strconv.Atoi(data.Metadata.Version.String())
			s.hasMetadata = s.version > 0
			if data.Metadata.DeletionTime != "" {
				s.deletion, _ = time.Parse(time.RFC3339Nano, data.Metadata.DeletionTime)
			}
		}
		if data.Versions != nil && data.CurrentVersion != "" {
			s.isKeyMetadata = true
			s.oldest, _ = strconv.Atoi(data.OldestVersion.String())
		}
	}
	return s, true
}

// ofKV reports whether the answer is one of KV: as it says itself, or else as is
// known of its mount.
func (s *shape) ofKV(known bool) bool {
	switch s.MountType {
	case "kv", "generic":
		return true
	case "":
		return known
	}
	return false
}

// kindOf says what a KV answer to key holds. mount is what is known of the
// mount; with version 0 the path and the shape of the answer decide.
func kindOf(key Key, mount Mount, known bool, s shape) Kind {
	if key.Op == List {
		return Listing
	}
	if known && mount.Version == 1 {
		return KV1
	}
	if known {
		segment := firstSegment(strings.TrimPrefix(strings.TrimPrefix(key.Path, mount.Path), "/"))
		for kind := Data; kind <= Subkeys; kind++ {
			if segment == kind.segment() {
				return kind
			}
		}
		return Other
	}
	switch {
	case hasSegment(key.Path, "data") && s.hasMetadata:
		return Data
	case hasSegment(key.Path, "subkeys") && s.hasMetadata:
		return Subkeys
	case hasSegment(key.Path, "metadata") && s.isKeyMetadata:
		return Metadata
	}
	return KV1
}

// hasSegment reports whether a segment between the first and the last is name.
func hasSegment(path, name string) bool {
	_, rest, _ := strings.Cut(path, "/")
	return strings.Contains("/"+rest, "/"+name+"/")
}

// hopHeaders never belong to an entry: they describe one message or one
// connection (RFC 9110 section 7.6.1), or are made anew for each answer.
var hopHeaders = [...]string{
	"Age", "Connection", "Content-Length", "Date", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection",
	"Set-Cookie", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Cache", "Cache-Status", "Warning",
}

func endToEnd(h http.Header) http.Header {
	out := maps.Clone(h)
	for _, name := range h.Values("Connection") {
		for option := range strings.SplitSeq(name, ",") {
			out.Del(strings.TrimSpace(option))
		}
	}
	for _, k := range hopHeaders {
		delete(out, k)
	}
	return out
}
