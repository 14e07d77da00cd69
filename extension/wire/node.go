package wire

import (
	"net/http"
	"strings"
)

// NodeHeader is the header in which a node of integrated storage names itself, in
// every answer, where the server's configuration has
// enable_response_header_raft_node_id. A standby that hands a request on passes
// the active node's header through (wrapGenericHandler and forwardRequest in
// http/handler.go of hashicorp/vault v1.21.0; OpenBao has the same).
const NodeHeader = "X-Vault-Raft-Node-Id"

// maxNode bounds a node's id, in bytes. Ids are chosen by operators, or UUIDs.
const maxNode = 256

// Node is the id of the node that answered; empty: the answer names none. ok is
// false where it names several, or what is no id: such an answer may be of any node.
func Node(h http.Header) (id string, ok bool) {
	named := h[NodeHeader]
	if len(named) == 0 {
		return "", true
	}
	id = named[0]
	if len(named) > 1 || id == "" || len(id) > maxNode || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) {
		return "", false
	}
	return id, true
}
