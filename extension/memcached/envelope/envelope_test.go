package envelope

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func testKey(b byte) [KeySize]byte {
	return [KeySize]byte(bytes.Repeat([]byte{b}, KeySize))
}

func ring(t testing.TB, keys ...byte) *Keyring {
	t.Helper()
	var all [][KeySize]byte
	for _, b := range keys {
		all = append(all, testKey(b))
	}
	k, err := NewKeyring(all...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parts(s ...string) []string { return s }

// The two vectors of https://c2sp.org/XAES-256-GCM; between them they cover
// both branches of the subkey's reduction.
func TestXAESAgreesWithItsSpecification(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		key  byte
		aad  string
		want string
	}{
		{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		var k subkey
		k.seal, k.mask = newSealing(testKey(v.key))
		nonce := [nonceSize]byte([]byte("ABCDEFGHIJKLMNOPQRSTUVWX"))
		got := k.message(nonce).Seal(nil, nonce[nonceSize/2:], []byte("XAES-256-GCM"), []byte(v.aad))
		if hex.EncodeToString(got) != v.want {
			t.Errorf("key %d: %x, want %s", v.key, got, v.want)
		}
	}
}

// What was sealed yesterday must open tomorrow: these bytes are the format. They
// were computed apart from this code, with Python.
func TestGoldenVectors(t *testing.T) {
	t.Parallel()
	const sealed = "01981b6592baf775f96162636465666768696a6b6c6d6e6f707172737475767778d7a914aae588ddf673e33d73732bd0c1136cea6f5e20da"
	s := ring(t, 7).Audience("prod")
	got := s.keys[0].sealWith([nonceSize]byte([]byte("abcdefghijklmnopqrstuvwx")), parts("entry", "secret/data/app"), []byte("hunter2"))
	if hex.EncodeToString(got) != sealed {
		t.Errorf("sealed\n%x, want\n%s", got, sealed)
	}
	old, err := hex.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := ring(t, 9, 7).Audience("prod").Open(parts("entry", "secret/data/app"), old)
	if err != nil || string(plain) != "hunter2" {
		t.Errorf("opened %q, %v", plain, err)
	}
	names := ring(t, 7, 8).Audience("prod").Names("entry", "secret/data/app")
	want := []string{"thaw1.D5RliN59ls2wruJSS4xvpFU3lTKL-CroUyy8CdsuJAw", "thaw1.qCBnLDf_U_590A03moVJ8cJuzszK0zn9tsF5iTyqMJg"}
	if !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
}

func TestSealedOpensAtEverySize(t *testing.T) {
	t.Parallel()
	s := ring(t, 1).Audience("a")
	for _, n := range []int{0, 1, 15, 16, 17, 31, 32, 33, 127, 128, 4095, 4096, 1<<20 - Overhead, 1<<20 + 1} {
		plain := bytes.Repeat([]byte{0xa5}, n)
		sealed := s.Seal(parts("x"), plain)
		if len(sealed) != n+Overhead {
			t.Errorf("%d bytes sealed as %d", n, len(sealed))
		}
		got, err := s.Open(parts("x"), sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes did not come back: %v", n, err)
		}
	}
}

func TestG5OnlyTheSamePlaceAndAudienceOpens(t *testing.T) {
	t.Parallel()
	aad := parts("entry", "ns", "a/b")
	sealed := ring(t, 1).Audience("a").Seal(aad, []byte("secret"))
	for name, c := range map[string]struct {
		s   *Sealer
		aad []string
	}{
		"another audience":    {ring(t, 1).Audience("b"), aad},
		"another key":         {ring(t, 2).Audience("a"), aad},
		"another part":        {ring(t, 1).Audience("a"), parts("entry", "ns", "a/c")},
		"parts moved":         {ring(t, 1).Audience("a"), parts("entry", "nsa/", "b")},
		"parts joined":        {ring(t, 1).Audience("a"), parts("entry", "nsa/b")},
		"an empty part more":  {ring(t, 1).Audience("a"), parts("entry", "ns", "a/b", "")},
		"an empty part first": {ring(t, 1).Audience("a"), parts("", "entry", "ns", "a/b")},
		"no parts":            {ring(t, 1).Audience("a"), nil},
	} {
		if got, err := c.s.Open(c.aad, sealed); !errors.Is(err, ErrUnsealed) || got != nil {
			t.Errorf("%s opened it: %q, %v", name, got, err)
		}
	}
}

func TestEveryFlippedBitAndEveryCutIsRefused(t *testing.T) {
	t.Parallel()
	s := ring(t, 1, 2).Audience("a")
	sealed := s.Seal(parts("x"), []byte("a secret of some length"))
	for i := range sealed {
		for bit := range 8 {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1 << bit
			if _, err := s.Open(parts("x"), bad); !errors.Is(err, ErrUnsealed) {
				t.Fatalf("byte %d bit %d flipped: %v", i, bit, err)
			}
		}
		if _, err := s.Open(parts("x"), sealed[:i]); !errors.Is(err, ErrUnsealed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		if _, err := s.Open(parts("x"), sealed[i+1:]); !errors.Is(err, ErrUnsealed) {
			t.Fatalf("cut before %d: %v", i+1, err)
		}
	}
	if _, err := s.Open(parts("x"), append(bytes.Clone(sealed), 0)); !errors.Is(err, ErrUnsealed) {
		t.Fatal("a byte more was accepted")
	}
}

func TestRotationReadsOldAndWritesNew(t *testing.T) {
	t.Parallel()
	aad := parts("x")
	old, both, swapped, fresh := ring(t, 1).Audience("a"), ring(t, 1, 2).Audience("a"), ring(t, 2, 1).Audience("a"), ring(t, 2).Audience("a")
	byOld, byNew := both.Seal(aad, []byte("v")), swapped.Seal(aad, []byte("v"))
	for name, c := range map[string]struct {
		s          *Sealer
		old, fresh bool
	}{
		"old alone": {old, true, false}, "new added": {both, true, true}, "new first": {swapped, true, true}, "old dropped": {fresh, false, true},
	} {
		if _, err := c.s.Open(aad, byOld); (err == nil) != c.old {
			t.Errorf("%s opens what the old key sealed: %v", name, err)
		}
		if _, err := c.s.Open(aad, byNew); (err == nil) != c.fresh {
			t.Errorf("%s opens what the new key sealed: %v", name, err)
		}
	}
	if a, b := both.Names("n"), swapped.Names("n"); a[0] != b[1] || a[1] != b[0] || a[0] != old.Names("n")[0] {
		t.Error("a key's name depends on its place in the ring")
	}
}

func TestNamesTellNothingAndAreWhatMemcachedTakes(t *testing.T) {
	t.Parallel()
	s := ring(t, 1).Audience("a")
	seen := map[string][]string{}
	for _, p := range [][]string{
		{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"ab"}, {"a", "b"}, {"secret/data/app/db"}, {"secret", "data/app/db"},
		{strings.Repeat("x", 127)}, {strings.Repeat("x", 128)}, {strings.Repeat("long/", 500)}, {"a b\r\nc\x00"}, {"\x01a"},
	} {
		name := s.Names(p...)[0]
		if len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q is named %q", p, name)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q have one name", p, other)
		}
		seen[name] = p
		if slices.Contains(ring(t, 1).Audience("b").Names(p...), name) || slices.Contains(ring(t, 2).Audience("a").Names(p...), name) {
			t.Errorf("%q has the same name elsewhere", p)
		}
	}
}

func TestSubkeysOfARingDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, audience := range []string{"", "a", "b"} {
		for _, k := range ring(t, 1, 2, 3).Audience(audience).keys {
			for _, v := range [][]byte{k.id[:], k.name[:idSize], k.mask[:]} {
				if seen[string(v)] {
					t.Errorf("a derived value came twice for %q", audience)
				}
				seen[string(v)] = true
			}
		}
	}
}

func TestParseKeys(t *testing.T) {
	t.Parallel()
	// 0xfb.. gives "+" and "/" in the standard alphabet, "-" and "_" in the other.
	raw := sha256.Sum256([]byte("four"))
	raw[0], raw[1], raw[2] = 0xfb, 0xff, 0xfe
	second := sha256.Sum256([]byte("two"))
	std, url := base64.StdEncoding.EncodeToString(raw[:]), base64.URLEncoding.EncodeToString(raw[:])
	other := base64.StdEncoding.EncodeToString(second[:])
	for in, n := range map[string]int{
		std: 1, url: 1, strings.TrimRight(std, "="): 1, strings.TrimRight(url, "="): 1, " " + std + "\n": 1,
		std + "," + other: 2, other + " , " + url: 2,
	} {
		k, err := ParseKeys(in)
		if err != nil || k.Len() != n {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, c := range []struct{ in, want string }{
		{"", "no key"},
		{" ", "no key"},
		{std + ",", "key 2 of 2 is empty"},
		{"," + std, "key 1 of 2 is empty"},
		{std + "," + url, "key 2 of 2 is the same as key 1"},
		{base64.StdEncoding.EncodeToString(raw[:31]), "has 31 bytes"},
		{base64.StdEncoding.EncodeToString(append(raw[:], 1)), "has 33 bytes"},
		{"not base64!", "not base64"},
		{std[:20] + "\n" + std[20:], "not base64"},
		{std + "=", "not base64"},
		{base64.StdEncoding.EncodeToString(make([]byte, KeySize)), "all zero"},
		{strings.TrimRight(std, "=")[:42] + "/", "not base64"}, // bits that no encoder sets
	} {
		_, err := ParseKeys(c.in)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
			continue
		}
		for _, secret := range []string{std, other, "not base64!"} {
			if strings.Contains(err.Error(), secret[:11]) && c.want != "not base64" {
				t.Errorf("the error quotes the key: %v", err)
			}
		}
	}
	var many []string
	for i := range maxKeys + 1 {
		k := sha256.Sum256([]byte{byte(i)})
		many = append(many, base64.StdEncoding.EncodeToString(k[:]))
	}
	if _, err := ParseKeys(strings.Join(many, ",")); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%d keys: %v", len(many), err)
	}
}

func TestG5KeysNeverPrint(t *testing.T) {
	t.Parallel()
	raw := sha256.Sum256([]byte("k"))
	k, err := ParseKeys(base64.StdEncoding.EncodeToString(raw[:]))
	if err != nil {
		t.Fatal(err)
	}
	s := k.Audience("a")
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("x", "ring", k, "sealer", s, "nested", struct{ K *Keyring }{k})
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "ring", k, "sealer", s)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb, k, s)
		fmt.Fprintf(&out, verb, struct {
			K *Keyring
			S *Sealer
		}{k, s})
	}
	j, err := json.Marshal(struct {
		K *Keyring
		S *Sealer
	}{k, s})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	for _, secret := range []string{
		base64.StdEncoding.EncodeToString(raw[:])[:12], hex.EncodeToString(raw[:6]), fmt.Sprint(raw[:4])[1:12], fmt.Sprintf("%#v", raw[:3])[7:],
		fmt.Sprint(s.keys[0].name[:4])[1:12],
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("a key was printed (%q) in\n%s", secret, out.String())
		}
	}
}

// What is opened is what was sealed for that place; everything else is refused.
func FuzzOpen(f *testing.F) {
	s := ring(f, 1, 2).Audience("a")
	// A fixed nonce, since each process of the fuzzer makes its own.
	good := s.keys[0].sealWith([nonceSize]byte{1}, parts("entry", "p"), []byte("secret"))
	f.Add(good, "entry", "p")
	f.Add(good, "entryp", "")
	f.Add([]byte{}, "", "")
	f.Add(make([]byte, Overhead), "entry", "p")
	f.Add(ring(f, 3).Audience("a").Seal(parts("entry", "p"), nil), "entry", "p")
	f.Fuzz(func(t *testing.T, sealed []byte, a, b string) {
		got, err := s.Open(parts(a, b), sealed)
		same := bytes.Equal(sealed, good) && a == "entry" && b == "p"
		if same != (err == nil) || same && string(got) != "secret" || err != nil && (got != nil || err != ErrUnsealed) {
			t.Fatalf("Open(%q, %q, %x) = %q, %v", a, b, sealed, got, err)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
	f.Add("a,b")
	f.Fuzz(func(t *testing.T, in string) {
		k, err := ParseKeys(in)
		if err == nil && k.Len() != strings.Count(in, ",")+1 {
			t.Fatalf("%d keys in %q", k.Len(), in)
		}
		if err != nil && len(in) > 12 && strings.Contains(err.Error(), in) {
			t.Fatalf("the error quotes the input: %v", err)
		}
	})
}

func FuzzNamesAreUnambiguous(f *testing.F) {
	s := ring(f, 1).Audience("a")
	f.Add("a", "b", "ab", "")
	f.Add("\x01a", "", "\x01", "a")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		if (s.Names(a, b)[0] == s.Names(c, d)[0]) != (a == c && b == d) || Join(a, b) == Join(c, d) && (a != c || b != d) {
			t.Fatalf("%q %q and %q %q", a, b, c, d)
		}
	})
}

func BenchmarkOpen1KB(b *testing.B) {
	s := ring(b, 1).Audience("a")
	aad := parts("entry", "https://vault", "ns", "audience", "", "secret/data/app/db", "", "read")
	sealed := s.Seal(aad, make([]byte, 1024))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Open(aad, sealed); err != nil {
			b.Fatal(err)
		}
	}
}
