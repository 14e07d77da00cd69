package proxy

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// Between bind and chmod others could connect, where the umask lets them.
func TestG5ASocketIsItsOwnersFromTheFirstMoment(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	private := net.ListenConfig{Control: ownersOnly}
	ln, err := private.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// socket_mode is honoured, and no listener speaks an older TLS than its file says.
func TestAListenersFileSaysWhoMayUseItsSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	s := New(Options{Log: slog.New(slog.DiscardHandler), Config: config.Config{Listeners: []config.Listener{{Network: "unix", Address: path, SocketMode: 0o660}}}})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	defer s.closeListeners()
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
