package deflate

import (
	"math"
	"math/bits"
)

// token is a literal, or a match: 1<<23 | (length-3)<<15 | (dist-1).
type token uint32

const isMatch token = 1 << 23

func (t token) length() int { return int(t>>15&0xff) + minMatch }
func (t token) dist() int   { return int(t&(windowSize-1)) + 1 }

const (
	litSymbols  = 286 // RFC 1951, section 3.2.5
	distSymbols = 30
	endOfBlock  = 256
)

// lengthSymbol returns the symbol of a length, and how many bits follow it.
func lengthSymbol(length int) (symbol int, extra uint) {
	switch n := length - minMatch; {
	case length == maxMatch:
		return 285, 0
	case n < 8:
		return 257 + n, 0
	default:
		extra = uint(bits.Len(uint(n))) - 3
		return 257 + int(extra)*4 + n>>extra, extra
	}
}

// distSymbol returns the symbol of a distance, and how many bits follow it.
func distSymbol(dist int) (symbol int, extra uint) {
	n := dist - 1
	if n < 4 {
		return n, 0
	}
	extra = uint(bits.Len(uint(n))) - 2
	return int(extra)*2 + n>>extra, extra
}

// counts say how often each symbol is used.
type counts struct {
	lit  [litSymbols]uint32
	dist [distSymbols]uint32
}

func count(tokens []token) *counts {
	c := &counts{}
	for _, t := range tokens {
		if t&isMatch == 0 {
			c.lit[t]++
			continue
		}
		s, _ := lengthSymbol(t.length())
		c.lit[s]++
		s, _ = distSymbol(t.dist())
		c.dist[s]++
	}
	c.lit[endOfBlock]++
	return c
}

func (c *counts) add(o *counts) *counts {
	sum := *c
	for i, n := range o.lit {
		sum.lit[i] += n
	}
	for i, n := range o.dist {
		sum.dist[i] += n
	}
	sum.lit[endOfBlock] -= o.lit[endOfBlock]
	return &sum
}

// prices are what each choice costs, in bits.
type prices struct {
	lit    [256]float32
	length [maxMatch + 1]float32
	dist   [distSymbols]float32
}

// firstPrices are those of data of which nothing is known.
func firstPrices() *prices {
	p := &prices{}
	for i := range p.lit {
		p.lit[i] = 7
	}
	for l := minMatch; l <= maxMatch; l++ {
		_, extra := lengthSymbol(l)
		p.length[l] = 6 + float32(extra)
	}
	for s := range p.dist {
		p.dist[s] = 4.5 + float32(max(0, s/2-1))
	}
	return p
}

// prices of symbols by how often they are used: their information.
func (c *counts) prices() *prices {
	p := &prices{}
	lit, dist := entropy(c.lit[:]), entropy(c.dist[:])
	copy(p.lit[:], lit[:256])
	for l := minMatch; l <= maxMatch; l++ {
		s, extra := lengthSymbol(l)
		p.length[l] = lit[s] + float32(extra)
	}
	for s := range p.dist {
		p.dist[s] = dist[s] + float32(max(0, s/2-1))
	}
	return p
}

func entropy(used []uint32) []float32 {
	var sum uint32
	for _, n := range used {
		sum += n
	}
	out := make([]float32, len(used))
	all := math.Log2(float64(max(1, sum)))
	for i, n := range used {
		if n == 0 { // never used, but it could be: somewhat dearer than the rarest
			out[i] = float32(all) + 1
			continue
		}
		out[i] = float32(all - math.Log2(float64(n)))
	}
	return out
}

// everyLength is the longest length of which each shorter one is tried.
const everyLength = 48

// path finds the cheapest tokens for data[from:to]; m's positions begin at
// base.
func path(data []byte, from, to, base int, m *matches, p *prices, s *scratch) []token {
	n := to - from
	cost, took := s.cost[:n+1], s.took[:n+1]
	for i := range cost {
		cost[i] = math.MaxFloat32
	}
	cost[0] = 0
	for i := range n {
		at := cost[i]
		if c := at + p.lit[data[from+i]]; c < cost[i+1] {
			cost[i+1], took[i+1] = c, token(data[from+i])
		}
		length := minMatch
		for _, r := range m.all[m.start[from-base+i]:m.start[from-base+i+1]] {
			symbol, _ := distSymbol(int(r.dist) + 1)
			base := at + p.dist[symbol]
			for most := min(int(r.length), n-i); length <= most; length++ {
				if length > everyLength {
					length = most // of a long match all of it, or little
				}
				if c := base + p.length[length]; c < cost[i+length] {
					cost[i+length], took[i+length] = c, isMatch|token(length-minMatch)<<15|token(r.dist)
				}
			}
		}
	}
	var back []token
	for i := n; i > 0; {
		t := took[i]
		back = append(back, t)
		if t&isMatch != 0 {
			i -= t.length()
		} else {
			i--
		}
	}
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	return back
}

// scratch is memory that paths share.
type scratch struct {
	cost []float32
	took []token
}
