package faults

import (
	"math/rand/v2"
	"slices"
	"time"
)

// together are operations that chance alone seldom brings together: one
// instance's invocations begin just while a secret that it reads is written, and
// just after; reads are under way while the function writes what they read; a
// caller who was just refused asks again while the origin is away; an instance
// starts in the middle of an outage; or a caller loses what it had.
func together(r *rand.Rand) []Op {
	x, hot := r.IntN(1<<16), 2*r.IntN(1<<15)
	op := func(k Kind, a, b int) Op {
		return Op{Kind: k, A: a, B: b, C: r.IntN(4) + 1<<10, D: 10 * r.IntN(1<<10), Apart: true}
	}
	// theirs is a read by caller i, or with the token that it had before.
	theirs := func(i int, before bool) Op {
		o := op(OpRead, x, hot)
		if o.D = 2*i + 1; before {
			o.D = 2*(hadBefore+16*i) + 1
		}
		return o
	}
	wait, invoke := op(OpWait, 1, 0), op(OpInvoke, x, 0)
	switch r.IntN(11) {
	case 0:
		read := theirs(r.IntN(callers), false)
		may := func(groups int) []Op { return []Op{op(OpPolicy, 1, groups), op(OpPolicy, 2, groups)} }
		return slices.Concat([]Op{read, wait}, may(4), []Op{invoke, read, wait, op(OpSeal, 0, 0), invoke, read, wait, op(OpUnseal, 0, 0)}, may(0))
	case 1:
		write := op(OpOwnWrite, x, hot)
		write.C = 1
		read, first := op(OpRead, x, hot), op(OpRead, x, hot)
		first.C = 8 + 64*12 // the first version, by its number
		return []Op{first, read, wait, write, read, read, read, wait, read, wait, first}
	case 2:
		read := theirs(r.IntN(callers), false)
		return []Op{
			op(OpRead, x, hot), read, wait, op(OpSeal, 0, 0), op(OpKill, x, 0), invoke, op(OpRead, x, hot), read, wait,
			op(OpUnseal, 0, 0), invoke, op(OpRead, x, hot), read, wait,
		}
	case 3: // a caller revokes its own token through the instance, and tries it again, also in an outage
		i, leave := r.IntN(callers), op(OpRevoke, x, 3)
		leave.D = i
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 1+i%callerPolicies, 0), invoke, theirs(i, false), wait, leave, wait,
			op(OpSeal, 0, 0), theirs(i, true), wait, op(OpUnseal, 0, 0), op(OpRead, x, hot), wait, theirs(i, true), wait, theirs(i, true),
		}
	case 4: // a policy ends a caller's capability while it asks nothing
		freeze := op(OpFreeze, 0, 3)
		freeze.C = 0
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 1, 0), invoke, theirs(0, false), op(OpRead, x, hot), wait, op(OpPolicy, 1, 4), freeze, invoke,
			op(OpRead, x, hot), wait, theirs(0, false), wait, op(OpSeal, 0, 0), op(OpRead, x, hot), wait, op(OpUnseal, 0, 0), theirs(0, false), wait, op(OpPolicy, 1, 0),
		}
	case 5: // two callers list a mount of which they may see different parts
		lists := func(i int) Op {
			o := theirs(i, false)
			o.C = 15 + 64*12
			return o
		}
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 1, 0), op(OpPolicy, 2, 2), invoke, lists(1), wait, lists(4), wait, lists(1), wait,
		}
	case 7: // a policy begins to ask for a parameter, and what capabilities show stays the same
		may := func(limit int) Op { o := op(OpPolicy, 1, 0); o.C = limit; return o }
		freeze := op(OpFreeze, 0, 3+r.IntN(2))
		freeze.C = 0
		read, own := theirs(0, false), op(OpRead, x, hot)
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), may(unlimited), invoke, own, read, wait, may(0), invoke, own, wait, read, wait,
			freeze, invoke, own, wait, read, wait, invoke, read, wait, may(unlimited),
		}
	case 8: // a caller loses what it had while it is refused for load
		read, later := theirs(0, false), op(OpWait, 4, 0)
		ops := []Op{op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 1, 0), invoke, read, op(OpRead, x, hot), wait, op(OpFault, x, quotas), op(OpPolicy, 1, 4)}
		for range 4 {
			ops = append(ops, later, op(OpRotate, hot+1, 0), op(OpRead, x, hot), wait, read, wait)
		}
		return append(ops, op(OpMend, x, 0), op(OpPolicy, 1, 0))
	case 6: // a function reads nothing for a while, and then again, all within a moment
		read := op(OpRead, x, hot)
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), invoke, read, op(OpWait, 0, 0), invoke, invoke, invoke, invoke, op(OpRotate, hot, 0), wait, invoke, read,
		}
	}
	return []Op{
		op(OpRead, x, hot), op(OpWait, 0, 0), op(OpRotate, hot, 0), op(OpInvoke, x, 0), op(OpRead, x, hot), op(OpWait, 1, 0),
		op(OpInvoke, x, 0), op(OpRead, x, hot),
	}
}

// aimed are operations that chance alone seldom brings together: just after a write,
// which a standby still lacks, an invocation learns the index of the active node and
// reads the secret from the standby. When that has the write, another one is verified
// by the same index, if it is.
func aimed(r *rand.Rand) []Op {
	x, hot := r.IntN(1<<16), 2*r.IntN(1<<15)
	op := func(k Kind, a, b int) Op {
		return Op{Kind: k, A: a, B: b, C: 1 << 10, D: 10 * r.IntN(1<<10)}
	}
	read, other, invoke := op(OpRead, x, hot), op(OpRead, x, hot+2), op(OpInvoke, x, 0)
	ops := []Op{op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 0, 0), invoke, other, op(OpWait, 0, 0), op(OpRotate, hot, 0), op(OpWait, 0, 0), invoke}
	for range 1 + r.IntN(3) {
		ops = append(ops, other)
	}
	ops = append(ops, read, op(OpWait, 2, 0))
	for range 1 + r.IntN(4) {
		ops = append(ops, invoke, read)
	}
	return ops
}

// The secrets of one folder, in a world with lists.
const (
	firstOfMany = 9
	many        = 5
)

// browse has one environment read a folder's secrets at each invocation, while one of them is
// changed: a new version, none, or the first one again.
func browse(r *rand.Rand) []Op {
	x := r.IntN(1 << 16)
	op := func(k Kind, a, b int) Op {
		return Op{Kind: k, A: a, B: b, C: 1 << 10, D: 10 * r.IntN(1<<10)}
	}
	may := op(OpPolicy, 0, 0)
	may.C = unlimited
	invocation := []Op{op(OpInvoke, x, 0)}
	for i := range many {
		invocation = append(invocation, op(OpRead, x, 2*(firstOfMany+i)+1))
	}
	invocation = append(invocation, op(OpWait, 2, 0))
	ops := []Op{op(OpUnseal, 0, 0), op(OpMend, x, 0), may}
	for range 2 + r.IntN(2) {
		ops = append(ops, invocation...)
	}
	one := 2*(firstOfMany+r.IntN(many)) + 1
	again := op(OpRotate, one, 0)
	for range 1 + r.IntN(3) {
		switch r.IntN(4) {
		case 0:
			ops = append(ops, op(OpRemove, one, 0))
		case 1:
			ops = append(ops, op(OpRemove, one, 1), op(OpWait, 0, 0), again)
		default:
			ops = append(ops, again)
		}
		ops = append(append(ops, op(OpWait, r.IntN(3), 0)), invocation...)
	}
	return ops
}

// newcomers are operations that chance alone seldom brings together: a secret is read,
// and an environment starts in the middle of an outage long after. In between the
// role may have lost it.
func newcomers(r *rand.Rand, s Setup) []Op {
	x, hot := r.IntN(1<<16), 2*r.IntN(1<<15)
	op := func(k Kind, a, b int) Op {
		return Op{Kind: k, A: a, B: b, C: 1 << 10, D: 10 * r.IntN(1<<10)}
	}
	policy := 0
	if s.Roles && x%s.Instances%2 == 1 {
		policy = otherRole
	}
	read, invoke, late := op(OpRead, x, hot), op(OpInvoke, x, 0), op(OpFreeze, 0, 2)
	if late.C = 0; s.Refresh > 30*time.Second {
		late.B = 3
	}
	may, mayNot := op(OpPolicy, policy, 0), op(OpPolicy, policy, 4)
	may.C = unlimited
	fresh := []Op{op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpKill, x, 0), may, invoke, read, op(OpWait, 2, 0)}
	start := []Op{op(OpSeal, 0, 0), op(OpKill, x, 0), op(OpInvoke, x, 1), read, op(OpWait, 2, 0), read, op(OpUnseal, 0, 0), may}
	if s.Roles && s.OpenBao && s.Instances > 1 && r.IntN(2) == 0 { // the roles see different parts of a list
		narrow, broad := op(OpRead, 1, hot), op(OpRead, 0, hot)
		narrow.C, narrow.D = 15+64*12, 30*r.IntN(1<<10)
		broad.C, broad.D = narrow.C, narrow.D
		return []Op{
			op(OpUnseal, 0, 0), op(OpMend, x, 0), op(OpPolicy, 0, 0), op(OpPolicy, otherRole, 2), op(OpInvoke, 1, 0), narrow, op(OpWait, 1, 0),
			op(OpInvoke, 0, 0), broad, op(OpWait, 2, 0), op(OpSeal, 0, 0), op(OpKill, 1, 0), op(OpInvoke, 1, 0), narrow, op(OpWait, 2, 0), op(OpUnseal, 0, 0),
		}
	}
	if r.IntN(2) == 0 {
		return slices.Concat(fresh, []Op{late}, start)
	}
	return slices.Concat(fresh, []Op{mayNot, late, invoke, read, op(OpWait, 2, 0)}, start)
}
