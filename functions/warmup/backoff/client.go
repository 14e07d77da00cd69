package backoff

import (
	"errors"
	"io"
	"net/http"

	"github.com/thaw-project/thaw/extension/wire"
)

// Doer sends requests without retries of its own.
type Doer interface {
	Do(req *http.Request) (*http.Response, error)
	DoOnce(req *http.Request) (*http.Response, error)
}

// Client sends every request through a backoff and repeats those that the origin
// refused, since a request that was refused did nothing. It fits wherever a
// client of the origin is asked for.
type Client struct {
	next    Doer
	backoff *Backoff
}

var _ Doer = (*Client)(nil)

// NewClient puts a backoff before a client.
func NewClient(next Doer, backoff *Backoff) *Client { return &Client{next, backoff} }

// Do sends a request; a 429 is waited for and sent again. Errors are those of
// the client behind it, ErrGivenUp, or the context's.
func (c *Client) Do(req *http.Request) (*http.Response, error) { return c.send(req, c.next.Do) }

// DoOnce is the same: what it leaves out are the other client's retries.
func (c *Client) DoOnce(req *http.Request) (*http.Response, error) { return c.send(req, c.next.DoOnce) }

// maxRefusal bounds what is read of a 429.
const maxRefusal = 4 << 10

func (c *Client) send(req *http.Request, do func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	for {
		t, err := c.backoff.Enter(req.Context())
		if err != nil {
			return nil, err
		}
		res, err := do(req)
		if err != nil {
			c.backoff.Leave(t, 0, nil, nil)
			return nil, err
		}
		if res.StatusCode != http.StatusTooManyRequests {
			c.backoff.Leave(t, res.StatusCode, res.Header, nil)
			return res, nil
		}
		text, err := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			text = nil
		}
		c.backoff.Leave(t, res.StatusCode, res.Header, text)
		next, ok := wire.Again(req)
		if !ok {
			res.Body = wire.Prepend(text, res.Body)
			return res, nil
		}
		res.Body.Close()
		req = next
	}
}
