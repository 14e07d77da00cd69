package cache

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// An entry has the index only if the node whose index it is gave the answer, and
// a check proves it only if that names the same node.
func TestG1AnIndexIsOfTheNodeThatAnswered(t *testing.T) {
	t.Parallel()
	nodes := []string{"", "a", "b", "two"}
	for _, recorded := range nodes[:3] {
		for _, answered := range nodes {
			for _, checked := range nodes[:3] {
				h := http.Header{"Content-Type": {"application/json"}}
				switch answered {
				case "":
				case "two":
					h["X-Vault-Raft-Node-Id"] = []string{recorded, checked}
				default:
					h["X-Vault-Raft-Node-Id"] = []string{answered}
				}
				index := Index{Applied: 7, ActiveTime: "t", Node: recorded, FirstSeen: time.Now()}
				body := []byte(`{"request_id":"r","lease_id":"","data":{"data":{"k":"v"},"metadata":{"version":1}},"wrap_info":null,"auth":null,"mount_type":"kv"}`)
				r, ok := Interpret(Key{Path: "secret/data/a"}, Mount{Path: "secret", Version: 2}, Answer{Status: 200, Header: h, Body: body, SentAt: time.Now()}, index)
				if !ok {
					t.Fatal("the answer is not kept")
				}
				proven := !r.Index.Zero() && r.Index.Same(Index{Applied: 7, ActiveTime: "t", Node: checked})
				if want := recorded == answered && answered == checked; proven != want {
					t.Errorf("%s: proven %v", fmt.Sprintf("recorded %q, answered by %q, checked %q", recorded, answered, checked), proven)
				}
			}
		}
	}
}
