package warmup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/origin"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wire"
	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

// session is an Origin that logs in as the warm-up.
type session struct {
	session *origin.Session
	own     *cache.Identity
}

// NewOrigin returns an Origin that sends requests through client under the
// token of tokens, without retries of its own.
func NewOrigin(client origin.Client, tokens *auth.Manager) Origin {
	own := cache.NewOwn()
	return &session{origin.New(origin.Options{Client: client, Tokens: tokens, Own: own}), own}
}

// Ready logs in if there is no token.
func (s *session) Ready(ctx context.Context) error { return s.session.Ready(ctx, s.own) }

// Ask sends one request.
func (s *session) Ask(ctx context.Context, method, namespace, path string) (*http.Response, error) {
	req, err := wire.Request(ctx, method, namespace, path, "", nil)
	if err != nil {
		return nil, err
	}
	return s.session.Send(req, s.own, false)
}

// isAway reports whether err means that the origin could not be asked, and may
// be again soon.
func isAway(err error) bool {
	if errors.Is(err, backoff.ErrGivenUp) {
		return false
	}
	if login := new(auth.LoginError); errors.As(err, &login) && login.Status != 0 {
		return login.Status >= 500
	}
	return errors.Is(err, auth.ErrForeign) || vault.Unavailable(err)
}

// maxAnswer bounds one answer: a list of some 100,000 names, a secret of
// Vault's largest.
const maxAnswer = 16 << 20

// read asks until the origin gives an answer that is one. It waits while the origin is
// away, and gives up on what keeps failing although the origin is there.
func (p *pass) read(ctx context.Context, method, path string) (cache.Answer, error) {
	w := p.w
	for failures := 0; ; failures++ {
		if ctx.Err() != nil {
			return cache.Answer{}, context.Cause(ctx)
		}
		a, err := w.ask(ctx, method, p.audience.Namespace, path)
		switch {
		case err == nil && method == "SCAN" && a.Status == http.StatusNotImplemented && !w.getScan.Swap(true):
			// The method is not offered; GET with a parameter is the same
			// (https://openbao.org/docs/rfcs/scan-operation).
			continue
		case err == nil && (!wire.Failed(a.Status) || a.Status == http.StatusTooManyRequests || a.Status == http.StatusNotImplemented):
			return a, nil
		case err != nil && !isAway(err):
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return cache.Answer{}, err
		case err == nil && failures >= 2:
			return a, nil // the origin is there, and fails this one
		case err == nil:
			err = cmp.Or(a.Failure, fmt.Errorf("status %d", a.Status))
		}
		if err := p.outlast(ctx, err); err != nil {
			return cache.Answer{}, err
		}
	}
}

// outlast waits for an origin that does not answer, and restores backups meanwhile. The
// error is errAway, also when the run's time ends meanwhile: this is why.
func (p *pass) outlast(ctx context.Context, why error) error {
	if p.w.outlast(ctx, why, p.restore) {
		return nil
	}
	return fmt.Errorf("%w: %w", errAway, why)
}

// ask sends one request. What is not the origin's answer by its shape counts as a
// 502, for a SCAN as a 501, and what a cache in between gave as a 422, since it may be
// old. Failure says what it was.
func (w *Warmer) ask(ctx context.Context, method, namespace, path string) (cache.Answer, error) {
	scan := method == "SCAN"
	if scan && w.getScan.Load() {
		method, path = http.MethodGet, path+"?scan=true"
	}
	w.note(func(s *Summary) { s.Requests++ })
	sentAt := w.o.Now()
	res, err := w.o.Origin.Ask(ctx, method, namespace, path)
	if err != nil {
		return cache.Answer{}, err
	}
	defer res.Body.Close()
	w.cursor.Seen(res.Header)
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return cache.Answer{}, err
	}
	if len(body) > maxAnswer {
		return cache.Answer{}, errRefused{why: "the answer is larger than 16 MiB"}
	}
	if res.StatusCode == http.StatusTooManyRequests {
		w.note(func(s *Summary) { s.RateLimited++ }) // behind a backoff, the one that gave up
	}
	a := cache.Answer{Status: res.StatusCode, Header: res.Header, Body: body, SentAt: sentAt}
	of := wire.Secret
	if scan || method == "LIST" {
		of = wire.List
	}
	switch said := wire.New(a.Status, a.Header, body); {
	case wire.Failed(a.Status):
	case said.Word(of) == wire.Failure:
		a.Failure = fmt.Errorf("what came, status %d with %s, is not Vault's: check what stands before it", a.Status, said.Form())
		a.Status = http.StatusBadGateway // nothing is learned from it
		if scan {
			a.Status = http.StatusNotImplemented // a firewall may not let the method through
		}
	case wire.FromCache(a.Header):
		a.Failure, a.Status = errors.New("a cache before the origin gave the answer"), http.StatusUnprocessableEntity
	}
	return a, nil
}

// refusal is the reason that an answer other than 200 gives, an errRefused.
func refusal(a cache.Answer, why string) error {
	refused := errRefused{fmt.Sprintf("%d: %s", a.Status, why), a.Failure != nil || wire.Failed(a.Status)}
	switch {
	case a.Failure != nil:
		refused.why = a.Failure.Error()
	case a.Status == http.StatusForbidden:
		refused.why = "403: permission denied: " + why
	case a.Status == http.StatusTooManyRequests:
		refused.why = "429: rate limited"
	}
	return refused
}
