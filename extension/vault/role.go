package vault

import (
	"cmp"
	"net/http"
)

// Role is what a node of the origin is at present, for people, logs and `thaw
// status`, too. Its sys/health tells
// (https://developer.hashicorp.com/vault/api-docs/system/health).
type Role string

// Roles of a node.
const (
	RoleUnknown            Role = ""                    // not asked yet
	RoleActive             Role = "active"              // 200: reads and writes
	RoleStandby            Role = "standby"             // 429: forwards to the active node, or redirects; OpenBao's from 2.5 serves reads
	RolePerformanceStandby Role = "performance standby" // 473: serves reads, forwards writes
	RoleUnhealthy          Role = "unhealthy standby"   // 474: a standby that has lost its active node
	RoleDRSecondary        Role = "DR secondary"        // 472: serves nobody
	RoleUninitialized      Role = "uninitialized"       // 501
	RoleSealed             Role = "sealed"              // 503
	RoleRemoved            Role = "removed"             // 530: no longer a member of its cluster
	RoleUnreachable        Role = "unreachable"         // no answer, or one that is not Vault's
	RoleForeign            Role = "foreign"             // of another cluster: gets no request but sys/health
)

// String names the role.
func (r Role) String() string { return cmp.Or(string(r), "unknown") }

// Role is what h says the node is.
func (h Health) Role() Role {
	switch {
	case !h.Initialized:
		return RoleUninitialized
	case h.Status == 530:
		return RoleRemoved
	case h.Sealed:
		return RoleSealed
	case h.Status == 474:
		return RoleUnhealthy
	case h.Status == 472:
		return RoleDRSecondary
	case h.PerformanceStandby:
		return RolePerformanceStandby
	case h.Standby:
		return RoleStandby
	case h.Status == http.StatusOK:
		return RoleActive
	}
	return RoleUnreachable
}

// ServesReads tells whether the node answers reads by itself: the active node,
// a performance standby, and a standby of OpenBao from 2.5.
func (h Health) ServesReads() bool {
	switch h.Role() {
	case RoleActive, RolePerformanceStandby:
		return true
	case RoleStandby:
		return h.OpenBao && !h.ForwardsReads()
	}
	return false
}
