package attack

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thaw-project/thaw/tests/harness"
)

// held is an origin that answers secret/data/held* and the mount held when it is let
// go, sys/monitor and big without an end, sys/slow never whole, and everything else at once. It knows the
// tokens that begin with hvs.good.
type held struct {
	*httptest.Server
	release chan struct{}
}

func newHeld(t *testing.T) *held {
	h := &held{release: make(chan struct{})}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		path := strings.TrimPrefix(r.URL.Path, "/v1/")
		if r.Method == http.MethodPost || r.Method == http.MethodPut {
			io.Copy(io.Discard, r.Body)
		}
		switch {
		case !strings.HasPrefix(r.Header.Get("X-Vault-Token"), "hvs.good") && !strings.HasPrefix(path, "held"):
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"errors":["permission denied"]}`)
		case strings.HasPrefix(path, "sys/events/subscribe/"):
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.Copy(io.Discard, c)
		case path == "sys/monitor", path == "big":
			piece := []byte(strings.Repeat("x", 64<<10))
			for r.Context().Err() == nil {
				if path == "sys/monitor" {
					piece = []byte("a line\n")
					time.Sleep(20 * time.Millisecond)
				}
				if _, err := w.Write(piece); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		case path == "sys/slow":
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case strings.Contains(path, "held"):
			select {
			case <-h.release:
			case <-r.Context().Done():
			}
			fallthrough
		default:
			answer := map[string]any{"request_id": "x", "lease_id": "", "renewable": false, "lease_duration": 0, "mount_type": "kv",
				"data": map[string]any{"data": map[string]any{"v": path}, "metadata": map[string]any{"version": 1, "created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false}}}
			if strings.Contains(path, "10k") {
				answer["data"].(map[string]any)["data"] = map[string]any{"v": strings.Repeat("0123456789", 1000)}
			}
			if r.Method == "LIST" {
				answer["data"] = map[string]any{"keys": []string{"a"}}
			}
			json.NewEncoder(w).Encode(answer)
		}
	}))
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	return h
}

func (h *held) start(t *testing.T, vars ...string) *thaw {
	return launch(t, append([]string{"VLE_VAULT_ADDR=" + h.URL, "VAULT_TOKEN=hvs.good-own", "VAULT_MAX_RETRIES=0", "THAW_KV_MOUNTS=secret=2",
		"THAW_BODY_TIMEOUT=10m", "VAULT_CLIENT_TIMEOUT=10m", "VAULT_LOG_LEVEL=INFO"}, vars...)...)
}

// hold opens n connections, writes to each what say gives, and keeps them.
func (p *thaw) hold(n int, say func(i int) string) []net.Conn {
	p.t.Helper()
	conns := make([]net.Conn, n)
	var all sync.WaitGroup
	for i := range conns {
		conns[i] = p.dial()
		all.Go(func() { io.WriteString(conns[i], say(i)) })
	}
	all.Wait()
	return conns
}

func known(t string) string { return "X-Vault-Token: " + t }

// fine makes sure that somebody honest is answered: who reads what is not cached, and
// who writes.
func (p *thaw) fine(path string, head ...string) {
	p.t.Helper()
	if a := p.get("/v1/secret/data/"+path, head...); a.value() != "secret/data/"+path {
		p.t.Errorf("an honest read: %d %.300s", a.status, a.body)
	}
	if a := ask(p.t, p.addr, request("POST", "/v1/secret/data/"+path, `{"data":{}}`, head...)); a.status != http.StatusOK {
		p.t.Errorf("an honest write: %d %.300s", a.status, a.body)
	}
}

// Five thousand reads whose callers leave at once, of an origin that says nothing:
// what nobody waits for ends, and what was sent already is bounded by the places.
func TestReadsThatNobodyWaitsForHoldNothing(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(i int) string{
		"reads": func(i int) string { return request("GET", fmt.Sprint("/v1/secret/data/held", i), "") },
		"of callers": func(i int) string {
			return request("GET", fmt.Sprint("/v1/secret/data/held", i), "", known("hvs.good"))
		},
		"of guesses": func(i int) string {
			return request("GET", fmt.Sprint("/v1/held/", i), "", known(fmt.Sprint("hvs.", i)))
		},
		"lists":              func(i int) string { return request("LIST", fmt.Sprint("/v1/secret/metadata/held", i), "") },
		"one key, no-cache":  func(int) string { return request("GET", "/v1/secret/data/held", "", "Cache-Control: no-cache") },
		"one key, no-store":  func(int) string { return request("GET", "/v1/secret/data/held", "", "Cache-Control: no-store") },
		"of another engine":  func(i int) string { return request("GET", fmt.Sprint("/v1/held/", i), "") },
		"what is not cached": func(i int) string { return request("GET", fmt.Sprint("/v1/sys/held/", i), "") },
		"writes":             func(i int) string { return request("POST", fmt.Sprint("/v1/held/", i), "{}") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newHeld(t).start(t)
			p.fine("a")
			before, memory := p.metric("thaw_goroutines"), resident(t, p.pid)
			const each = 100
			all := 1000
			if name == "reads" {
				all = 5000
			}
			for i := 0; i < all; i += each {
				for _, c := range p.hold(each, func(j int) string { return ask(i + j) }) {
					c.Close()
				}
			}
			harness.Eventually(t, patience, "who left waits for nothing", func() bool { return p.metric("thaw_queue_length") == 0 })
			// A place takes a fill, a call and its connection: a dozen goroutines at most.
			harness.Eventually(t, patience, "what is under way is bounded by the places", func() bool {
				return p.metric("thaw_goroutines") <= before+64*12 && p.metric("thaw_places_in_use") <= 64
			})
			harness.Eventually(t, patience, "memory is given back", func() bool { return resident(t, p.pid)-memory < most })
		})
	}
}

// Who floods waits behind himself: with all that one token, or all that nobody knows,
// may hold and queue, another token's reads and writes go on. The rest of the flood
// gets 503 and is told to come again.
func TestAFloodWaitsBehindItself(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]func(i int) []string{
		"a token's":       func(int) []string { return []string{known("hvs.good-bad")} },
		"without a token": func(int) []string { return nil },
		"of guesses":      func(i int) []string { return []string{known(fmt.Sprint("hvs.guess", i))} },
	} {
		t.Run(name, func(t *testing.T) {
			p := newHeld(t).start(t, "THAW_MAX_IN_FLIGHT=16", "THAW_MAX_QUEUED=32")
			for _, who := range []string{"hvs.good-bad", "hvs.good-honest"} {
				p.fine("a", known(who)) // Vault knows it
			}
			path := "/v1/held/"
			if name == "a token's" {
				path = "/v1/secret/data/held"
			}
			conns := p.hold(100, func(i int) string { return request("GET", fmt.Sprint(path, i), "", by(i)...) })
			harness.Eventually(t, patience, "the queue is full", func() bool { return p.metric("thaw_queue_length") == 32 })
			for i := range 5 {
				p.fine(fmt.Sprint("b", i), known("hvs.good-honest"))
			}
			refused := 0
			for _, c := range conns {
				c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				head := make([]byte, 1024)
				if n, _ := io.ReadFull(c, head); strings.HasPrefix(string(head[:n]), "HTTP/1.1 503") && strings.Contains(string(head[:n]), "\r\nRetry-After: ") {
					refused++
				}
			}
			if inUse := int(p.metric("thaw_places_in_use")); inUse >= 16 || refused != 100-32-inUse {
				t.Errorf("%d places in use, %d refused", inUse, refused)
			}
		})
	}
}

// A full queue is no outage: what is cached is served, marked, where that is allowed
// at all.
func TestAFullQueueServesWhatIsCached(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, set    string
		want         int
		warned, late bool
	}{
		{"optimistic", "THAW_EVENTS=auto", http.StatusOK, true, false},
		{"never stale", "THAW_STALE_IF_ERROR=0", http.StatusServiceUnavailable, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newHeld(t).start(t, "THAW_MAX_IN_FLIGHT=8", "THAW_MAX_QUEUED=4", "THAW_RECHECK=100ms", "THAW_MAX_AGE=0", c.set)
			p.fine("a")
			p.get("/v1/secret/data/a")
			p.hold(40, func(i int) string {
				return request("GET", fmt.Sprint("/v1/held/", i), "", known(fmt.Sprint("hvs.guess", i)))
			})
			p.hold(40, func(i int) string { return request("GET", fmt.Sprint("/v1/secret/data/held", i), "") })
			harness.Eventually(t, patience, "the places are taken", func() bool { return p.metric("thaw_places_in_use") == 8 })
			harness.Eventually(t, patience, "what is cached is no longer verified", func() bool {
				a := p.get("/v1/secret/data/a")
				return a.status == c.want && (a.header.Get("Warning") != "") == c.warned
			})
			if a := p.get("/v1/secret/data/none", "Cache-Control: no-store"); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Errorf("what is not cached: %d, %v", a.status, a.header)
			}
			if failed := p.metric("thaw_polls_failed_total"); failed > 0 {
				t.Errorf("%v polls failed", failed)
			}
		})
	}
}

// In the smallest function, 5,000 secrets of 10 KB and 1,000 reads whose callers left
// take no more than thaw's part of the memory: the cache gives way.
func TestMemoryStaysAPartOfTheSmallestFunctions(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	p := h.start(t, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128", "THAW_MAX_PROCS=1")
	const part, longest = 128 << 20 / 5, 40e6 // bytes: of the heap, and of the process in all
	var highest int64
	look := func(when string) {
		if r := resident(t, p.pid); r > longest {
			t.Errorf("%s: %.1f MB resident", when, float64(r)/1e6)
		} else {
			highest = max(highest, r)
		}
	}
	const callers = 8
	for begin := 0; begin < 5000; begin += 500 {
		var all sync.WaitGroup
		for k := range callers {
			all.Go(func() {
				for i := begin + k; i < begin+500; i += callers {
					if a, err := tryAsk(p.addr, request("GET", fmt.Sprint("/v1/secret/data/10k", i), "")); err != nil || a.status != http.StatusOK {
						t.Errorf("%d %v", a.status, err)
						return
					}
				}
			})
		}
		all.Wait()
		look(fmt.Sprint(begin+500, " secrets"))
	}
	if b := p.metric("thaw_cache_bytes"); b > part/2 || b < part/4 {
		t.Errorf("%.1f MB of cache", b/1e6)
	}
	for i := 0; i < 1000; i += 100 {
		for _, c := range p.hold(100, func(j int) string { return request("GET", fmt.Sprint("/v1/secret/data/held", i+j), "") }) {
			c.Close()
		}
		look(fmt.Sprint(i+100, " reads that nobody waits for"))
	}
	t.Logf("%.1f MB resident at most", float64(highest)/1e6)
}

// Bodies that trickle in take no place while they are short, and half of the places
// at most while they are long, whoever sends them.
func TestSlowBodiesTakeNoPlaceFromOthers(t *testing.T) {
	t.Parallel()
	post := func(head string, sent int) func(int) string {
		return func(int) string {
			return "POST /v1/held/x HTTP/1.1\r\nHost: localhost\r\n" + head + "\r\n\r\n" + strings.Repeat("x", sent)
		}
	}
	// What follows a head, four bytes, is the beginning of the last chunk.
	chunk := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n5\r\n", 64<<10+1, strings.Repeat("x", 64<<10+1))
	for name, c := range map[string]struct {
		say  func(int) string
		most float64
	}{
		"short":            {post("Content-Length: 1000", 1), 0},
		"nothing at all":   {post("Content-Length: 1000", 0), 0},
		"just short":       {post("Content-Length: 65536", 65535), 0},
		"chunks":           {post("Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n5\r\n", 0), 0},
		"the head of long": {post("Content-Length: 1000000", 60000), 0},
		"long":             {post("Content-Length: 1000000", 66000), 16},
		"long chunks":      {post(chunk, 0), 16},
	} {
		t.Run(name, func(t *testing.T) {
			p := newHeld(t).start(t, "THAW_MAX_IN_FLIGHT=32")
			p.fine("a")
			p.hold(400, c.say)
			if c.most > 0 {
				harness.Eventually(t, patience, "long bodies are sent as they come", func() bool { return p.metric("thaw_places_in_use") > 0 })
			}
			for i := range 5 {
				p.fine(fmt.Sprint("b", i))
				if n := p.metric("thaw_places_in_use"); n > c.most {
					t.Errorf("%v places are held", n)
				}
			}
		})
	}
}

// A body that comes more slowly than THAW_BODY_RATE, although each of its pieces is in
// time, is ended with 400, and its place is free again.
func TestABodyBelowTheLeastRateIsEnded(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]int{"short": 1000, "long": 1000000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newHeld(t).start(t, "THAW_BODY_TIMEOUT=1s", "THAW_BODY_RATE=1MiB")
			sent := min(length/2, 66000) // of a long one enough that it takes a place
			c := p.hold(1, func(int) string {
				return fmt.Sprint("POST /v1/held/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: ", length, "\r\n\r\n", strings.Repeat("x", sent))
			})[0]
			if length > sent*2 {
				harness.Eventually(t, patience, "it takes a place", func() bool { return p.metric("thaw_places_in_use") == 1 })
			}
			go func() { // ends with the connection
				for _, err := io.WriteString(c, "x"); err == nil; _, err = io.WriteString(c, "x") {
					time.Sleep(50 * time.Millisecond)
				}
			}()
			harness.Must(t, c.SetReadDeadline(time.Now().Add(patience)))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			harness.Must(t, err)
			text, _ := io.ReadAll(res.Body)
			if res.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "THAW_BODY_RATE") {
				t.Errorf("%d %s", res.StatusCode, text)
			}
			c.Close()
			harness.Eventually(t, patience, "its place is free", func() bool { return p.metric("thaw_places_in_use") == 0 })
		})
	}
}

// Answers that last, because they have no end, their readers take their time or Vault
// does, hold half of the places at most.
func TestAnswersThatLastLeavePlacesForOthers(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]string{
		"sys/monitor": request("GET", "/v1/sys/monitor", ""), "slow readers": request("GET", "/v1/big", ""),
		"events": request("GET", "/v1/sys/events/subscribe/kv*", "", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
		"a slow answer to a write": request("POST", "/v1/sys/slow", "{}"),
	} {
		t.Run(name, func(t *testing.T) {
			p := newHeld(t).start(t, "THAW_MAX_IN_FLIGHT=16")
			p.fine("a")
			p.hold(60, func(int) string { return say })
			harness.Eventually(t, patience, "the rest gives way", func() bool {
				p.fine("b")
				return p.metric("thaw_queue_length") == 0 && p.metric("thaw_places_in_use") == 8
			})
			p.fine("c")
			// A long body waits for none of them.
			if a := ask(t, p.addr, request("POST", "/v1/secret/data/long", `{"data":{"v":"`+strings.Repeat("x", 100<<10)+`"}}`)); a.status != http.StatusOK {
				t.Errorf("a long body: %d %.300s", a.status, a.body)
			}
		})
	}
}
