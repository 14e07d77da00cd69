package vault

import "testing"

// Statuses and their order of precedence: getSysHealth in http/sys_health.go
// of hashicorp/vault v1.21.0.
func TestRolesFollowHealth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		h     Health
		role  Role
		reads bool
	}{
		{"active", Health{Status: 200, Initialized: true}, RoleActive, true},
		{"standby", Health{Status: 429, Initialized: true, Standby: true, Version: "1.21.0"}, RoleStandby, false},
		{"standby of OpenBao 2.4", Health{Status: 429, Initialized: true, Standby: true, Version: "2.4.1", OpenBao: true}, RoleStandby, false},
		{"standby of OpenBao 2.5", Health{Status: 429, Initialized: true, Standby: true, Version: "2.5.5", OpenBao: true}, RoleStandby, true},
		{"performance standby", Health{Status: 473, Initialized: true, Standby: true, PerformanceStandby: true, Version: "1.21.0+ent"}, RolePerformanceStandby, true},
		{"lost its active node", Health{Status: 474, Initialized: true, Standby: true}, RoleUnhealthy, false},
		{"DR secondary", Health{Status: 472, Initialized: true}, RoleDRSecondary, false},
		{"uninitialized", Health{Status: 501, Sealed: true, Standby: true}, RoleUninitialized, false},
		{"sealed", Health{Status: 503, Initialized: true, Sealed: true, Standby: true}, RoleSealed, false},
		{"removed and sealed", Health{Status: 530, Initialized: true, Sealed: true, Standby: true}, RoleRemoved, false},
	} {
		if got := tt.h.Role(); got != tt.role {
			t.Errorf("%s: role %v, want %v", tt.name, got, tt.role)
		}
		if got := tt.h.ServesReads(); got != tt.reads {
			t.Errorf("%s: serves reads: %v, want %v", tt.name, got, tt.reads)
		}
	}
}
