package origin

import (
	"net/http"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/extension/wire"
)

// afterChange sends a read that follows a change of which an event told. The
// event may be here before the node that answers has the change. So the read
// goes to the active node where that is known; it requires the state of the
// change, where the event told it (Vault 1.21), and waits for it; else it asks
// to be forwarded, for as long as the origin does not refuse that
// (allow_forwarding_via_header). Where nothing of it can be had, change is left
// weak.
func (s *Session) afterChange(req *http.Request, id *cache.Identity, change *cache.Change) (*http.Response, error) {
	if s.o.Active != nil {
		req = req.WithContext(s.o.Active(req.Context()))
	}
	change.Weak = true
	switch {
	case change.Index != "":
		return s.awaitState(req, id, change)
	case s.noForward.Load():
		return s.Send(req, id, true)
	}
	asked := resend(req)
	asked.Header.Set("X-Vault-Forward", "active-node")
	res, err := s.Send(asked, id, true)
	if err != nil || res.StatusCode != http.StatusBadRequest {
		change.Weak = err != nil
		return res, err
	}
	if wire.Peek(res, maxRefusal).Reason() != wire.NoForwarding {
		return res, nil
	}
	res.Body.Close()
	s.noForward.Store(true)
	return s.Send(resend(req), id, true)
}

// resend is req with headers of its own, to be sent once more.
func resend(req *http.Request) *http.Request {
	out := req.WithContext(req.Context())
	out.Header = req.Header.Clone()
	return out
}

// statePause is how long a node that lags is left alone.
const statePause = 50 * time.Millisecond

// awaitState asks until a node has the state of the change, or the context
// ends.
func (s *Session) awaitState(req *http.Request, id *cache.Identity, change *cache.Change) (*http.Response, error) {
	for {
		asked := resend(req)
		asked.Header.Set("X-Vault-Index", change.Index)
		res, err := s.Send(asked, id, true)
		if err != nil || res.StatusCode != http.StatusPreconditionFailed {
			change.Weak = err != nil
			return res, err
		}
		if wait.For(req.Context(), statePause) != nil {
			return res, nil
		}
		res.Body.Close()
	}
}

// Subscribe sends a request for a stream of events under the extension's own
// identity, with the token that it has now.
func (s *Session) Subscribe(req *http.Request) (*http.Response, error) {
	return s.Send(req, s.o.Own, true)
}
