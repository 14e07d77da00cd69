package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/poll"
)

// sizedOrigin answers secret/data/N with a body of N bytes.
type sizedOrigin struct{ benchOrigin }

func sizedBody(path string) string {
	n, err := strconv.Atoi(path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return benchBody
	}
	const head, tail = `{"request_id":"1","lease_id":"","data":{"data":{"v":"`, `"},"metadata":{"version":1}},"wrap_info":null,"auth":null,"mount_type":"kv"}`
	return head + strings.Repeat("v", n-len(head)-len(tail)) + tail
}

func (o sizedOrigin) Read(_ context.Context, q cache.Question) (*http.Response, error) {
	key := q.Key
	body := sizedBody(key.Path)
	return &http.Response{
		StatusCode: http.StatusOK, ContentLength: int64(len(body)), Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

func TestHitsHaveALengthAndTheWholeBodyWhateverItsSize(t *testing.T) {
	t.Parallel()
	c := cache.New(cache.Options{Origin: sizedOrigin{}, Bytes: 1 << 20, Recheck: time.Hour, RefreshInterval: time.Hour})
	defer c.Close()
	s := New(Options{
		Config: config.Config{
			Listeners: []config.Listener{{Network: "tcp", Address: "127.0.0.1:0"}}, MaxBody: 1 << 20, MaxHeader: 64 << 10, MaxConns: 4,
			HeaderTimeout: 5 * time.Second, BodyTimeout: 30 * time.Second, OwnToken: config.OwnTokenFill, StaticCache: true,
		},
		HasToken: true,
		Cache:    c, Reads: poll.NewReads(poll.ReadOptions{Cache: c, Poll: benchVerifier{}, Permissions: benchVerifier{}, Now: time.Now}), Status: func(error) int { return http.StatusBadGateway },
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	s.Serve()
	defer s.Shutdown(context.Background())
	conn, err := net.Dial("tcp", s.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for _, n := range []int{200, countedBody - 1, countedBody, countedBody + 1, 2047, 2048, 2049, 4096, 100_000} {
		for _, want := range []string{"MISS", "HIT"} {
			fmt.Fprintf(conn, "GET /v1/secret/data/%d HTTP/1.1\r\nHost: localhost\r\n\r\n", n)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || string(body) != sizedBody(fmt.Sprintf("secret/data/%d", n)) {
				t.Fatalf("%d bytes, %s: got %d bytes, %v", n, want, len(body), err)
			}
			if res.ContentLength != int64(n) || len(res.TransferEncoding) > 0 || res.Header.Get("X-Cache") != want {
				t.Errorf("%d bytes: Content-Length %d, Transfer-Encoding %v, X-Cache %q, want %s", n, res.ContentLength, res.TransferEncoding, res.Header.Get("X-Cache"), want)
			}
		}
	}
}
