package doctor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/files"
)

// listen looks whether thaw's addresses are free, or its own already.
func listen(ctx context.Context, e *Exam) {
	for _, l := range e.Config.Listeners {
		if strings.HasSuffix(l.Address, ":0") {
			continue
		}
		switch err := bind(ctx, l); {
		case err == nil:
			e.Tell(Fine(l.Address + " is free for thaw to listen on"))
		case !errors.Is(err, syscall.EADDRINUSE):
			if !l.Optional {
				e.Tell(Fault("thaw cannot listen on "+l.Address+": "+err.Error(), e.startsNot("ListenFailed"),
					"set THAW_LISTEN to an address of this host, with a port that it may use, or to a path in a folder that is there and that thaw may write to"))
			}
		case isThaw(ctx, l):
			e.Tell(Fine("thaw listens on " + l.Address))
		default:
			e.Tell(Fault("another process listens on "+l.Address, e.startsNot("ListenFailed")+"; what is sent there, tokens too, reaches that process", "end it, or set THAW_LISTEN to a free address"))
		}
	}
}

// bind listens for a moment. A socket that nobody serves is what a process that is
// gone left, and thaw removes it.
func bind(ctx context.Context, l config.Listener) error {
	ln, err := new(net.ListenConfig).Listen(ctx, l.Network, l.Address)
	if err == nil {
		return ln.Close()
	}
	if l.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) {
		if left, e := os.Lstat(l.Address); e == nil && left.Mode().Type() != os.ModeSocket {
			return errors.New("there is a file that is no socket")
		}
		if nc, e := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, l.Network, l.Address); e == nil {
			return errors.Join(err, nc.Close())
		}
		return nil
	}
	if of, ok := errors.AsType[*net.OpError](err); ok {
		return of.Err // the address is known
	}
	return err
}

// isThaw asks whoever listens for what thaw refuses by itself, without Vault, which
// may hang. With TLS it is not asked: a certificate says nothing of that.
func isThaw(ctx context.Context, l config.Listener) bool {
	if l.CertFile != "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/", nil)
	if err != nil {
		return false
	}
	_, body, err := read((&http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, l.Network, l.Address)
	}}).RoundTrip(req))
	return err == nil && strings.Contains(string(body), `"thaw: `)
}

// secretFiles tries whether the files of file mode can be written. What it writes
// beside them is no secret, and is removed.
func secretFiles(_ context.Context, e *Exam) {
	for _, f := range e.Config.Files {
		if err := files.Try(f.File); err != nil {
			e.Tell(matters(!e.Config.FileOptional, "what "+f.Var+" names cannot be put into its file: "+err.Error(),
				"thaw does not start without it: Extension.SecretFileFailed", "thaw starts without it", fixFile))
			continue
		}
		e.Tell(Fine(f.File + " can be written"))
	}
}

const fixFile = "name a file in a folder that thaw may write to and that has room, such as one below /tmp, in VAULT_SECRET_FILE; or remove VAULT_SECRET_PATH and read by HTTP"
