package doctor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/thaw-project/thaw/extension/config"
)

// freshness says how late a change in Vault may be seen.
func freshness(_ context.Context, e *Exam) {
	what := "a change in Vault is seen " + e.Config.Freshness()
	if e.Config.Poll == config.PollOff && e.Config.DefaultTTL == 0 {
		e.Advice(what, "a rotated secret goes on being served", "remove THAW_POLL, or set VAULT_DEFAULT_CACHE_TTL")
		return
	}
	e.OK(what)
}

// latency compares how long Vault takes with how long reads wait for it.
func latency(_ context.Context, e *Exam) {
	limit := e.Config.PollTimeout
	for _, n := range e.nodes {
		what := n.String() + ": an answer takes " + n.took.Round(time.Millisecond).String() + ", and THAW_POLL_TIMEOUT is " + limit.String()
		switch {
		case n.health == nil || e.Config.Poll == config.PollOff:
		case n.took > limit:
			e.Problem(what, "no verification ends in time, so each read asks for itself, or what is cached is served marked stale", "raise THAW_POLL_TIMEOUT to twice that, or bring Vault nearer")
		case n.took > limit/2:
			e.Advice(what, "slower answers come too late, and what is cached is served marked stale", "raise THAW_POLL_TIMEOUT")
		default:
			e.OK(what)
		}
	}
	e.orOK("nothing waits for Vault: THAW_POLL=off")
}

// listen looks whether thaw's addresses are free, or its own already.
func listen(ctx context.Context, e *Exam) {
	for _, l := range e.Config.Listeners {
		if l.Network != "tcp" || strings.HasSuffix(l.Address, ":0") {
			continue
		}
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", l.Address)
		switch {
		case err == nil:
			ln.Close()
			e.OK(l.Address + " is free for thaw to listen on")
		case !errors.Is(err, syscall.EADDRINUSE):
			if !l.Optional {
				e.Problem("thaw cannot listen on "+l.Address+": "+plain(err.Error()), e.startsNot(), "set THAW_LISTEN to an address of this host, with a port that it may use")
			}
		case isThaw(ctx, l):
			e.OK("thaw listens on " + l.Address)
		default:
			e.Problem("another process listens on "+l.Address, e.startsNot()+"; what is sent there, tokens too, reaches that process", "end it, or set THAW_LISTEN to a free address")
		}
	}
	e.orOK("thaw listens on no port")
}

// isThaw asks whoever listens. With TLS it is not asked: a certificate says
// nothing of that.
func isThaw(ctx context.Context, l config.Listener) bool {
	if l.CertFile != "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Address+"/v1/sys/health", nil)
	if err != nil {
		return false
	}
	req.Host = "localhost"
	res, body, err := read((&http.Transport{DisableKeepAlives: true}).RoundTrip(req))
	return err == nil && (strings.HasPrefix(res.Header.Get("Cache-Status"), "thaw") || strings.Contains(string(body), `"thaw: `))
}
