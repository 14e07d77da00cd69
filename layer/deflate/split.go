package deflate

// blockTokens are the tokens of one block, and how often each symbol is used.
type blockTokens struct {
	tokens []token
	used   *counts
}

// Turns of finding a path and its prices: for a segment as a whole, and for
// each of its blocks.
const (
	segmentTurns = 2
	blockTurns   = 3
	pieceTokens  = 3000 // the smallest block, before pieces are merged
)

// segment compresses data[from:to] to tokens.
func segment(data []byte, from, to int) []blockTokens {
	m := find(data, from, to)
	s := &scratch{cost: make([]float32, to-from+1), took: make([]token, to-from+1)}
	prices := firstPrices()
	var tokens []token
	for range segmentTurns {
		tokens = path(data, from, to, from, &m, prices, s)
		prices = count(tokens).prices()
	}
	var out []blockTokens
	at := from
	for _, b := range split(tokens) {
		end := at
		for _, t := range b.tokens {
			if t&isMatch != 0 {
				end += t.length()
			} else {
				end++
			}
		}
		best := b.used.size()
		for used := b.used; ; {
			again := path(data, at, end, from, &m, used.prices(), s)
			used = count(again)
			size := used.size()
			if size >= best {
				break
			}
			b, best = blockTokens{again, used}, size
		}
		out = append(out, b)
		at = end
	}
	return out
}

// split cuts tokens into pieces and merges neighbours as long as one code for
// both is cheaper than two, the largest gain first.
func split(tokens []token) []blockTokens {
	var blocks []blockTokens
	var sizes []int
	for len(tokens) > 0 {
		n := min(pieceTokens, len(tokens))
		c := count(tokens[:n])
		blocks, sizes = append(blocks, blockTokens{tokens[:n:n], c}), append(sizes, c.size())
		tokens = tokens[n:]
	}
	gains := make([]int, max(0, len(blocks)-1))
	gain := func(i int) int { return sizes[i] + sizes[i+1] - blocks[i].used.add(blocks[i+1].used).size() }
	for i := range gains {
		gains[i] = gain(i)
	}
	for {
		best := -1
		for i, g := range gains {
			if g > 0 && (best < 0 || g > gains[best]) {
				best = i
			}
		}
		if best < 0 {
			return blocks
		}
		both := append(append([]token(nil), blocks[best].tokens...), blocks[best+1].tokens...)
		blocks[best] = blockTokens{both, count(both)}
		sizes[best] = blocks[best].used.size()
		blocks = append(blocks[:best+1], blocks[best+2:]...)
		sizes = append(sizes[:best+1], sizes[best+2:]...)
		gains = append(gains[:best], gains[best+1:]...)
		if best < len(gains) {
			gains[best] = gain(best)
		}
		if best > 0 {
			gains[best-1] = gain(best - 1)
		}
	}
}
