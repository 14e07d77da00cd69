package envelope

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// KeySize is the size of a root key in bytes.
const KeySize = 32

// maxKeys bounds a ring. Each key costs a name in every look-up.
const maxKeys = 8

// Keyring holds root keys. It prints as nothing but a placeholder.
type Keyring struct {
	keys [][KeySize]byte // the first writes, all read
}

const remedy = "make one with: openssl rand -base64 32"

// ParseKeys reads root keys: 32 bytes each, in base64 (standard or URL
// alphabet, padded or not), separated by commas. The first writes, all read.
// An error says which key is wrong and never what it is.
func ParseKeys(s string) (*Keyring, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("holds no key; " + remedy)
	}
	var k Keyring
	parts := strings.Split(s, ",")
	for i, part := range parts {
		which := "the key"
		if len(parts) > 1 {
			which = fmt.Sprintf("key %d of %d", i+1, len(parts))
		}
		part = strings.TrimSpace(part)
		if part == "" {
			return nil, fmt.Errorf("%s is empty", which)
		}
		raw, err := decode(part)
		if err != nil {
			return nil, fmt.Errorf("%s is not base64; %s", which, remedy)
		}
		if len(raw) != KeySize {
			return nil, fmt.Errorf("%s has %d bytes and needs %d; %s", which, len(raw), KeySize, remedy)
		}
		if err := k.add([KeySize]byte(raw)); err != nil {
			return nil, fmt.Errorf("%s %w", which, err)
		}
	}
	return &k, nil
}

// NewKeyring makes a ring of root keys that were had otherwise, such as a data
// key that a KMS decrypted. The first writes, all read.
func NewKeyring(keys ...[KeySize]byte) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("a keyring needs a key")
	}
	var k Keyring
	for i, key := range keys {
		if err := k.add(key); err != nil {
			return nil, fmt.Errorf("key %d %w", i+1, err)
		}
	}
	return &k, nil
}

func (k *Keyring) add(key [KeySize]byte) error {
	if len(k.keys) == maxKeys {
		return fmt.Errorf("is too many: at most %d", maxKeys)
	}
	if key == ([KeySize]byte{}) {
		return errors.New("is all zero; " + remedy)
	}
	for i := range k.keys {
		if k.keys[i] == key {
			return fmt.Errorf("is the same as key %d", i+1)
		}
	}
	k.keys = append(k.keys, key)
	return nil
}

// decode takes either alphabet, padded or not, and nothing else.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") { // the decoder would skip them
		return nil, base64.CorruptInputError(0)
	}
	body := strings.TrimRight(s, "=")
	if pad := len(s) - len(body); pad > 0 && len(s)%4 != 0 {
		return nil, base64.CorruptInputError(len(body))
	}
	if strings.ContainsAny(body, "-_") {
		return base64.RawURLEncoding.Strict().DecodeString(body)
	}
	return base64.RawStdEncoding.Strict().DecodeString(body)
}

// Len is the number of keys.
func (k *Keyring) Len() int { return len(k.keys) }

// Audience derives an audience's keys. Different names share nothing.
func (k *Keyring) Audience(name string) *Sealer {
	s := &Sealer{keys: make([]subkey, len(k.keys))}
	for i := range k.keys {
		sub := &s.keys[i]
		expand := func(use string, size int) []byte {
			out, err := hkdf.Key(sha256.New, k.keys[i][:], []byte("thaw envelope 1"), Join(use, name), size)
			if err != nil {
				panic(err) // only in FIPS mode and for keys shorter than ours
			}
			return out
		}
		sub.id = [idSize]byte(expand("id", idSize))
		sub.name = [sha256.Size]byte(expand("name", sha256.Size))
		sub.seal, sub.mask = newSealing([KeySize]byte(expand("seal", KeySize)))
	}
	return s
}

// Fingerprint tells the writing keys of two sealers of one name apart. It stands
// in clear in all that is sealed, and tells nothing of the key.
func (s *Sealer) Fingerprint() string { return hex.EncodeToString(s.keys[0].id[:]) }

const hidden = "[keys]"

// String hides the keys.
func (k *Keyring) String() string { return hidden }

// Format hides the keys under every verb, %#v and %x too.
func (k *Keyring) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, hidden) }

// Format hides what is derived from the keys.
func (s *Sealer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }
