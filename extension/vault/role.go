package vault

import "net/http"

// Role is what a node of the origin is at present. Its sys/health tells
// (https://developer.hashicorp.com/vault/api-docs/system/health).
type Role uint8

// Roles of a node.
const (
	RoleUnknown            Role = iota // not asked yet
	RoleActive                         // 200: reads and writes
	RoleStandby                        // 429: forwards to the active node, or redirects; OpenBao's from 2.5 serves reads
	RolePerformanceStandby             // 473: serves reads, forwards writes
	RoleUnhealthy                      // 474: a standby that has lost its active node
	RoleDRSecondary                    // 472: serves nobody
	RoleUninitialized                  // 501
	RoleSealed                         // 503
	RoleRemoved                        // 530: no longer a member of its cluster
	RoleUnreachable                    // no answer, or one that is not Vault's
	RoleForeign                        // of another cluster: gets no request but sys/health
)

var roleNames = [...]string{
	RoleUnknown: "unknown", RoleActive: "active", RoleStandby: "standby", RolePerformanceStandby: "performance standby", RoleUnhealthy: "unhealthy standby",
	RoleDRSecondary: "DR secondary", RoleUninitialized: "uninitialized", RoleSealed: "sealed", RoleRemoved: "removed", RoleUnreachable: "unreachable", RoleForeign: "foreign",
}

// String names the role, for people, logs and `thaw status`.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return roleNames[RoleUnknown]
}

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
