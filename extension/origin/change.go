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
	for {
		asked, again := req.WithContext(req.Context()), false
		asked.Header = req.Header.Clone()
		if change.Weak = change.Index == "" && s.noForward.Load(); change.Index != "" {
			asked.Header.Set("X-Vault-Index", change.Index)
		} else if !change.Weak {
			asked.Header.Set("X-Vault-Forward", "active-node")
		}
		res, err := s.Send(asked, id, true)
		switch {
		case err != nil:
			change.Weak = true
			return nil, err
		case change.Weak:
		case change.Index != "" && res.StatusCode == http.StatusPreconditionFailed:
			change.Weak = true
			again = wait.For(req.Context(), statePause) == nil
		case change.Index == "" && res.StatusCode == http.StatusBadRequest:
			change.Weak = true
			again = wire.Peek(res, maxRefusal).Reason() == wire.NoForwarding
			s.noForward.CompareAndSwap(false, again)
		}
		if !again {
			return res, nil
		}
		res.Body.Close()
	}
}

// statePause is how long a node that lags is left alone.
const statePause = 50 * time.Millisecond

// Subscribe sends a request for a stream of events under the extension's own
// identity, with the token that it has now.
func (s *Session) Subscribe(req *http.Request) (*http.Response, error) {
	return s.Send(req, s.o.Own, true)
}
