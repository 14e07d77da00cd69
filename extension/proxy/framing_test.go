package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What follows a chunked body may be the rest of a body to someone in between.
func TestG3NothingIsReadAfterAChunkedBody(t *testing.T) {
	t.Parallel()
	const hidden = "GET /v1/sys/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, head := range map[string]string{
		"alone":             "Transfer-Encoding: chunked\r\n",
		"after a length":    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
		"before a length":   "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
		"by a bare newline": "Content-Length: 0\nTransfer-Encoding: chunked\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			conn, err := net.Dial("tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, "POST /v1/sys/x HTTP/1.1\r\nHost: localhost\r\n"+head+"\r\n0\r\n\r\n"+hidden); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(conn)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("after the answer: %q, %v", rest, err)
			}
		})
	}
}

// ReverseProxy hands interim answers on, and clears the answer's header with each.
func TestG3AnInterimAnswerReopensNoConnectionAfterAChunkedBody(t *testing.T) {
	t.Parallel()
	for _, expects := range []string{"", "Expect: 100-continue\r\n"} {
		for _, interim := range []int{0, http.StatusContinue, http.StatusProcessing, http.StatusEarlyHints} {
			for _, cut := range []bool{false, true} {
				t.Run(fmt.Sprintf("%q, %d, cut %v", expects, interim, cut), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					w.fault(func(rw http.ResponseWriter, r *http.Request) {
						if v := r.Header.Get("Expect"); v != "" {
							t.Errorf("passed on: Expect: %s", v)
						}
						io.Copy(io.Discard, r.Body)
						if interim != 0 {
							rw.WriteHeader(interim)
						}
						if cut {
							panic(http.ErrAbortHandler)
						}
						io.WriteString(rw, "the answer to "+r.URL.Path)
					})
					conn, r := w.dial("POST /v1/sys/x HTTP/1.1\r\nHost: localhost\r\n" + expects + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
						"GET /v1/sys/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n")
					conn.SetDeadline(time.Now().Add(10 * time.Second))
					all, err := io.ReadAll(r)
					if n := strings.Count(string(all), "HTTP/1.1 ") - strings.Count(string(all), "HTTP/1.1 100 "); n != 1 || err != nil && !strings.Contains(err.Error(), "reset") {
						t.Errorf("%d answers, %v:\n%s", n, err, all)
					}
				})
			}
		}
	}
}

func TestABodyThatCannotBeReadIsTheClientsFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, body := range map[string]string{"a bad size": "-1\r\n", "no size": "\r\n\r\n", "too much in a chunk": "1\r\nabc\r\n0\r\n\r\n"} {
		_, r := w.dial("POST /v1/sys/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
		if res := w.response(r, "POST"); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
}
