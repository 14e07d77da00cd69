// Package origin sends requests to the origin under an identity: the
// extension's own, whose token it adds and, when the origin calls it invalid,
// replaces once; or a caller's, whose token goes as it came.
package origin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/clock"
	"github.com/thaw-project/thaw/extension/coalesce"
	"github.com/thaw-project/thaw/extension/queue"
	"github.com/thaw-project/thaw/extension/wire"
)

// Client sends requests to the origin, with and without retries.
type Client interface {
	Do(req *http.Request) (*http.Response, error)
	DoOnce(req *http.Request) (*http.Response, error)
}

// Cursor gives the index that is recorded with a read.
type Cursor interface {
	Index(ctx context.Context, epoch uint64) cache.Index
	// Ask has an index received, and waits for it.
	Ask(ctx context.Context, epoch uint64) error
	// Seen takes in the headers of the answer to a read.
	Seen(h http.Header)
	// Learn says that a read was answered and its connection is free, and waits
	// until nothing about the origin is being asked.
	Learn(ctx context.Context)
}

// Guard sends a request by send so that its answer is no older than what the
// identity wrote, and returns the answer.
type Guard interface {
	Send(req *http.Request, id *cache.Identity, send func(*http.Request) (*http.Response, error)) (*http.Response, error)
}

// Options says what a Session works with.
type Options struct {
	Client   Client
	Tokens   *auth.Manager
	Own      *cache.Identity  // the extension's own, which is that of Tokens, too; nil: one that only the Session knows
	Interval time.Duration    // the refresh interval
	Now      func() time.Time // nil: time.Now
	Cursor   Cursor           // nil: no index is recorded with reads
	Shared   bool             // other instances get what is read: each would read an entry without an index again
	Guard    Guard            // sends every request; nil: the Client does
	// Harmless marks a read that changes nothing, so that a slow answer may be
	// asked for a second time; nil: none is marked.
	Harmless func(context.Context) context.Context
	// Active makes requests go to the active node; nil: nothing is known of nodes.
	Active func(context.Context) context.Context
}

// Session is the extension's side of the origin. It is the cache's Origin.
type Session struct {
	o         Options
	noForward atomic.Bool // the origin refuses to forward by header
	forbidden forbidden

	settles *coalesce.Group[bool, struct{}] // one after the reads under our own identity, one after a caller's
}

var _ cache.Origin = (*Session)(nil)

// New returns a Session.
func New(o Options) *Session {
	if o.Own == nil {
		o.Own = cache.NewOwn()
	}
	o.Now = clock.Of(o.Now)
	once := func(struct{}, error) time.Duration { return math.MaxInt64 }
	return &Session{o: o, settles: coalesce.New[bool](coalesce.Options[struct{}]{Limit: settleMost, Keep: once})}
}

// Close ends what runs besides requests and waits for it.
func (s *Session) Close() { _ = s.settles.Close(context.Background()) }

// Ready logs in if id is the extension's own and has no token.
func (s *Session) Ready(ctx context.Context, id *cache.Identity) error {
	if !id.Own() || !s.o.Tokens.Enabled() {
		return nil
	}
	_, err := s.token(ctx)
	return err
}

// firstRead is the body of a read after whose end there is more to ask.
type firstRead struct {
	io.ReadCloser
	settled func()
}

func (b firstRead) Close() error {
	err := b.ReadCloser.Close()
	b.settled()
	return err
}

// Settle asks for what later polls need to know as if a first read under the extension's
// own identity had been answered, and waits for it as such a read does.
func (s *Session) Settle() { s.settled(true) }

// settled asks, once, what later polls need to know: when a token that was
// given ends, and what the origin is. The connection of the first secret is
// free again: a second one would be another TLS handshake at the start. The
// secret waits for it, though not for long, so that it belongs to this
// invocation and no later one pays for it.
func (s *Session) settled(own bool) {
	own = own && s.o.Tokens.Enabled()
	call, mine := s.settles.Start(context.Background(), own, func(ctx context.Context) (struct{}, error) {
		if own {
			_ = s.o.Tokens.Maintain(ctx) // what fails is tried again by the next poll
		}
		if s.o.Cursor != nil {
			s.o.Cursor.Learn(ctx)
		}
		return struct{}{}, nil
	})
	if mine {
		ctx, cancel := context.WithTimeout(context.Background(), settleTime)
		defer cancel()
		_, _ = call.Wait(ctx)
	}
}

const (
	// settleTime is how long the first secret waits at most for what is asked
	// after it.
	settleTime = 25 * time.Millisecond
	settleMost = 5 * time.Second // for all that is asked then
)

// token returns the extension's token. A login under other policies or as
// another entity ends the capabilities of the identity (auth.Owner), and so does a login
// that the origin forbids: that is an answer, not an outage. It ends nothing of other
// instances: their clock may be right, and their credentials others.
func (s *Session) token(ctx context.Context) (string, error) {
	t, err := s.o.Tokens.Token(queue.Ours(ctx)) // which others wait for as well
	if refused := new(auth.LoginError); err == nil {
		s.o.Own.Bar(false)
	} else if errors.As(err, &refused) && refused.Status == http.StatusForbidden {
		s.o.Own.Bar(true)
	}
	return t, err
}

// Relogin logs in before returning, unless that was just done.
func (s *Session) Relogin(ctx context.Context) error {
	_, err := s.o.Tokens.Relogin(ctx)
	if errors.Is(err, auth.ErrRecently) {
		return nil
	}
	return err
}

// Index returns the origin's index, to be recorded with a read that is about to
// be sent. The first of a process waits for it where the cache is shared.
func (s *Session) Index(ctx context.Context, epoch uint64) cache.Index {
	if s.o.Cursor == nil {
		return cache.Index{}
	}
	if index := s.o.Cursor.Index(ctx, epoch); !s.o.Shared || !index.Zero() {
		return index
	}
	_ = s.o.Cursor.Ask(ctx, epoch) // without one the entry is read again
	return s.o.Cursor.Index(ctx, epoch)
}

// Read sends one read. Nothing of a caller's request goes along but what the key
// says, and the state that the answer must have seen: no header of one caller can shape
// an answer that others are served.
func (s *Session) Read(ctx context.Context, q cache.Question) (*http.Response, error) {
	key, id := q.Key, q.ID
	req := &http.Request{
		Method: key.Method(),
		URL:    &url.URL{Path: "/v1/" + key.Path, RawQuery: key.Query},
		Header: http.Header{"X-Vault-Request": {"true"}},
	}
	if key.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", key.Namespace)
	}
	if q.State != "" {
		req.Header["X-Vault-Index"] = strings.Split(q.State, ",")
	}
	if s.o.Harmless != nil && q.Harmless {
		ctx = s.o.Harmless(ctx)
	}
	var res *http.Response
	var err error
	if q.After != nil {
		res, err = s.afterChange(req.WithContext(ctx), id, q.After)
	} else {
		res, err = s.Send(req.WithContext(ctx), id, q.Retry)
	}
	if err == nil && s.o.Cursor != nil {
		s.o.Cursor.Seen(res.Header)
	}
	if err == nil {
		res.Body = firstRead{res.Body, func() { s.settled(id.Own()) }}
	}
	return res, err
}

// Send sends a request under id: with the extension's token where id is its
// own, else with the caller's. A body is sent again after a new login only if
// req.GetBody can give it again.
func (s *Session) Send(req *http.Request, id *cache.Identity, retry bool) (*http.Response, error) {
	do := s.o.Client.DoOnce
	if retry {
		do = s.o.Client.Do
	}
	if s.o.Guard != nil {
		send := do
		do = func(req *http.Request) (*http.Response, error) { return s.o.Guard.Send(req, id, send) }
	}
	own, token := id.Own() && s.o.Tokens.Enabled(), id.Token
	if own {
		var err error
		if token, err = s.token(req.Context()); err != nil {
			return nil, err
		}
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := do(req)
	if !own || err != nil || res.StatusCode != http.StatusForbidden || aboutAnotherToken(req.URL.Path) {
		return res, err
	}
	return s.again(req, res, token, do)
}

// aboutAnotherToken reports whether a request names a token in its body: a 403
// may then be about that one.
func aboutAnotherToken(path string) bool {
	_, call, ok := strings.Cut(path, "/auth/token/")
	return ok && !strings.HasSuffix(call, "-self")
}

// maxRefusal bounds what is read of a 403 to see why.
const maxRefusal = 16 << 10

// again looks at a 403: if the token is the reason, or now and then its policies may
// be, the request is sent once more under a new one.
func (s *Session) again(req *http.Request, res *http.Response, token string, do func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	another := s.o.Tokens.Rejected
	before := s.o.Own.Resets()
	about := wire.Peek(res, maxRefusal).Reason() == wire.AboutToken
	if !about {
		if !s.forbidden.may(req, s.o.Now(), s.o.Interval) {
			return res, nil
		}
		another = func(ctx context.Context, used string) (string, error) { return s.o.Tokens.Retry(ctx, used) }
	}
	fresh, err := another(queue.Ours(req.Context()), token)
	if !about {
		s.forbidden.came(s.o.Now(), s.o.Own.Resets() == before)
	}
	if err != nil || fresh == "" {
		return res, nil // the refusal is the answer
	}
	second, ok := wire.Again(req)
	if !ok {
		return res, nil
	}
	res.Body.Close()
	second.Header.Set("X-Vault-Token", fresh)
	return do(second)
}

// Capabilities asks sys/capabilities-self
// (https://developer.hashicorp.com/vault/api-docs/system/capabilities-self). An
// answer of Vault's that is too long or cannot be understood has the status 422;
// one that is not Vault's is an error.
func (s *Session) Capabilities(ctx context.Context, id *cache.Identity, namespace string, paths []string) (int, map[string][]string, error) {
	var answer struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	a, err := s.ask(ctx, id, namespace, http.MethodPost, "sys/capabilities-self", wire.Capabilities, map[string][]string{"paths": paths}, &answer)
	if err != nil || a.Status != http.StatusOK {
		return a.Status, nil, err
	}
	out := make(map[string][]string, len(paths))
	for _, p := range paths {
		var list []string
		if raw, ok := answer.Data[p]; ok && json.Unmarshal(raw, &list) == nil {
			out[p] = list
		}
	}
	return a.Status, out, nil
}

// LookUp asks auth/token/lookup-self of a token. Vault refuses one that has ended
// (https://developer.hashicorp.com/vault/api-docs/auth/token#lookup-a-token-self).
func (s *Session) LookUp(ctx context.Context, id *cache.Identity, namespace string) (status int, token cache.Token, err error) {
	token.Asked = s.o.Now()
	var answer struct {
		Data auth.Lease `json:"data"`
	}
	a, err := s.ask(ctx, id, namespace, http.MethodGet, "auth/token/lookup-self", wire.Lookup, nil, &answer)
	status, token.Orphan, token.Counted = a.Status, answer.Data.Orphan, answer.Data.NumUses > 0
	left := answer.Data.Left()
	if a.Reason() == wire.AboutToken {
		status, left = http.StatusOK, time.Nanosecond
	}
	if left > 0 {
		token.Expires = token.Asked.Add(left)
	}
	return status, token, err
}

// Folder is poll.Options.Folder.
func (s *Session) Folder(ctx context.Context, id *cache.Identity, namespace, path string) (wire.Answer, error) {
	a, err := s.ask(ctx, id, namespace, "LIST", path, wire.List, nil, new(json.RawMessage))
	if err == nil && s.o.Cursor != nil {
		s.o.Cursor.Seen(a.Header)
	}
	return a, err
}

// maxAnswer bounds an answer to a question of our own.
const maxAnswer = 8 << 20

// ask asks a question of our own. The answer's status is 422 where it is the
// origin's and does not tell.
func (s *Session) ask(ctx context.Context, id *cache.Identity, namespace, method, path string, of wire.Endpoint, body, into any) (a wire.Answer, err error) {
	req, err := wire.Request(ctx, method, namespace, path, "", body)
	if err != nil {
		return a, fmt.Errorf("ask %s: %w", path, err)
	}
	res, err := s.Send(req, id, false)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return a, fmt.Errorf("read the answer of %s: %w", path, err)
	}
	if len(raw) > maxAnswer {
		return wire.Answer{Status: http.StatusUnprocessableEntity}, nil
	}
	a = wire.New(res.StatusCode, res.Header, raw)
	switch w := a.Word(of); {
	case w == wire.Failure && !wire.Failed(a.Status):
		return a, fmt.Errorf("ask %s: what came, status %d with %s, is not Vault's: check what stands before it", path, a.Status, a.Form())
	case a.Reason() == wire.Locked, w != wire.Failure && wire.FromCache(res.Header), w == wire.Wrapped, w == wire.Value && json.Unmarshal(raw, into) != nil:
		a.Status = http.StatusUnprocessableEntity // the origin did answer: that is no failure of it
	}
	return a, nil
}
