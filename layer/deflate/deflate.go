// Package deflate compresses harder than compress/flate, and slower: what is
// packed once and started a million times may take some seconds. Its output is
// plain DEFLATE (RFC 1951), which everything unpacks.
//
// compress/flate takes the longest match here or at the next byte. This package
// looks for the cheapest way through the data instead:
//
//   - The data is cut into segments, which know the 32 KiB before them. All
//     matches at each position of a segment are found: for each length the
//     nearest (match.go).
//   - With the cost of each symbol in bits given, the cheapest sequence of
//     literals and matches is a shortest path from the first byte to the last
//     (parse.go). The costs follow from how often each symbol is used, and that
//     from the path; so the two are found in turns.
//   - A segment is split into blocks, each with codes of its own, where that
//     saves more than the codes take to write; then the path of each block is
//     found again with its own costs (split.go).
//
// The idea is Zopfli's (https://github.com/google/zopfli). The same data always
// gives the same bytes.
package deflate

import (
	"io"
	"runtime"
	"sync"
)

const (
	windowSize  = 1 << 15
	minMatch    = 3
	maxMatch    = 258
	segmentSize = 1 << 19
)

// Compress writes data, compressed, to w.
func Compress(w io.Writer, data []byte) error {
	count := (len(data) + segmentSize - 1) / segmentSize
	done := make([][]blockTokens, count)
	work := make(chan int)
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), max(1, count)) {
		workers.Go(func() {
			for i := range work {
				from := i * segmentSize
				done[i] = segment(data, from, min(from+segmentSize, len(data)))
			}
		})
	}
	for i := range count {
		work <- i
	}
	close(work)
	workers.Wait()
	out := &bitWriter{}
	for i, blocks := range done {
		for j := range blocks {
			blocks[j].write(out, i == count-1 && j == len(blocks)-1)
		}
		if err := out.flush(w); err != nil {
			return err
		}
	}
	if count == 0 {
		(&blockTokens{}).write(out, true)
	}
	out.end()
	return out.flush(w)
}

// Writer compresses what is written to it when it is closed.
type Writer struct {
	w    io.Writer
	data []byte
}

// NewWriter returns a Writer.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write keeps p.
func (w *Writer) Write(p []byte) (int, error) {
	w.data = append(w.data, p...)
	return len(p), nil
}

// Close compresses all.
func (w *Writer) Close() error { return Compress(w.w, w.data) }

// bitWriter writes bits, the lowest of a byte first.
type bitWriter struct {
	buf  []byte
	acc  uint64
	used uint
}

func (b *bitWriter) put(v uint32, n uint) {
	b.acc |= uint64(v) << b.used
	for b.used += n; b.used >= 8; b.used -= 8 {
		b.buf = append(b.buf, byte(b.acc))
		b.acc >>= 8
	}
}

// end fills the last byte.
func (b *bitWriter) end() {
	if b.used > 0 {
		b.put(0, 8-b.used)
	}
}

func (b *bitWriter) flush(w io.Writer) error {
	_, err := w.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}
