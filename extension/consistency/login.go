package consistency

import (
	"net/http"
	"strings"
)

// Doer sends a request to the origin.
type Doer interface {
	Do(req *http.Request) (*http.Response, error)
}

// Logins is the origin for the extension's own logins and renewals: it records
// what they change. The state of a login is required of what is sent with its
// token, and of what the callers send with it.
type Logins struct {
	k    *Keeper
	next Doer
}

// Logins returns next, watched.
func (k *Keeper) Logins(next Doer) Logins { return Logins{k, next} }

// Do sends one request.
func (l Logins) Do(req *http.Request) (*http.Response, error) {
	res, err := l.next.Do(req)
	if err != nil || res.StatusCode != http.StatusOK {
		return res, err
	}
	now := l.k.o.Now()
	states, until := l.k.told(req, res)
	l.k.update(who{own: true}, func(r *record) {
		r.take(states, now, until)
		if strings.HasSuffix(req.URL.Path, "/login") {
			r.issued = now
		}
	})
	return res, nil
}
