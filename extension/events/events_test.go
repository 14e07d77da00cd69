package events

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// dial makes a socket to a handler, as the listener does.
func dial(t *testing.T, h http.HandlerFunc) *socket {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	accept := offer(req.Header)
	res, err := server.Client().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(res, accept)
	if err != nil {
		t.Fatalf("%v: %d %v", err, res.StatusCode, res.Header)
	}
	t.Cleanup(s.close)
	return s
}

// The other end is an implementation of the protocol that is not ours.
func TestASocketSpeaksWithAnotherImplementation(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70_000)
	s := dial(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		ctx := conn.CloseRead(r.Context())
		for _, m := range []string{"a", strings.Repeat("b", 126), long} {
			if err := conn.Write(ctx, websocket.MessageText, []byte(m)); err != nil {
				t.Error(err)
			}
		}
		parts, err := conn.Writer(ctx, websocket.MessageText) // in several frames
		if err != nil {
			t.Error(err)
			return
		}
		for _, p := range []string{"one ", "two ", "three"} {
			io.WriteString(parts, p)
		}
		parts.Close()
		if err := conn.Ping(ctx); err != nil { // waits for our pong
			t.Error("ping:", err)
		}
		conn.Close(websocket.StatusNormalClosure, "that is all")
	})
	if err := s.write(opPing, binary.BigEndian.AppendUint64(nil, 7)); err != nil {
		t.Fatal(err)
	}
	var pongs []uint64
	pong := func(p []byte) { pongs = append(pongs, binary.BigEndian.Uint64(p)) }
	for _, want := range []string{"a", strings.Repeat("b", 126), long, "one two three"} {
		got, err := s.read(pong)
		if err != nil || string(got) != want {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	if _, err := s.read(pong); err != errClosed {
		t.Errorf("the end: %v", err)
	}
	if !slices.Equal(pongs, []uint64{7}) {
		t.Errorf("pongs: %v", pongs)
	}
}

func TestAHandshakeThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]http.Header{
		"another key's proof": {"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Accept": {"c3VtIG9mIGFub3RoZXI="}},
		"no proof":            {"Upgrade": {"websocket"}, "Connection": {"Upgrade"}},
		"another protocol":    {"Upgrade": {"h2c"}, "Connection": {"Upgrade"}},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(http.StatusSwitchingProtocols)
		}))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		accept := offer(req.Header)
		res, err := server.Client().Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(res, accept); err == nil {
			t.Errorf("%s: taken", name)
		}
		server.Close()
	}
}

// pipe is a socket whose other end has sent what is given.
type pipe struct {
	*bytes.Reader
	wrote bytes.Buffer
}

func (p *pipe) Write(b []byte) (int, error) { return p.wrote.Write(b) }
func (p *pipe) Close() error                { return nil }

func TestFramesThatAreAgainstTheProtocolEndTheStream(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string][]byte{
		"masked":                  {0x81, 0x81, 1, 2, 3, 4, 'x'},
		"an extension's bit":      {0xc1, 1, 'x'},
		"an unknown opcode":       {0x83, 1, 'x'},
		"continues nothing":       {0x80, 1, 'x'},
		"begins anew in midst":    {0x01, 1, 'x', 0x81, 1, 'y'},
		"a fragmented ping":       {0x09, 0},
		"a long ping":             append([]byte{0x89, 126, 0, 126}, make([]byte, 126)...),
		"larger than is taken":    {0x81, 127, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff},
		"larger than there is":    {0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"cut off":                 {0x81, 5, 'x'},
		"cut off in its head":     {0x81},
		"too large in its frames": slices.Concat([]byte{0x01, 127, 0, 0, 0, 0, 0, 0x0f, 0xff, 0xff}, make([]byte, 0xfffff), []byte{0x80, 2, 0, 0}),
	} {
		s := &socket{rwc: &pipe{}, r: bufio.NewReader(bytes.NewReader(sent))}
		if m, err := s.read(func([]byte) {}); err == nil {
			t.Errorf("%s: read %d bytes", name, len(m))
		}
	}
}

func FuzzSocket(f *testing.F) {
	f.Add([]byte{0x81, 1, 'x'})
	f.Add([]byte{0x89, 2, 'h', 'i', 0x01, 1, 'a', 0x80, 1, 'b'})
	f.Fuzz(func(t *testing.T, sent []byte) {
		p := &pipe{}
		s := &socket{rwc: p, r: bufio.NewReader(bytes.NewReader(sent))}
		for {
			m, err := s.read(func([]byte) {})
			if err != nil {
				break
			}
			if len(m) > len(sent) || len(m) > maxMessage {
				t.Fatalf("%d bytes of %d", len(m), len(sent))
			}
		}
		if p.wrote.Len() > 6*len(sent)+6 {
			t.Fatalf("%d bytes written for %d", p.wrote.Len(), len(sent))
		}
	})
}

func TestEventsSayWhatTheyChange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		message string
		writes  int
		index   string
		bad     bool
	}{
		{message: `{"data":{"event":{"metadata":{"modified":"true","operation":"data-write","path":"secret/data/foo","data_path":"secret/data/foo","vault_index":"djE6"}},"event_type":"kv-v2/data-write","plugin_info":{"mount_path":"secret/"}}}`, writes: 1, index: "djE6"},
		{message: `{"data":{"event":{"metadata":{"modified":"true","operation":"destroy","path":"secret/destroy/foo","data_path":"secret/data/foo"}},"event_type":"kv-v2/destroy","namespace":"team/"}}`, writes: 2},
		{message: `{"data":{"event":{"metadata":{"modified":"false","path":"secret/data/foo"}},"event_type":"kv-v2/data-write"}}`},
		{message: `{"data":{"event":{"metadata":{"modified":"true","path":"db/x"}},"event_type":"database/rotate"}}`},
		{message: `{"data":{"event":{"metadata":{"modified":"true","path":"data/foo"}},"event_type":"kv-v2/data-write","plugin_info":{"mount_path":"secret/"}}}`, writes: 1},
		{message: `{"data":{"event":{"metadata":{"modified":"true","operation":"config-write","path":"secret/config"}},"event_type":"kv-v2/config-write"}}`, writes: 1},
		{message: `{"data":{"event":{"metadata":{"modified":"true"}},"event_type":"kv-v2/data-write"}}`, bad: true},
		{message: `{"data":[]}`, bad: true},
		{message: `{}`, bad: true},
		{message: `x`, bad: true},
	} {
		c, err := parse([]byte(tt.message))
		if (err != nil) != tt.bad || (c == nil) != (tt.writes == 0) || c != nil && (len(c.writes) != tt.writes || c.index != tt.index) {
			t.Errorf("%s: %+v, %v", tt.message, c, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"data":{"event":{"metadata":{"modified":"true","path":"secret/data/foo"}},"event_type":"kv-v2/data-write"}}`))
	f.Fuzz(func(t *testing.T, message []byte) {
		c, err := parse(message)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Error("an error quotes the message")
		}
		if c != nil && len(c.writes) == 0 {
			t.Error("a change that changes nothing")
		}
	})
}

// A stream that is silent is dead, although its connection stands.
func TestASilentStreamIsGivenUp(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	l := New(Options{Ping: time.Millisecond, Now: func() time.Time { now = now.Add(time.Second); return now }})
	p := &pulse{l: l, since: now, heard: now}
	closed := make(chan struct{})
	s := &socket{rwc: closer{closed}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p.run(ctx, s)
	select {
	case <-closed:
	default:
		t.Error("it is taken for alive")
	}
}

// closer takes everything and says when it is closed.
type closer struct{ closed chan struct{} }

func (c closer) Read([]byte) (int, error)    { select {} }
func (c closer) Write(b []byte) (int, error) { return len(b), nil }
func (c closer) Close() error                { close(c.closed); return nil }
