// Package envelope seals what leaves the process: records in memcached and
// backups.
//
// # Keys
//
// A Keyring holds one or more root keys of 32 bytes. The first writes, all
// read, so a key is rotated by adding the new one at the end everywhere, then
// moving it to the front everywhere, then dropping the old one.
//
// Nothing is sealed with a root key itself. Audience derives from each root
// key, with HKDF-SHA256 (RFC 5869) over the audience's name, three values that
// tell nothing about each other: a key that seals, a key that makes names, and
// an ID. Who has only one audience's values can read, forge and recognise
// nothing of another's.
//
// # The envelope
//
//	version  1 byte, 1
//	key ID   8 bytes: which of the ring's keys sealed this
//	nonce   24 bytes, random
//	sealed   the plaintext's length + 16 bytes
//
// The seal is XAES-256-GCM (https://c2sp.org/XAES-256-GCM): AES-256-GCM under
// a key derived for each message from the first half of the nonce. Plain
// AES-256-GCM with random nonces is safe for 2^32 messages under one key
// (NIST SP 800-38D, section 8.3), which a thousand instances that write stamps
// every second reach within weeks; this is safe for 2^80.
//
// The additional data is the version, the key ID and the caller's parts, each
// with its length before it, so that no two lists of parts read alike.
package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
)

// ErrUnsealed is what Open returns for whatever is not exactly what a holder
// of one of the keys sealed for the same additional data. It says no more on
// purpose: not which byte, not whether the key is known.
var ErrUnsealed = errors.New("not sealed by a key of this audience for this place")

const (
	version    = 1
	idSize     = 8
	nonceSize  = 24
	tagSize    = 16
	headerSize = 1 + idSize
	namePrefix = "thaw1."
)

// Overhead is how much longer, in bytes, a sealed text is than its plaintext.
const Overhead = headerSize + nonceSize + tagSize

// Sealer seals and opens for one audience. It is safe for concurrent use.
type Sealer struct {
	keys []subkey // as in the ring: the first writes
}

// subkey is what one root key gives one audience.
type subkey struct {
	id   [idSize]byte
	seal cipher.Block // AES-256 under the sealing key; derives each message's key
	mask [aes.BlockSize]byte
	name [sha256.Size]byte
}

// Seal encrypts plaintext under the ring's first key and binds it to aad.
func (s *Sealer) Seal(aad []string, plaintext []byte) []byte {
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	return s.keys[0].sealWith(nonce, aad, plaintext)
}

func (k *subkey) sealWith(nonce [nonceSize]byte, aad []string, plaintext []byte) []byte {
	out := make([]byte, 0, Overhead+len(plaintext))
	out = append(out, version)
	out = append(out, k.id[:]...)
	out = append(out, nonce[:]...)
	return k.message(nonce).Seal(out, nonce[nonceSize/2:], plaintext, bind(out[:headerSize], aad))
}

// Open returns the plaintext that one of the ring's keys sealed for exactly
// this aad, or ErrUnsealed.
func (s *Sealer) Open(aad []string, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != version {
		return nil, ErrUnsealed
	}
	header, rest := sealed[:headerSize], sealed[headerSize:]
	for i := range s.keys {
		k, nonce := &s.keys[i], [nonceSize]byte(rest)
		if subtle.ConstantTimeCompare(k.id[:], header[1:]) != 1 {
			continue
		}
		if plaintext, err := k.message(nonce).Open(nil, nonce[nonceSize/2:], rest[nonceSize:], bind(header, aad)); err == nil {
			return plaintext, nil
		}
	}
	return nil, ErrUnsealed
}

// Names returns where a record is kept: one name for each key of the ring, the
// first for writing. A name is printable ASCII without spaces, 49 bytes, and
// tells nothing of its parts to those without the key.
func (s *Sealer) Names(parts ...string) []string {
	names := make([]string, len(s.keys))
	list := []byte(Join(parts...))
	for i := range s.keys {
		mac := hmac.New(sha256.New, s.keys[i].name[:])
		mac.Write(list)
		names[i] = namePrefix + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	return names
}

// bind encodes the additional data.
func bind(header []byte, aad []string) []byte { return slices.Concat(header, []byte(Join(aad...))) }

// Join encodes parts as one string, so that no two lists of parts give the
// same: each part has its length before it.
func Join(parts ...string) string {
	var out []byte
	for _, p := range parts {
		out = append(binary.AppendUvarint(out, uint64(len(p))), p...)
	}
	return string(out)
}
