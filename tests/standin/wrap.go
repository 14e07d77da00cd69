package standin

import (
	"bytes"
	"net/http"
	"time"
)

// wrapped is one wrapped answer, good for one unwrap.
type wrapped struct {
	body    []byte
	created time.Time
	ttl     time.Duration
	path    string
}

// wrapIfAsked plans the call and, when the client sent X-Vault-Wrap-TTL, puts
// the answer away and answers with a token for it.
// https://developer.hashicorp.com/vault/docs/concepts/response-wrapping
func (c *call) wrapIfAsked(plan func() (answer, *change)) (answer, *change) {
	a, ch := plan()
	if c.wrapTTL <= 0 || !a.wrappable {
		return a, ch
	}
	id := "hvs." + randomText(90)
	w := &wrapped{body: a.body, created: c.now, ttl: c.wrapTTL, path: c.path}
	inner := ch
	ch = &change{entries: 4, apply: func(st *state) {
		if inner != nil {
			inner.apply(st)
		}
		st.wrapped[id] = w
	}}
	if inner != nil {
		ch.entries += inner.entries
	}
	return jsonAnswer(http.StatusOK, envelope{WrapInfo: &wrapInfo{
		Token: id, Accessor: randomText(24), TTL: int(c.wrapTTL.Seconds()), CreationTime: c.now.Format(time.RFC3339Nano),
		CreationPath: c.path, WrappedAccessor: a.accessor,
	}}), ch
}

// wrappedFor finds what the call's token, or the token it names, unwraps.
func (c *call) wrappedFor(st *state) (string, *wrapped) {
	id := c.text("token")
	if id == "" {
		id = c.secret
	}
	w := st.wrapped[id]
	if w == nil || !c.now.Before(w.created.Add(w.ttl)) {
		return id, nil
	}
	return id, w
}

func (c *call) planUnwrap(st *state) (answer, *change) {
	if c.op != opUpdate {
		return unsupported(), nil
	}
	id, w := c.wrappedFor(st)
	if w == nil {
		return invalid("wrapping token is not valid or does not exist"), nil
	}
	return answer{status: http.StatusOK, body: bytes.TrimSuffix(w.body, []byte("\n"))}, &change{entries: 4, apply: func(st *state) { delete(st.wrapped, id) }}
}

func (c *call) planWrapLookup(st *state) answer {
	if c.op != opUpdate && c.op != opRead {
		return unsupported()
	}
	_, w := c.wrappedFor(st)
	if w == nil {
		return invalid("wrapping token is not valid or does not exist")
	}
	return c.ok("", map[string]any{
		"creation_path": w.path, "creation_time": w.created.Format(time.RFC3339Nano), "creation_ttl": int64(w.ttl.Seconds()),
	})
}
