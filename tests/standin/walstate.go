package standin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// walState is a state as the header X-Vault-Index has it.
type walState struct{ local, replicated uint64 }

// stateOf is the state of a write with this index as cluster c tells it. On a
// primary both numbers are the same (the example of an event in
// command/agentproxyshared/cache/static_secret_cache_updater.go of
// hashicorp/vault v1.21.0 has 68 and 68). A secondary's own log is not
// modelled and stays at 1.
func (c *Cluster) stateOf(index uint64) string {
	s := walState{index, index}
	if c.primary != nil {
		s.local = 1
	}
	text := fmt.Sprintf("v1:%s:%d:%d", c.id, s.local, s.replicated)
	return base64.StdEncoding.EncodeToString([]byte(text + ":" + hex.EncodeToString(c.sign(text))))
}

func (c *Cluster) sign(text string) []byte {
	m := hmac.New(sha256.New, c.key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// verify reads a state that c made.
func (c *Cluster) verify(raw string) (walState, bool) {
	plain, err := base64.StdEncoding.DecodeString(raw)
	if err != nil {
		return walState{}, false
	}
	end := strings.LastIndexByte(string(plain), ':')
	if end < 0 {
		return walState{}, false
	}
	text := string(plain[:end])
	mac, err := hex.DecodeString(string(plain[end+1:]))
	if err != nil || !hmac.Equal(mac, c.sign(text)) {
		return walState{}, false
	}
	parts := strings.Split(text, ":")
	if len(parts) != 4 || parts[0] != "v1" || parts[1] != c.id {
		return walState{}, false
	}
	local, err1 := strconv.ParseUint(parts[2], 10, 64)
	replicated, err2 := strconv.ParseUint(parts[3], 10, 64)
	return walState{local, replicated}, err1 == nil && err2 == nil
}

// misses reports whether a node lacks one of the required states.
func (n *Node) misses(required []string) bool {
	at := n.c.log.position(n.behind())
	for _, raw := range required {
		s, ok := n.c.verify(raw)
		if !ok || s.replicated > at || n.c.primary == nil && s.local > at {
			return true
		}
	}
	return false
}
