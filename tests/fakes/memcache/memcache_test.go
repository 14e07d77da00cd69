package memcache_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gomemcache "github.com/bradfitz/gomemcache/memcache"

	"github.com/thaw-project/thaw/tests/fakes/memcache"
	"github.com/thaw-project/thaw/tests/harness"
)

// clock is moved by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time // guarded by mu
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func start(t *testing.T) (*memcache.Server, *clock) {
	t.Helper()
	c := &clock{t: time.Unix(1_800_000_000, 0)}
	s, err := memcache.Start(memcache.Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, c
}

// say sends text on a connection of its own, then "quit", and returns all
// that came back.
func say(t *testing.T, addr, text string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(nc, text+"quit\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(nc)
	if err != nil && len(got) == 0 {
		t.Fatalf("%.60q: %v", text, err)
	}
	return string(got)
}

// dialogue is legal or nearly so; what follows the = is memcached 1.6.18's answer.
// {n} is an item's number, which differs from server to server.
func dialogue() [][2]string {
	long := strings.Repeat("k", 251)
	return [][2]string{
		{"get a b\r\n", "END\r\n"},
		{"set a 7 0 2\r\nxy\r\nget a\r\n", "STORED\r\nVALUE a 7 2\r\nxy\r\nEND\r\n"},
		{"gets a none a\r\n", "VALUE a 7 2 {n}\r\nxy\r\nVALUE a 7 2 {n}\r\nxy\r\nEND\r\n"},
		{"add a 0 0 1\r\nz\r\n", "NOT_STORED\r\n"},
		{"add b 0 100 0\r\n\r\nget b\r\n", "STORED\r\nVALUE b 0 0\r\n\r\nEND\r\n"},
		{"cas none 0 0 1 5\r\nz\r\n", "NOT_FOUND\r\n"},
		{"cas a 0 0 1 999999\r\nz\r\nget a\r\n", "EXISTS\r\nVALUE a 7 2\r\nxy\r\nEND\r\n"},
		{"delete a\r\ndelete a\r\nget a\r\n", "DELETED\r\nNOT_FOUND\r\nEND\r\n"},
		{"delete b 0\r\n", "DELETED\r\n"},
		{"set a 0 -1 1\r\nx\r\nget a\r\nadd a 0 0 1\r\ny\r\nget a\r\n", "STORED\r\nEND\r\nSTORED\r\nVALUE a 0 1\r\ny\r\nEND\r\n"},
		{"set a 0 2592001 1\r\nx\r\nget a\r\n", "STORED\r\nEND\r\n"}, // in January 1970
		{"set a 0 2592000 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"},
		{"set a 0 0 4\r\n\r\n\r\n\r\nget a\r\n", "STORED\r\nVALUE a 0 4\r\n\r\n\r\n\r\nEND\r\n"},
		{"set a 0 0 1048577\r\n" + strings.Repeat("x", 1048577) + "\r\nget a\r\n", "SERVER_ERROR object too large for cache\r\nEND\r\n"},
		{"set\r\n", "ERROR\r\n"},
		{"get\r\n", "ERROR\r\n"},
		{"GET a\r\n", "ERROR\r\n"},
		{"\r\n", "ERROR\r\n"},
		{"unheard of\r\n", "ERROR\r\n"},
		{"delete\r\n", "ERROR\r\n"},
		{"delete a 5\r\n", "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"},
		{"cas a 0 0 1\r\nz\r\n", "ERROR\r\nERROR\r\n"},
		{"cas a 0 0 1 x\r\nz\r\n", "CLIENT_ERROR bad command line format\r\nERROR\r\n"},
		{"set a x 0 1\r\nz\r\n", "CLIENT_ERROR bad command line format\r\nERROR\r\n"},
		{"set a 0 0 x\r\n", "CLIENT_ERROR bad command line format\r\n"},
		{"set a 0 0 -1\r\n", "CLIENT_ERROR bad command line format\r\n"},
		{"get " + long + "\r\n", "CLIENT_ERROR bad command line format\r\n"},
		{"set " + long + " 0 0 1\r\nx\r\n", "CLIENT_ERROR bad command line format\r\nERROR\r\n"},
	}
}

func held(t *testing.T, addr string) {
	t.Helper()
	number := regexp.MustCompile(`(?m)^(VALUE \S+ \d+ \d+) \d+\r$`)
	for _, d := range dialogue() {
		got := number.ReplaceAllString(say(t, addr, d[0]), "$1 {n}\r")
		if got != d[1] {
			t.Errorf("%.60q answers %.200q, want %q", d[0], got, d[1])
		}
	}
}

func TestTheStandInAnswersAsMemcached(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	held(t, s.Addr())
}

// TestMemcachedAnswersAsTheStandIn keeps the table above true.
func TestMemcachedAnswersAsTheStandIn(t *testing.T) {
	t.Parallel()
	held(t, harness.Memcache(t, harness.MemcachedConfig{}).Addr())
}

func TestGomemcacheGetsAlongWithBoth(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]func(t *testing.T) string{
		"stand-in":  func(t *testing.T) string { s, _ := start(t); return s.Addr() },
		"memcached": func(t *testing.T) string { return harness.Memcache(t, harness.MemcachedConfig{}).Addr() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := gomemcache.New(addr(t))
			c.Timeout = 20 * time.Second
			t.Cleanup(func() { c.Close() })
			want := func(what string, got, want error) {
				t.Helper()
				if !errors.Is(got, want) {
					t.Errorf("%s: %v, want %v", what, got, want)
				}
			}
			want("version", c.Ping(), nil)
			_, err := c.Get("a")
			want("get of nothing", err, gomemcache.ErrCacheMiss)
			want("add", c.Add(&gomemcache.Item{Key: "a", Value: []byte("1"), Flags: 3}), nil)
			want("add again", c.Add(&gomemcache.Item{Key: "a", Value: []byte("2")}), gomemcache.ErrNotStored)
			it, err := c.Get("a")
			if err != nil || string(it.Value) != "1" || it.Flags != 3 {
				t.Fatalf("get: %+v, %v", it, err)
			}
			late := *it
			it.Value = []byte("2")
			want("cas", c.CompareAndSwap(it), nil)
			want("a late cas", c.CompareAndSwap(&late), gomemcache.ErrCASConflict)
			want("set", c.Set(&gomemcache.Item{Key: "b", Value: []byte("\r\nEND\r\n")}), nil)
			both, err := c.GetMulti([]string{"a", "none", "b"})
			if err != nil || len(both) != 2 || string(both["a"].Value) != "2" || string(both["b"].Value) != "\r\nEND\r\n" {
				t.Errorf("get of several: %+v, %v", both, err)
			}
			gone := both["a"]
			gone.Expiration = -1
			want("cas that removes", c.CompareAndSwap(gone), nil)
			_, err = c.Get("a")
			want("get of what was removed", err, gomemcache.ErrCacheMiss)
			want("cas of nothing", c.CompareAndSwap(gone), gomemcache.ErrCacheMiss)
			want("delete", c.Delete("b"), nil)
			want("delete of nothing", c.Delete("b"), gomemcache.ErrCacheMiss)
		})
	}
}

func TestItemsExpire(t *testing.T) {
	t.Parallel()
	s, c := start(t)
	at := c.now().Unix() + 10
	say(t, s.Addr(), fmt.Sprintf("set a 0 2 1\r\nx\r\nset b 0 %d 1\r\nx\r\nset c 0 0 1\r\nx\r\n", at))
	for _, step := range []struct {
		after time.Duration
		left  int
	}{{0, 3}, {1999 * time.Millisecond, 3}, {time.Millisecond, 2}, {7 * time.Second, 2}, {time.Second, 1}, {1000 * time.Hour, 1}} {
		c.pass(step.after)
		if n := strings.Count(say(t, s.Addr(), "get a b c\r\n"), "VALUE"); n != step.left || s.Len() != n {
			t.Errorf("%v on: %d items, %d counted, want %d", step.after, n, s.Len(), step.left)
		}
	}
	if v := s.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

// TestWhatIsAgainstTheProtocolIsRemembered, where memcached forgives it.
func TestWhatIsAgainstTheProtocolIsRemembered(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"set a 0 0 1\nx\n", "set a 0 0 1 noreply\r\nx\r\n", "set a 0 0 1 extra\r\nx\r\n", "set \x01 0 0 1\r\nx\r\n", "get \x7f\r\n",
		"set a 0 0 3\r\nabcdef\r\n", "set a 0 0 300\r\nx\r\n", "touch a 1\r\n", "flush_all\r\n", "set a 4294967296 0 1\r\nx\r\n",
		"get " + strings.Repeat("k ", 40_000) + "\r\n", "cas a 0 0 1 -1\r\nx\r\n", "delete \x02\r\n",
	} {
		s, _ := start(t)
		got := sayHalf(t, s.Addr(), text)
		if strings.Contains(got, "STORED") || s.Len() > 0 || len(s.Violations()) == 0 {
			t.Errorf("%.40q: answered %q, violations %q", text, got, s.Violations())
		}
	}
}

// sayHalf is say for what may be cut off: it closes its side after text.
func sayHalf(t *testing.T, addr, text string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, err = io.WriteString(nc, text)
	if err == nil {
		err = nc.(*net.TCPConn).CloseWrite()
	}
	got, readErr := io.ReadAll(nc)
	if err != nil || readErr != nil {
		t.Logf("%.40q: %v, %v", text, err, readErr) // a reset, as the server left first
	}
	return string(got)
}

// TestOneOfManyWritersWins: cas and add are decided under one lock.
func TestOneOfManyWritersWins(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	const writers = 16
	won := make([]bool, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			c := gomemcache.New(s.Addr())
			c.Timeout = 20 * time.Second
			defer c.Close()
			won[i] = c.Add(&gomemcache.Item{Key: "lock", Value: []byte{byte(i)}}) == nil
		})
	}
	wg.Wait()
	if i := slices.Index(won, true); i < 0 || slices.Contains(won[i+1:], true) {
		t.Errorf("add succeeded for %v, want one", won)
	}
}

// TestCloseEndsWhatRuns: a client that never leaves does not hold it up.
func TestCloseEndsWhatRuns(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "set a 0 0 100\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := nc.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := nc.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the connection is still open: %v", err)
	}
}

// FuzzNothingAClientSendsBreaksIt: whatever comes, the server serves the next
// client.
func FuzzNothingAClientSendsBreaksIt(f *testing.F) {
	for _, d := range dialogue() {
		if len(d[0]) < 1000 {
			f.Add(d[0])
		}
	}
	f.Add("set a 0 0 3\r\nabcdef\r\n")
	f.Add("get a\n")
	s, err := memcache.Start(memcache.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, text string) {
		sayHalf(t, s.Addr(), text)
		if got := say(t, s.Addr(), "set sound 0 0 2\r\nok\r\nget sound\r\n"); got != "STORED\r\nVALUE sound 0 2\r\nok\r\nEND\r\n" {
			t.Errorf("after %q it answers %q", text, got)
		}
	})
}
