package standin

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// vaultVersion is the version whose answers are copied.
const vaultVersion = "1.21.0"

// planUnforwarded answers the paths that need no token and are there when the
// origin is sealed.
func (c *call) planUnforwarded(st *state) (answer, bool) {
	read := c.op == opRead || c.op == opHead
	switch c.path {
	case "sys/leader":
		if !read {
			return errorAnswer(http.StatusMethodNotAllowed), true
		}
		if st.sealed {
			return errorAnswer(http.StatusServiceUnavailable, "Vault is sealed"), true
		}
		l := leaderStatus{
			HAEnabled: true, IsSelf: true, ActiveTime: st.activeTime.Format(time.RFC3339Nano),
			LeaderAddress: "http://127.0.0.1:8200", LeaderClusterAddress: "https://127.0.0.1:8201",
		}
		if !c.noRaft {
			l.Committed, l.Applied = st.committed, st.applied
		}
		return jsonAnswer(http.StatusOK, l), true
	case "sys/health":
		return c.health(st), true
	case "sys/seal-status":
		if !read {
			return errorAnswer(http.StatusMethodNotAllowed), true
		}
		d := map[string]any{
			"type": "shamir", "initialized": true, "sealed": st.sealed, "t": 1, "n": 1, "progress": 0, "nonce": "",
			"version": vaultVersion, "build_date": "2025-10-21T19:33:14Z", "migration": false, "recovery_seal": false,
			"storage_type": "raft", "removed_from_cluster": false,
		}
		if !st.sealed {
			d["cluster_name"], d["cluster_id"] = "vault-cluster-standin", st.clusterID
		}
		return jsonAnswer(http.StatusOK, d), true
	case "sys/init":
		if !read {
			return invalid("Vault is already initialized"), true
		}
		return jsonAnswer(http.StatusOK, map[string]any{"initialized": true}), true
	}
	return answer{}, false
}

type leaderStatus struct {
	HAEnabled            bool   `json:"ha_enabled"`
	IsSelf               bool   `json:"is_self"`
	ActiveTime           string `json:"active_time"`
	LeaderAddress        string `json:"leader_address"`
	LeaderClusterAddress string `json:"leader_cluster_address"`
	PerfStandby          bool   `json:"performance_standby"`
	PerfStandbyLastWAL   uint64 `json:"performance_standby_last_remote_wal"`
	Committed            uint64 `json:"raft_committed_index,omitempty"`
	Applied              uint64 `json:"raft_applied_index,omitempty"`
}

// health is sys/health: 200 active, 503 sealed.
// https://developer.hashicorp.com/vault/api-docs/system/health
func (c *call) health(st *state) answer {
	if c.op != opRead && c.op != opHead {
		return errorAnswer(http.StatusMethodNotAllowed)
	}
	status, arg := http.StatusOK, "activecode"
	d := map[string]any{
		"initialized": true, "sealed": st.sealed, "standby": false, "performance_standby": false,
		"replication_performance_mode": "disabled", "replication_dr_mode": "disabled", "server_time_utc": c.now.Unix(),
		"version": vaultVersion, "enterprise": false, "echo_duration_ms": 0, "clock_skew_ms": 0,
		"replication_primary_canary_age_ms": 0, "removed_from_cluster": false,
	}
	if c.bao {
		d["version"] = openBaoVersion
		delete(d, "enterprise")
	}
	if st.sealed {
		status, arg = http.StatusServiceUnavailable, "sealedcode"
		d["standby"], d["replication_performance_mode"], d["replication_dr_mode"] = true, "unknown", "unknown"
	} else {
		d["cluster_name"], d["cluster_id"] = "vault-cluster-standin", st.clusterID
	}
	if v := c.query.Get(arg); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 100 || n > 599 {
			return errorAnswer(http.StatusBadRequest, "Bad status code "+strconv.Quote(v))
		}
		status = n
	}
	return jsonAnswer(status, d)
}

// planSys is the rest of sys/.
func (c *call) planSys(st *state) (answer, *change) {
	write := c.op == opUpdate || c.op == opCreate
	path := strings.TrimPrefix(c.path, "sys/")
	switch {
	case path == "capabilities-self" && write:
		return c.planCapabilities(st, c.token), nil
	case path == "capabilities" && write:
		t := st.lookup(c.text("token"), c.now)
		if t == nil {
			return invalid("invalid token"), nil
		}
		return c.planCapabilities(st, t), nil
	case strings.HasPrefix(path, "internal/ui/mounts/") && c.op == opRead:
		return c.planPreflight(st, strings.TrimPrefix(path, "internal/ui/mounts/")), nil
	case path == "internal/ui/mounts" && c.op == opRead:
		return c.planPreflights(st), nil
	case path == "mounts" && c.op == opRead:
		all := map[string]any{}
		for p, m := range st.mounts {
			all[p] = m.info()
		}
		return c.okTop(all), nil
	case strings.HasPrefix(path, "mounts/"):
		return c.planMount(st, strings.TrimPrefix(path, "mounts/"))
	case path == "policies/acl/" && c.op == opList:
		return c.list("system", append(listKeys(st.policies, ""), "root")), nil
	case strings.HasPrefix(path, "policies/acl/"):
		return c.planPolicy(st, strings.TrimPrefix(path, "policies/acl/"))
	case path == "auth/approle" && write:
		return noContent, &change{entries: 2, apply: func(*state) {}} // it is always there
	case path == "seal" && write:
		return noContent, &change{apply: func(st *state) { st.sealed = true }}
	}
	return c.unknownPath(), nil
}

// planCapabilities answers for all paths in one go.
// https://developer.hashicorp.com/vault/api-docs/system/capabilities-self
func (c *call) planCapabilities(st *state, t *token) answer {
	paths := c.strings("paths")
	if len(paths) == 0 {
		paths = c.strings("path")
	}
	if len(paths) == 0 {
		return invalid("paths must be supplied")
	}
	d := map[string]any{}
	for _, p := range paths {
		caps := st.capabilities(t, strings.TrimPrefix(p, "/"), true)
		if len(caps) == 0 {
			caps = []string{"deny"}
		}
		d[p] = caps
	}
	if len(paths) == 1 {
		d["capabilities"] = d[paths[0]]
	}
	return c.okTop(d)
}

// planPreflight is sys/internal/ui/mounts/<path>, which `vault kv` asks before
// everything else.
func (c *call) planPreflight(st *state, path string) answer {
	path = strings.Trim(path, "/") + "/"
	m, prefix := st.mountOf(path)
	if m == nil || !st.mayTouchMount(c.token, prefix) {
		return errorAnswer(http.StatusForbidden, "preflight capability check returned 403, please ensure client's policies grant access to path \""+path+"\"")
	}
	d := m.info()
	d["path"] = prefix
	return c.ok("", d)
}

// planPreflights is sys/internal/ui/mounts: the mounts that the token may read
// something of. Those that the stand-in doesn't have (cubbyhole, sys, the auth
// methods) are left out.
func (c *call) planPreflights(st *state) answer {
	all := map[string]any{}
	for p, m := range st.mounts {
		if st.mayTouchMount(c.token, p) {
			all[p] = map[string]any{"type": m.kind, "description": m.description, "options": m.options()}
		}
	}
	return c.ok("", map[string]any{"secret": all, "auth": map[string]any{}})
}

// options are a mount's; only KV has any.
func (m *mount) options() map[string]string {
	if m.kind != "kv" {
		return map[string]string{}
	}
	return map[string]string{"version": strconv.Itoa(m.version)}
}

// info is a mount as sys/mounts and the preflight show it.
func (m *mount) info() map[string]any {
	d := map[string]any{
		"type": m.kind, "description": m.description, "accessor": m.accessor, "local": false, "seal_wrap": false,
		"external_entropy_access": false, "options": m.options(), "uuid": m.uuid,
		"plugin_version": "", "running_plugin_version": "v0.25.0+builtin", "running_sha256": "", "deprecation_status": "supported",
		"config": map[string]any{"default_lease_ttl": defaultLease, "max_lease_ttl": defaultLease, "force_no_cache": false},
	}
	if m.kind != "kv" {
		delete(d, "deprecation_status")
	}
	return d
}

func (c *call) planMount(st *state, path string) (answer, *change) {
	path = strings.Trim(path, "/") + "/"
	switch c.op {
	case opUpdate, opCreate:
		kind := strings.TrimSuffix(c.text("type"), "-v2")
		if kind != "kv" && kind != "database" {
			return invalid("stand-in: only secrets engines of types kv and database are modelled"), nil
		}
		options, _ := c.body["options"].(map[string]any)
		v, ok := kvVersion(options)
		if !ok {
			return invalid("stand-in: kv has the versions 1 and 2"), nil
		}
		if c.text("type") == "kv-v2" {
			v = 2
		}
		if other, _ := st.mountOf(path); other != nil {
			return invalid("path is already in use at " + path), nil
		}
		m := newMount(kind, v, c.text("description"))
		return noContent, &change{entries: 4, apply: func(st *state) { st.mounts[path] = m }}
	case opDelete:
		return noContent, &change{entries: 2, apply: func(st *state) { delete(st.mounts, path) }}
	}
	return unsupported(), nil
}

func (c *call) planPolicy(st *state, name string) (answer, *change) {
	switch c.op {
	case opRead:
		p, ok := st.policies[name]
		if !ok {
			return notFound(), nil
		}
		return c.ok("system", map[string]any{"name": name, "policy": p.text}), nil
	case opUpdate, opCreate:
		p, err := parsePolicy(c.text("policy"))
		if err == nil && !c.bao {
			err = p.unknown("scan")
		}
		if err != nil {
			return invalid(err.Error()), nil
		}
		return noContent, &change{entries: 1, apply: func(st *state) { st.policies[name] = p }}
	case opDelete:
		return noContent, &change{entries: 1, apply: func(st *state) { delete(st.policies, name) }}
	}
	return unsupported(), nil
}
