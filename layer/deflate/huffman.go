package deflate

import (
	"math/bits"
	"slices"
)

// lengths gives each symbol a code length of at most limit bits, 0 to symbols
// that are not used, by Huffman's algorithm. Codes that get too long are
// shortened, at the price of others, until the code is complete again.
func lengths(used []uint32, limit int) []uint8 {
	type node struct {
		weight      uint64
		left, right int // -1: a symbol
		symbol      int
	}
	var nodes []node
	for s, n := range used {
		if n > 0 {
			nodes = append(nodes, node{uint64(n), -1, -1, s})
		}
	}
	out := make([]uint8, len(used))
	leaves := len(nodes)
	if leaves == 0 {
		return out
	}
	if leaves == 1 {
		out[nodes[0].symbol] = 1
		return out
	}
	slices.SortStableFunc(nodes, func(a, b node) int {
		if a.weight != b.weight {
			if a.weight < b.weight {
				return -1
			}
			return 1
		}
		return a.symbol - b.symbol
	})
	// Two queues, both in order: symbols, and what was made of two.
	next, made := 0, leaves
	take := func() int {
		if next < leaves && (made >= len(nodes) || nodes[next].weight <= nodes[made].weight) {
			next++
			return next - 1
		}
		made++
		return made - 1
	}
	for len(nodes) < 2*leaves-1 {
		a, b := take(), take()
		nodes = append(nodes, node{nodes[a].weight + nodes[b].weight, a, b, -1})
	}
	depth := make([]int, len(nodes))
	var ofLength [64]int
	for i := len(nodes) - 1; i >= 0; i-- {
		if nodes[i].left < 0 {
			ofLength[min(depth[i], limit)]++
			continue
		}
		depth[nodes[i].left], depth[nodes[i].right] = depth[i]+1, depth[i]+1
	}
	// Kraft's sum, in units of the longest code.
	sum := 0
	for l := 1; l <= limit; l++ {
		sum += ofLength[l] << (limit - l)
	}
	for sum > 1<<limit {
		ofLength[limit]--
		for l := limit - 1; l > 0; l-- {
			if ofLength[l] > 0 {
				ofLength[l]--
				ofLength[l+1] += 2
				break
			}
		}
		sum--
	}
	// The rarest symbols get the longest codes.
	i := 0
	for l := limit; l > 0; l-- {
		for range ofLength[l] {
			out[nodes[i].symbol] = uint8(l)
			i++
		}
	}
	return out
}

// codes numbers the codes of their lengths (RFC 1951, section 3.2.2), the bits
// reversed as they are written.
func codes(length []uint8) []uint32 {
	var of, next [17]uint32
	for _, l := range length {
		of[l]++
	}
	of[0] = 0
	for l := 1; l <= 15; l++ {
		next[l+1] = (next[l] + of[l]) << 1
	}
	out := make([]uint32, len(length))
	for s, l := range length {
		if l > 0 {
			out[s] = bits.Reverse32(next[l]) >> (32 - l)
			next[l]++
		}
	}
	return out
}

// header is how a block's two codes are written (RFC 1951, section 3.2.7).
type header struct {
	lit, dist []uint8
	runs      []run
	code      []uint8 // of the lengths of runs
	hclen     int
}

// run is a symbol of the code of code lengths, and what follows it.
type run struct {
	symbol uint8
	extra  uint32
	bits   uint
}

func order() []uint8 {
	return []uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
}

func newHeader(c *counts) *header {
	h := &header{lit: lengths(c.lit[:], 15), dist: lengths(c.dist[:], 15)}
	nLit, nDist := litSymbols, distSymbols
	for nLit > 257 && h.lit[nLit-1] == 0 {
		nLit--
	}
	for nDist > 1 && h.dist[nDist-1] == 0 {
		nDist--
	}
	h.lit, h.dist = h.lit[:nLit], h.dist[:nDist]
	all := slices.Concat(h.lit, h.dist)
	for i := 0; i < len(all); {
		n := 1
		for i+n < len(all) && all[i+n] == all[i] {
			n++
		}
		h.repeat(all[i], n)
		i += n
	}
	var used [19]uint32
	for _, r := range h.runs {
		used[r.symbol]++
	}
	h.code = lengths(used[:], 7)
	h.hclen = 19
	for h.hclen > 4 && h.code[order()[h.hclen-1]] == 0 {
		h.hclen--
	}
	return h
}

// repeat notes n equal code lengths.
func (h *header) repeat(length uint8, n int) {
	if length != 0 {
		h.runs = append(h.runs, run{symbol: length})
		n--
	}
	for n > 0 {
		switch {
		case length == 0 && n >= 11:
			k := min(n, 138)
			h.runs = append(h.runs, run{18, uint32(k - 11), 7})
			n -= k
		case length == 0 && n >= 3:
			h.runs = append(h.runs, run{17, uint32(n - 3), 3})
			n = 0
		case length != 0 && n >= 3:
			k := min(n, 6)
			h.runs = append(h.runs, run{16, uint32(k - 3), 2})
			n -= k
		default:
			h.runs = append(h.runs, run{symbol: length})
			n--
		}
	}
}

// size is that of a block with these counts, in bits.
func (c *counts) size() int {
	h := newHeader(c)
	n := 3 + 14 + 3*h.hclen
	for _, r := range h.runs {
		n += int(h.code[r.symbol]) + int(r.bits)
	}
	for s, l := range h.lit {
		extra := 0
		if s >= 265 && s < 285 {
			extra = (s - 261) / 4
		}
		n += int(c.lit[s]) * (int(l) + extra)
	}
	for s, l := range h.dist {
		n += int(c.dist[s]) * (int(l) + max(0, s/2-1))
	}
	return n
}

// write writes the block with codes of its own.
func (b *blockTokens) write(out *bitWriter, final bool) {
	used := b.used
	if used == nil {
		used = count(nil)
	}
	h := newHeader(used)
	last := uint32(0)
	if final {
		last = 1
	}
	out.put(last, 1)
	out.put(2, 2) // dynamic codes
	out.put(uint32(len(h.lit)-257), 5)
	out.put(uint32(len(h.dist)-1), 5)
	out.put(uint32(h.hclen-4), 4)
	for _, s := range order()[:h.hclen] {
		out.put(uint32(h.code[s]), 3)
	}
	code := codes(h.code)
	for _, r := range h.runs {
		out.put(code[r.symbol], uint(h.code[r.symbol]))
		out.put(r.extra, r.bits)
	}
	lit, dist := codes(h.lit), codes(h.dist)
	for _, t := range b.tokens {
		if t&isMatch == 0 {
			out.put(lit[t], uint(h.lit[t]))
			continue
		}
		s, extra := lengthSymbol(t.length())
		out.put(lit[s], uint(h.lit[s]))
		out.put(uint32(t.length()-minMatch)&(1<<extra-1), extra)
		s, extra = distSymbol(t.dist())
		out.put(dist[s], uint(h.dist[s]))
		out.put(uint32(t.dist()-1)&(1<<extra-1), extra)
	}
	out.put(lit[endOfBlock], uint(h.lit[endOfBlock]))
}
