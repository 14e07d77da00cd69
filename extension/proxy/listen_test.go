package proxy

import (
	"log/slog"
	"net"
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
