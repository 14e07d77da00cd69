package memcached

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
)

// pointsPerNode is how often a node stands on the ring. The shares of nodes
// differ by about 1/sqrt(pointsPerNode).
const pointsPerNode = 160

// ring is consistent hashing as libketama does it
// (https://www.metabrew.com/article/libketama-consistent-hashing-algo-memcached-clients),
// with SHA-256: every node stands at many points of a circle, and a key belongs
// to the first point at or after its own hash. A node more takes its share from
// all others, and moves nothing between them. All that matters is that every
// instance computes the same, whatever the order of the nodes.
type ring struct {
	ids    []string // sorted, each once
	points []point  // sorted; empty for one node
}

type point struct {
	hash uint64
	node int // index in ids
}

func newRing(ids []string) *ring {
	r := &ring{ids: slices.Compact(slices.Sorted(slices.Values(ids)))}
	if len(r.ids) < 2 {
		return r
	}
	const perSum = sha256.Size / 8
	for node, id := range r.ids {
		for i := range pointsPerNode / perSum {
			sum := sha256.Sum256([]byte(id + "\x00" + strconv.Itoa(i)))
			for j := range perSum {
				r.points = append(r.points, point{binary.BigEndian.Uint64(sum[j*8:]), node})
			}
		}
	}
	slices.SortFunc(r.points, func(a, b point) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.node, b.node)) })
	return r
}

// pick returns the index of key's node: the first from key's place on that fits, or
// the very first where none does. A nil fits takes any.
func (r *ring) pick(key string, fits func(node int) bool) int {
	if len(r.points) == 0 {
		return 0
	}
	sum := sha256.Sum256([]byte(key))
	hash := binary.BigEndian.Uint64(sum[:])
	first, _ := slices.BinarySearchFunc(r.points, hash, func(p point, h uint64) int { return cmp.Compare(p.hash, h) })
	for i := range r.points {
		if node := r.points[(first+i)%len(r.points)].node; fits == nil || fits(node) {
			return node
		}
	}
	return r.points[first%len(r.points)].node
}
