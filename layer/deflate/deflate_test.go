package deflate

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// round compresses, and has the standard library unpack.
func round(t testing.TB, data []byte) int {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	size := out.Len()
	rest := bytes.NewBuffer(nil)
	r := flate.NewReader(io.TeeReader(&out, rest))
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(data), err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("%d bytes come back as %d others", len(data), len(got))
	}
	if out.Len() != 0 {
		t.Fatalf("%d bytes follow the end", out.Len())
	}
	return size
}

func TestEverythingComesBack(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	skewed := make([]byte, 300_000) // few common symbols and many rare ones: long codes
	for i := range skewed {
		skewed[i] = byte(random.ExpFloat64() * 4)
	}
	fibonacci := []byte{}
	for s, a, b := 0, 1, 1; s < 24; s, a, b = s+1, b, a+b {
		fibonacci = append(fibonacci, bytes.Repeat([]byte{byte(s)}, a)...)
	}
	random.Shuffle(len(fibonacci), func(i, j int) { fibonacci[i], fibonacci[j] = fibonacci[j], fibonacci[i] })
	for name, data := range map[string][]byte{
		"nothing": nil, "one byte": {7}, "two bytes": {7, 7}, "three bytes": []byte("aaa"), "zeros": make([]byte, 70_000), "258": make([]byte, 259),
		"text": []byte(strings.Repeat("the quick brown fox jumps over the lazy dog ", 5000)), "noise": noise, "skewed": skewed, "fibonacci": fibonacci,
		"far": append(append(append([]byte("a far away thing"), noise[:windowSize-16]...), "a far away thing"...), noise[:windowSize+1]...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			round(t, data)
		})
	}
	for _, size := range []int{segmentSize - 1, segmentSize, segmentSize + 1, segmentSize + 2, 2*segmentSize + 3} {
		round(t, bytes.Repeat(skewed[:1000], size/1000+1)[:size])
	}
}

func TestItIsSmallerThanTheStandardLibrarys(t *testing.T) {
	t.Parallel()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data = data[:min(len(data), segmentSize+1000)]
	var std bytes.Buffer
	w, err := flate.NewWriter(&std, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := round(t, data); got > std.Len()*97/100 {
		t.Errorf("%d bytes, the standard library's are %d", got, std.Len())
	} else {
		t.Logf("%d bytes for %d, the standard library's are %d: %.1f %% less", got, len(data), std.Len(), 100-100*float64(got)/float64(std.Len()))
	}
}

func TestSymbolsAreThoseOfTheRFC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		length, symbol int
		extra          uint
	}{{3, 257, 0}, {10, 264, 0}, {11, 265, 1}, {12, 265, 1}, {13, 266, 1}, {18, 268, 1}, {19, 269, 2}, {114, 279, 4}, {115, 280, 4}, {131, 281, 5}, {257, 284, 5}, {258, 285, 0}} {
		if s, e := lengthSymbol(c.length); s != c.symbol || e != c.extra {
			t.Errorf("length %d: %d, %d", c.length, s, e)
		}
	}
	for _, c := range []struct {
		dist, symbol int
		extra        uint
	}{{1, 0, 0}, {4, 3, 0}, {5, 4, 1}, {6, 4, 1}, {7, 5, 1}, {9, 6, 2}, {192, 14, 6}, {193, 15, 6}, {24576, 28, 13}, {24577, 29, 13}, {32768, 29, 13}} {
		if s, e := distSymbol(c.dist); s != c.symbol || e != c.extra {
			t.Errorf("distance %d: %d, %d", c.dist, s, e)
		}
	}
}

func FuzzComesBack(f *testing.F) {
	f.Add([]byte("abcabcabc"), 3)
	f.Add([]byte{0}, 1000)
	f.Fuzz(func(t *testing.T, data []byte, times int) {
		round(t, bytes.Repeat(data, 1+max(0, times)%50))
	})
}
