package consistency

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// state is where a cluster's log stood. Its text is base64 of
//
//	v1:<cluster id>:<local index>:<replicated index>:<HMAC in hex>
//
// (ParseReplicationState in hashicorp/vault/api v1.23.0, client.go). The local
// index counts what is written on the cluster itself, the replicated one what
// it got from its primary. Only the origin can make or check the HMAC, so two
// states can be compared and not joined.
type state struct {
	cluster           string
	local, replicated uint64
}

// The states of clusters that send none: an index of raft, and, where that
// could not be learned, the number of the write. Each prefix counts as a cluster, too: no
// other's id has a colon.
const (
	raftPrefix  = "raft:"
	writePrefix = "write:"
	separator   = ","
	maxState    = 512 // bytes of a state's text; real ones are below 200
	maxStates   = 8   // states required at once; two do for replication as it is
)

// parse reads a state's text.
func parse(raw string) (state, bool) {
	if i := strings.IndexByte(raw, ':') + 1; i > 0 { // which base64 never has
		n, err := strconv.ParseUint(raw[i:], 10, 64)
		return state{cluster: raw[:i], local: n}, err == nil && (raw[:i] == raftPrefix || raw[:i] == writePrefix)
	}
	if len(raw) > maxState || strings.ContainsAny(raw, "\r\n") { // which base64 skips
		return state{}, false
	}
	plain, err := base64.StdEncoding.DecodeString(raw)
	if err != nil {
		return state{}, false
	}
	parts := strings.Split(string(plain), ":")
	if len(parts) != 5 || parts[0] != "v1" || parts[1] == "" {
		return state{}, false
	}
	local, errLocal := strconv.ParseUint(parts[2], 10, 64)
	replicated, errReplicated := strconv.ParseUint(parts[3], 10, 64)
	_, errMAC := hex.DecodeString(parts[4])
	return state{parts[1], local, replicated}, errLocal == nil && errReplicated == nil && errMAC == nil
}

// reached reports whether s is o, or newer in both of its indexes.
func (s state) reached(o state) bool {
	return s.cluster == o.cluster && s.local >= o.local && s.replicated >= o.replicated
}

// Merge returns what is required once fresh was seen by who required old: the
// newest states, of which none is older than another. It decides as
// MergeReplicationStates of hashicorp/vault/api v1.23.0 does: a state of
// another cluster replaces all, since no node of that cluster could meet the
// old ones; two states of which neither is older both stay. There are two
// differences, and both only ever require more. A text that is no state is not
// taken, and more than two states are not given up for the new one.
func Merge(old []string, fresh string) []string {
	n, ok := parse(fresh)
	if !ok {
		return old
	}
	kept := make([]string, 0, len(old)+1)
	for _, raw := range old {
		o, ok := parse(raw)
		switch {
		case !ok || o.cluster != n.cluster:
			return []string{fresh}
		case o.reached(n):
			return old // it says no more than what is required already
		case !n.reached(o):
			kept = append(kept, raw)
		}
	}
	kept = append(kept, fresh)
	if len(kept) > maxStates {
		kept = kept[1:]
	}
	slices.Sort(kept)
	return kept
}

// union is what is required once states were seen, too.
func union(required, states []string) []string {
	for _, s := range states {
		required = Merge(required, s)
	}
	return required
}

// Requested returns the state that a request's own X-Vault-Index requires. ok is
// false for what no origin sends: then only the origin can say what it means.
func Requested(header []string) (state string, ok bool) {
	return strings.Join(header, separator), len(header) <= maxStates && len(only(header, sendable)) == len(header)
}

// Covers reports whether what required readAt was read late enough for who
// requires required.
func Covers(readAt, required string) bool {
	if required == "" || readAt == required {
		return true
	}
	for want := range strings.SplitSeq(required, separator) {
		w, ok := parse(want)
		if !ok || !slices.ContainsFunc(strings.Split(readAt, separator), func(raw string) bool {
			s, ok := parse(raw)
			return ok && s.reached(w)
		}) {
			return false
		}
	}
	return true
}

// raftIndex returns the index of raft that required names; ok is false where
// it names none.
func raftIndex(required string) (index uint64, ok bool) {
	for raw := range strings.SplitSeq(required, separator) {
		if s, valid := parse(raw); valid && s.cluster == raftPrefix {
			index, ok = max(index, s.local), true
		}
	}
	return index, ok
}
