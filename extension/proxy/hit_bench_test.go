package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/poll"
)

const benchBody = `{"request_id":"bcee4fbd-eb72-e4b8-15fc-f06662005ed9","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"pass":"b","user":"a"},"metadata":{"created_time":"2026-11-21T08:12:06.230285075Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}`

// benchOrigin answers every read with benchBody.
type benchOrigin struct{}

func (benchOrigin) Ready(context.Context, *cache.Identity) error { return nil }
func (benchOrigin) Index(context.Context, uint64) cache.Index    { return cache.Index{} }
func (benchOrigin) Read(context.Context, cache.Question) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, ContentLength: int64(len(benchBody)),
		Header: http.Header{
			"Content-Type": {"application/json"}, "Cache-Control": {"no-store"},
			"Strict-Transport-Security": {"max-age=31536000; includeSubDomains"}, "Date": {"Sat, 21 Nov 2026 08:12:27 GMT"},
		},
		Body: io.NopCloser(strings.NewReader(benchBody)),
	}, nil
}

type benchVerifier struct{}

func (benchVerifier) Wait(context.Context, cache.Key)                            {}
func (benchVerifier) Reading()                                                   {}
func (benchVerifier) Ahead()                                                     {}
func (benchVerifier) Confirm(context.Context, *cache.Identity, cache.Capability) {}

// BenchmarkHit measures a hit on one connection beside the bare handler that
// peers are compared with.
func BenchmarkHit(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, benchBody)
		})}
		go srv.Serve(ln)
		defer srv.Close()
		benchRequests(b, ln.Addr().String())
	})
	b.Run("thaw", func(b *testing.B) {
		c := cache.New(cache.Options{Origin: benchOrigin{}, Bytes: 1 << 20, Recheck: time.Hour, RefreshInterval: time.Hour, StaleIfError: time.Hour})
		defer c.Close()
		s := New(Options{
			Config: config.Config{
				Listeners: []config.Listener{{Network: "tcp", Address: "127.0.0.1:0"}}, MaxBody: 1 << 20, MaxHeader: 64 << 10, MaxConns: 1024,
				HeaderTimeout: 5 * time.Second, BodyTimeout: 30 * time.Second, OwnToken: config.OwnTokenFill, StaticCache: true,
			},
			HasToken: true,
			Cache:    c, Reads: poll.NewReads(poll.ReadOptions{Cache: c, Poll: benchVerifier{}, Permissions: benchVerifier{}, Now: time.Now}), Status: func(error) int { return 502 },
			Log: slog.New(slog.DiscardHandler), Now: time.Now,
		})
		if err := s.Listen(); err != nil {
			b.Fatal(err)
		}
		s.Serve()
		defer s.Shutdown(context.Background())
		benchRequests(b, s.Addrs()[0])
		if s.Counts().Hits == 0 {
			b.Fatal("nothing was a hit")
		}
	})
}

func benchRequests(b *testing.B, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := []byte("GET /v1/secret/data/app HTTP/1.1\r\nHost: 127.0.0.1:8200\r\nUser-Agent: bench\r\nAccept-Encoding: gzip\r\n\r\n")
	r := bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		length := 0
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
			if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
				for _, d := range bytes.TrimSpace(n) {
					length = length*10 + int(d-'0')
				}
			}
		}
		if _, err := r.Discard(length); err != nil {
			b.Fatal(err)
		}
	}
}
