package consistency

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/wire"
)

// written returns the state after a write of an origin that sends none: the
// index that its active node has applied now, which is no less than the
// write's. Where that cannot be learned the write has a number of its own, and
// only reads of the active node that come after it cover that. The time is
// until when reads go to the active node.
func (k *Keeper) written(req *http.Request, res *http.Response) ([]string, time.Time) {
	if k.o.AtLeast == nil || reads(req) || refused(res) {
		return nil, time.Time{}
	}
	number := k.sequence.Add(1)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), max(k.o.Wait, time.Second))
	defer cancel()
	index, err := k.o.Applied(ctx)
	until := k.o.Now().Add(k.o.Wait)
	switch {
	case err != nil:
		k.o.Log.Warn("the active node does not tell how far its storage is: reads of who just wrote go to it", "error", err)
		return []string{writePrefix + strconv.FormatUint(number, 10)}, until
	case index == 0: // other storage: every node reads the same
		return nil, time.Time{}
	}
	return []string{raftPrefix + strconv.FormatUint(index, 10)}, until
}

// refused reports whether the origin itself refused a write, which changed nothing
// then. What a gateway says of a write tells nothing of it.
func refused(res *http.Response) bool {
	return res.StatusCode >= http.StatusBadRequest && !wire.Failed(res.StatusCode) && wire.Peek(res, maxPeek).Genuine(wire.Write)
}

// routed sends a read where the write can be seen: to the active node for Wait,
// then to nodes that have applied its index. Where the routes don't
// matter it returns req.
func (t *try) routed(req *http.Request) *http.Request {
	if t.k.o.AtLeast == nil {
		return req
	}
	index, known := raftIndex(t.required)
	unknown := strings.Contains(t.required, writePrefix)
	switch {
	case !known && !unknown:
		return req
	case unknown, t.k.o.Now().Before(t.record.until):
		t.active = true
		return req.WithContext(t.k.o.Active(req.Context()))
	}
	return req.WithContext(t.k.o.AtLeast(req.Context(), index))
}
