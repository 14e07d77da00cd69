package vault

import "context"

// wishes are what a caller may ask of the choice of a node. They go in the request's
// context, so that they pass through everything that sends requests.
type wishes struct {
	active     bool
	atLeast    uint64
	repeatable bool
}

type wishesKey struct{}

func wishesIn(ctx context.Context) wishes {
	w, _ := ctx.Value(wishesKey{}).(wishes)
	return w
}

func with(ctx context.Context, wish func(*wishes)) context.Context {
	w := wishesIn(ctx)
	wish(&w)
	return context.WithValue(ctx, wishesKey{}, w)
}

// ToActive makes requests under the context go to the active node only, as if
// THAW_READS were active: none is sent to a node that serves reads from a copy.
// Where no active node can be reached but a standby that forwards, that one
// hands the request on to it. With one configured node it changes nothing.
func ToActive(ctx context.Context) context.Context {
	return with(ctx, func(w *wishes) { w.active = true })
}

// AtLeast lets reads under the context go only to a node that has applied the
// raft index, or to the active node. A standby that is not known to have done
// so is asked once, at its sys/leader, without a token. 0 asks for nothing; of
// several calls the last counts. Take index from Leader after a write: with
// IsSelf it is the active node's Applied.
func AtLeast(ctx context.Context, index uint64) context.Context {
	return with(ctx, func(w *wishes) { w.atLeast = index })
}

// Repeatable says that a read under the context changes nothing, as one of a KV
// mount: if its answer takes longer than is usual for the node, it may be sent
// to a second node as well.
func Repeatable(ctx context.Context) context.Context {
	return with(ctx, func(w *wishes) { w.repeatable = true })
}

// NodeHeader is in an answer that a node may have given from a copy that lags:
// its value is "standby". It is ours: what the origin sends under that name does
// not get here while there are nodes to choose from.
const NodeHeader = "X-Thaw-Node"

// sign notes in the answer whether it is of a copy.
func (k *call) sign(a *result) {
	if !k.c.routed.Load() {
		return
	}
	delete(a.Header, NodeHeader)
	if k.read && k.c.view(a.node).copies {
		a.Header[NodeHeader] = []string{"standby"}
	}
}
