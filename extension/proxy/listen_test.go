package proxy

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thaw-project/thaw/extension/config"
)

// TestATakenAddressIsToldInOneSentence: where, why and what to do, each once.
func TestATakenAddressIsToldInOneSentence(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	s := New(Options{Log: slog.New(slog.DiscardHandler), Config: config.Config{Listeners: []config.Listener{{Network: "tcp", Address: addr}}}})
	err = s.Listen()
	if err == nil {
		t.Fatal("it listens")
	}
	if text := err.Error(); !strings.HasPrefix(text, "listen on "+addr+": bind: address already in use: set THAW_LISTEN") || strings.Count(text, addr) != 1 {
		t.Errorf("got %q", text)
	}
}

// TestATakenSocketIsToldWithWhatToDo: another process serves there, or the path is not ours.
func TestATakenSocketIsToldWithWhatToDo(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	other, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	file := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, what := range map[string]string{socket: "another process serves there", file: "there is a file that is no socket"} {
		s := New(Options{Log: slog.New(slog.DiscardHandler), Config: config.Config{Listeners: []config.Listener{{Network: "unix", Address: path}}}})
		if err := s.Listen(); err == nil || !strings.HasPrefix(err.Error(), "listen on "+path+": "+what) || !strings.Contains(err.Error(), "set THAW_LISTEN") {
			t.Errorf("got %v", err)
		}
	}
}
