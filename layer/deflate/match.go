package deflate

// How far the search goes: links of a chain that are followed at one position.
const chainLength = 96

// reach is a match: length bytes that stand dist bytes before, too.
type reach struct {
	length, dist uint16 // dist is less by one
}

// matches are those at each position of a segment: at i those from start[i] to
// start[i+1], by rising length. Each stands for all lengths above the one
// before it.
type matches struct {
	start []int32
	all   []reach
}

func hash3(data []byte) uint32 {
	return (uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16) * 2654435761 >> 16
}

// find finds the matches of data[from:to], in the window before each byte.
func find(data []byte, from, to int) matches {
	m := matches{start: make([]int32, 0, to-from+1), all: make([]reach, 0, 4*(to-from))}
	var head [1 << 16]int32
	var prev [windowSize]int32
	for i := range head {
		head[i] = -1
	}
	add := func(at int) {
		h := hash3(data[at:])
		prev[at%windowSize] = head[h]
		head[h] = int32(at)
	}
	for at := max(0, from-windowSize); at < from; at++ {
		if at+minMatch <= len(data) {
			add(at)
		}
	}
	for at := from; at < to; at++ {
		m.start = append(m.start, int32(len(m.all)))
		most := min(maxMatch, to-at)
		if at+minMatch > len(data) {
			continue
		}
		if most >= minMatch {
			m.all = follow(m.all, data, at, most, int(head[hash3(data[at:])]), &prev)
		}
		add(at)
	}
	m.start = append(m.start, int32(len(m.all)))
	return m
}

// follow walks the chain of earlier places with the same three bytes, nearest
// first, and notes each that is longer than those before.
func follow(all []reach, data []byte, at, most, link int, prev *[windowSize]int32) []reach {
	best := minMatch - 1
	here := data[at : at+most]
	for range chainLength {
		if link < 0 || at-link > windowSize {
			break
		}
		there := data[link : link+most]
		if there[best] == here[best] && there[0] == here[0] {
			n := 0
			for n < most && there[n] == here[n] {
				n++
			}
			if n > best {
				all = append(all, reach{uint16(n), uint16(at - link - 1)})
				if best = n; n == most {
					break
				}
			}
		}
		next := int(prev[link%windowSize])
		if next >= link {
			break // the place was overwritten
		}
		link = next
	}
	return all
}
