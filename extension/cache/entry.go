package cache

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/wire"
)

// Revalidation says when a request was sent that verified something, and in which
// epoch. The zero Revalidation verifies nothing.
type Revalidation struct {
	At    time.Time
	Epoch uint64
}

// newer reports whether m was sent after n; readings of a coarse clock that are
// the same are told apart by the epoch.
func (m Revalidation) newer(n Revalidation) bool {
	return m.At.After(n.At) || m.At.Equal(n.At) && m.Epoch > n.Epoch
}

// Index is what the origin's cursor was when it was recorded, before a read was
// sent: the raft index applied by then, the active node's active_time, which
// changes with every leader, and its id where answers name their nodes. FirstSeen
// is when this index was first seen here.
type Index struct {
	Applied    uint64
	ActiveTime string
	Node       string
	FirstSeen  time.Time
}

// Zero reports whether there is no index.
func (a Index) Zero() bool { return a.Applied == 0 || a.ActiveTime == "" }

// Same reports whether both are the same index. One without a node never is one
// with a node.
func (a Index) Same(b Index) bool {
	return a.Applied == b.Applied && a.ActiveTime == b.ActiveTime && a.Node == b.Node
}

// Of is the index of a read whose answer has the headers h: none where another
// node gave the answer than the index, or that cannot be told.
func (a Index) Of(h http.Header) Index {
	if node, ok := wire.Node(h); !ok || node != a.Node {
		return Index{}
	}
	return a
}

// Entry is one answer of the origin. It never changes once stored.
type Entry struct {
	Key       Key
	Kind      Kind
	Leased    bool `json:"-"` // it ends with the token that it was leased to
	Status    int
	Header    http.Header // end-to-end headers, without Date, Age and Content-Length
	Body      []byte
	Version   int       // KV v2 version of data; 0 where there is none
	FetchedAt time.Time // when the request was sent that found this answer last
	Expires   time.Time // deletion_time, lease or TTL; zero: not by itself
	ReadAt    string    // the state of the origin that the read required; empty: none

	date   [1]string // the answer's, as sent; empty: it has none
	length [1]string // of Body
	sum    *[32]byte // Fingerprint, made when it is first asked for. Guarded by Cache.mu
}

// Date is the value of the answer's header of that name; nil: it has none. A hit
// allocates nothing for it, nor for Length. Neither may be changed.
func (e *Entry) Date() []string {
	if e.date[0] == "" {
		return nil
	}
	return e.date[:]
}

// Length is the value of the answer's Content-Length.
func (e *Entry) Length() []string { return e.length[:] }

// overhead is the estimated memory of an entry besides its strings and body.
const overhead = 688

func (e *Entry) size() int64 {
	n := overhead + len(e.Body) + len(e.ReadAt) + 2*(len(e.Key.Path)+len(e.Key.Namespace)+len(e.Key.Query))
	for k, vs := range e.Header {
		n += len(k) + 64
		for _, v := range vs {
			n += len(v)
		}
	}
	return int64(n)
}

// SameAnswer reports whether two bodies are the same answer: equal, or equal
// but for the request_id with which Vault begins every answer
// (https://developer.hashicorp.com/vault/api-docs#api-operations).
func SameAnswer(a, b []byte) bool {
	return bytes.Equal(a, b) || bytes.Equal(cutRequestID(a), cutRequestID(b))
}

var requestID = []byte(`{"request_id":"`)

// cutRequestID returns what follows a leading request_id, or b.
func cutRequestID(b []byte) []byte {
	rest, ok := bytes.CutPrefix(b, requestID)
	if !ok {
		return b
	}
	i := bytes.IndexByte(rest, '"')
	if i < 0 || bytes.IndexByte(rest[:i], '\\') >= 0 {
		return b
	}
	return rest[i:]
}

// Fingerprint identifies an answer: two are the same if they differ in nothing
// but the request_id.
func Fingerprint(status int, body []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(strconv.Itoa(status) + "\x00"))
	h.Write(cutRequestID(body))
	return [32]byte(h.Sum(nil))
}

func newEntry(key Key, a *Answer) *Entry {
	key.Path = strings.Clone(key.Path) // it may be part of a request's first line
	return &Entry{
		Key: key, Status: a.Status, Header: endToEnd(a.Header), Body: a.Body, FetchedAt: a.SentAt,
		date: [1]string{a.Header.Get("Date")}, length: [1]string{strconv.Itoa(len(a.Body))},
	}
}
