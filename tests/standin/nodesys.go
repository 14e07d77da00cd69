package standin

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// version is what the nodes say they are.
const (
	enterpriseVersion = vaultVersion + "+ent"
	openBaoVersion    = "2.5.5"
)

// SetFault has f see every request first; it returns true when it has answered,
// or broken the connection, itself. It is set before the node serves.
func (n *Node) SetFault(f func(w http.ResponseWriter, r *http.Request) bool) { n.down = f }

// own answers what every node answers for itself.
func (n *Node) own(w http.ResponseWriter, r *http.Request, path string) bool {
	switch {
	case path == "sys/health":
		n.health(w, r)
	case path == "sys/leader":
		n.leader(w, r)
	case strings.HasPrefix(path, "sys/events/subscribe/"):
		n.subscribe(w, r, strings.TrimPrefix(path, "sys/events/subscribe/"))
	default:
		return false
	}
	return true
}

// health is getSysHealth in http/sys_health.go.
func (n *Node) health(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	code, param := http.StatusOK, "activecode"
	standby := !n.leads()
	if n.c.o.OpenBao && standby {
		code, param = http.StatusTooManyRequests, "standbycode"
		if q.Get("standbyok") == "true" {
			code, param = http.StatusOK, "activecode"
		}
	} else if standby {
		code, param = 473, "performancestandbycode"
		if v, given := q["perfstandbyok"]; given {
			ok, err := strconv.ParseBool(v[0])
			if err != nil {
				refuseAt(w, http.StatusBadRequest, "")
				return
			}
			if ok {
				code, param = http.StatusOK, "activecode"
			}
		}
	}
	if v := q.Get(param); v != "" {
		c, err := strconv.Atoi(v)
		if err != nil {
			refuseAt(w, http.StatusBadRequest, "")
			return
		}
		code = c
	}
	mode := "primary"
	if n.c.primary != nil {
		mode = "secondary"
	}
	body := map[string]any{
		"initialized": true, "sealed": false, "standby": standby, "performance_standby": standby,
		"replication_performance_mode": mode, "replication_dr_mode": "disabled", "server_time_utc": n.c.o.Now().Unix(),
		"version": enterpriseVersion, "enterprise": true, "cluster_name": "vault-cluster-" + n.c.id[:8], "cluster_id": n.c.id,
		"echo_duration_ms": 0, "clock_skew_ms": 0, "replication_primary_canary_age_ms": 0,
	}
	if n.edition(body); !n.c.o.OpenBao && !n.c.o.Community && !standby {
		body["last_wal"] = n.Applied()
	}
	reply(w, code, body)
}

// edition has sys/health tell the cluster's product and version, as every node does that
// answers, a sealed one, too.
func (n *Node) edition(body map[string]any) {
	switch {
	case n.c.o.OpenBao:
		body["version"], body["performance_standby"], body["replication_performance_mode"] = openBaoVersion, false, "disabled"
		delete(body, "enterprise")
	case n.c.o.Community:
		body["version"], body["enterprise"], body["replication_performance_mode"] = vaultVersion, false, "disabled"
	}
	if n.c.o.Version != "" {
		body["version"] = n.c.o.Version
	}
}

// leader is what sys/leader answers: the indexes of raft are the log's, which
// each node has applied so far.
func (n *Node) leader(w http.ResponseWriter, r *http.Request) {
	at, self := n.Applied(), n.leads()
	leader, _ := n.c.leader()
	if self {
		leader = n
	}
	body := map[string]any{
		"ha_enabled": true, "is_self": self, "active_time": "0001-01-01T00:00:00Z",
		"leader_address": leader.Addr(), "leader_cluster_address": "", "performance_standby": !self,
		"performance_standby_last_remote_wal": uint64(0), "raft_committed_index": at, "raft_applied_index": at,
	}
	if self {
		body["active_time"] = n.began().Format(time.RFC3339Nano)
	} else if n.c.o.OpenBao || n.is() == Forwarding {
		body["performance_standby"] = false
	} else {
		body["performance_standby_last_remote_wal"] = at
	}
	if n.c.o.NoIndex {
		delete(body, "raft_committed_index")
		delete(body, "raft_applied_index")
	}
	reply(w, http.StatusOK, body)
}

func reply(w http.ResponseWriter, code int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // an error means that the client is gone
}
