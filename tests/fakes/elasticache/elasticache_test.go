package elasticache

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

func start(t *testing.T, nodes ...Node) (*Server, func(command string) []string) {
	t.Helper()
	s, err := Start(Options{}, nodes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	r := bufio.NewReader(nc)
	return s, func(command string) []string {
		fmt.Fprint(nc, command)
		var lines []string
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return append(lines, "closed")
			}
			lines = append(lines, line)
			if line == "END\r\n" || line == "ERROR\r\n" || strings.HasPrefix(line, "VERSION ") {
				return lines
			}
		}
	}
}

func TestTheListIsAsDocumented(t *testing.T) {
	t.Parallel()
	s, ask := start(t, Node{"a.example", "10.0.0.1", "11211"}, At("127.0.0.1:5"))
	want := []string{"CONFIG cluster 0 46\r\n", "1\n", "a.example|10.0.0.1|11211 |127.0.0.1|5\n", "\r\n", "END\r\n"}
	want[0] = fmt.Sprintf("CONFIG cluster 0 %d\r\n", len(want[1])+len(want[2]))
	if got := ask("config get cluster\r\n"); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	s.Change(At("127.0.0.1:6"))
	if got := ask("config get cluster\r\n"); got[1] != "2\n" || got[2] != "|127.0.0.1|6\n" {
		t.Errorf("%q", got)
	}
	if s.Requests() != 2 || len(s.Violations()) != 0 {
		t.Errorf("%d requests, violations %q", s.Requests(), s.Violations())
	}
}

func TestWhatHasNoBusinessHereIsRemembered(t *testing.T) {
	t.Parallel()
	s, ask := start(t)
	ask("version\r\n")
	ask("gets k\r\n")
	ask("config get cluster\n") // memcached takes it; the documentation says CR LF
	if got := s.Violations(); len(got) != 2 || got[0] != "gets k" {
		t.Errorf("%q", got)
	}
}
