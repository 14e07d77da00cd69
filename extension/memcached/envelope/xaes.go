package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// The derivation of https://c2sp.org/XAES-256-GCM, in its own letters:
//
//	L  = AES-256(K, 0)                  K1 = L << 1, reduced as in CMAC
//	M1 = 0x00 0x01 "X" 0x00 || N[:12]   M2 = 0x00 0x02 "X" 0x00 || N[:12]
//	Kx = AES-256(K, M1 ^ K1) || AES-256(K, M2 ^ K1)
//	out = AES-256-GCM(Kx, nonce = N[12:])

// newSealing prepares the key that seals: K itself and K1.
func newSealing(key [KeySize]byte) (block cipher.Block, mask [aes.BlockSize]byte) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // only for a key of another size
	}
	block.Encrypt(mask[:], mask[:])
	var carry byte
	for i := len(mask) - 1; i >= 0; i-- {
		carry, mask[i] = mask[i]>>7, mask[i]<<1|carry
	}
	mask[len(mask)-1] ^= carry * 0x87
	return block, mask
}

// message returns the AEAD of one message.
func (k *subkey) message(nonce [nonceSize]byte) cipher.AEAD {
	var key [2 * aes.BlockSize]byte
	for i := range byte(2) {
		half := key[int(i)*aes.BlockSize:][:aes.BlockSize]
		copy(half, []byte{0, i + 1, 'X', 0})
		copy(half[4:], nonce[:nonceSize/2])
		subtle.XORBytes(half, half, k.mask[:])
		k.seal.Encrypt(half, half)
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // only for a key of another size
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only for a block of another size
	}
	return gcm
}
