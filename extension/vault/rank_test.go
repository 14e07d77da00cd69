package vault

import (
	"strings"
	"testing"
	"time"
)

// TestRanking is the table: where a request goes, in which order, and whether a
// standby is told not to hand it on ("!").
func TestRanking(t *testing.T) {
	t.Parallel()
	ours := func(name string, r Role, change ...func(*view)) view {
		v := view{node: &node{host: name}, state: new(state), role: r, ours: true, fresh: true, copies: r == RolePerformanceStandby}
		for _, f := range change {
			f(&v)
		}
		return v
	}
	resting := func(v *view) { v.resting = true }
	stranger := func(v *view) { v.ours = false }
	active, standby, copies := ours("active", RoleActive), ours("standby", RoleStandby), ours("copy", RolePerformanceStandby)
	dead, unknown := ours("dead", RoleUnreachable), ours("unknown", RoleUnknown, stranger)
	all := []view{unknown, copies, standby, dead, active, ours("foreign", RoleForeign), ours("sealed", RoleSealed)}
	tried := func(vs ...choice) []choice { return vs }
	as := func(v view, noForward, leaderless bool) choice { return choice{v, noForward, leaderless} }
	for _, c := range []struct {
		name  string
		all   []view
		to    class
		read  bool
		tried []choice
		want  string
	}{
		{"a read for the leader", all, toLeader, true, nil, "active standby"},
		{"after the leader", all, toLeader, true, tried(as(active, false, false)), "standby"},
		{"a read for a copy", all, toReader, true, nil, "copy active standby"},
		{"after the copy", all, toReader, true, tried(as(copies, false, false)), "active standby"},
		{"a write", all, toLeader, false, nil, "!active !standby !copy standby copy"},
		{"a write, after the leader", all, toLeader, false, tried(as(active, true, false)), "!standby !copy standby copy"},
		{"a write, after a standby", all, toLeader, false, tried(as(active, true, false), as(standby, true, false)), "!copy standby copy"},
		{"a standby that knows no leader", all, toLeader, false, tried(as(standby, true, true)), "!active !copy copy"},
		{"a standby that leads by now", []view{ours("standby", RoleActive)}, toLeader, false, tried(), "!standby"},
		{"an election is due", []view{ours("old", RoleStandby, func(v *view) { v.justLost = true }), standby}, toLeader, false, nil, "!old !standby"},
		{"a leader in doubt that was tried", []view{ours("old", RoleActive, func(v *view) { v.fresh = false })}, toLeader, false, nil, "!old"},
		{"a secondary hands on itself", []view{ours("active", RoleActive, func(v *view) { v.health.ReplicationPerformanceMode = "secondary" })}, toLeader, false, nil, "active"},
		{"about a node", all, toSelf, true, nil, "active copy standby unknown sealed"},
		{"about a node, all else tried", []view{dead, active}, toSelf, true, tried(as(active, false, false)), "dead"},
		{"who rests is last", []view{ours("active", RoleActive, resting), standby, copies, ours("copy2", RolePerformanceStandby, resting)}, toReader, true, nil, "copy standby copy2 active"},
		{"of two leaders the later", []view{ours("a", RoleActive, func(v *view) { v.activeTime = time.Unix(2, 0) }), ours("b", RoleActive, func(v *view) { v.activeTime = time.Unix(3, 0) })}, toLeader, true, nil, "b"},
		{"nobody of ours", []view{unknown, ours("x", RoleActive, stranger), ours("foreign", RoleForeign)}, toLeader, true, nil, ""},
		{"nobody of ours, about a node", []view{unknown, ours("foreign", RoleForeign)}, toSelf, true, nil, "unknown"},
	} {
		var got []string
		for _, r := range rank(c.all, c.to, c.read, c.tried) {
			got = append(got, map[bool]string{true: "!"}[r.noForward]+r.host)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}
