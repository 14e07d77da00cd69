// Package elasticache stands in for an ElastiCache configuration endpoint,
// which Debian's memcached cannot be: it lacks the command `config get
// cluster`.
//
// The facts are from
// https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.AddingToYourClientLibrary.html:
// the command is `config get cluster`, the answer is
//
//	CONFIG cluster 0 <bytes>\r\n
//	<version>\n
//	<hostname>|<ip-address>|<port> ...\n
//	\r\n
//	END\r\n
//
// where the version rises by one whenever a node is added or removed. A real
// endpoint is one of the nodes and speaks the whole protocol; this one knows
// `config get cluster`, `version` and `quit`, and remembers everything else as
// a violation, so that a client which stores values there is found out.
package elasticache

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/thaw-project/thaw/tests/fakes/listen"
)

// Node is one node of the cluster, as the list has it.
type Node struct {
	Hostname string // may be empty
	IP       string // may be empty
	Port     string
}

// Options configures a Server. Zero values mean what the fields say.
type Options struct {
	TLS *tls.Config // nil: plain
}

// Server is the endpoint.
type Server struct {
	*listen.Server // Addr and Close

	mu         sync.Mutex // guards what follows
	version    uint64
	nodes      []Node
	raw        string // answered instead of the list
	mute       bool
	requests   int
	violations []string
}

// Start listens on loopback with a list of nodes, version 1.
func Start(o Options, nodes ...Node) (*Server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a configuration endpoint: %w", err)
	}
	if o.TLS != nil {
		ln = tls.NewListener(ln, o.TLS)
	}
	s := &Server{version: 1, nodes: nodes}
	s.Server = listen.Start(ln, s.serve)
	return s, nil
}

// At is a node at host:port, told by its address alone.
func At(hostport string) Node {
	host, port, _ := net.SplitHostPort(hostport)
	return Node{IP: host, Port: port}
}

// Change sets the list of nodes; the version rises.
func (s *Server) Change(nodes ...Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.nodes = slices.Clone(nodes)
}

// SetVersion sets the version, as a cluster made anew begins at 1 again.
func (s *Server) SetVersion(v uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = v
}

// Answer has raw sent instead of the list; empty ends that.
func (s *Server) Answer(raw string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = raw
}

// Mute keeps the endpoint from answering.
func (s *Server) Mute(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = mute
}

// Requests is how often the list was asked for.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Violations are the commands that have no business here.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

func (s *Server) serve(nc net.Conn) {
	r := bufio.NewReaderSize(nc, 2048)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		command, ok := strings.CutSuffix(string(line), "\r\n")
		if !ok {
			s.violate("a line that does not end in CR LF: " + string(line))
			return
		}
		answer := ""
		switch command {
		case "config get cluster":
			answer = s.list()
		case "version":
			answer = "VERSION 1.6.22\r\n"
		case "quit":
			return
		default:
			s.violate(command)
			answer = "ERROR\r\n"
		}
		if answer == "" {
			continue
		}
		if _, err := nc.Write([]byte(answer)); err != nil {
			return
		}
	}
}

func (s *Server) violate(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, what)
}

func (s *Server) list() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if s.mute {
		return ""
	}
	if s.raw != "" {
		return s.raw
	}
	nodes := make([]string, len(s.nodes))
	for i, n := range s.nodes {
		nodes[i] = n.Hostname + "|" + n.IP + "|" + n.Port
	}
	payload := fmt.Sprintf("%d\n%s\n", s.version, strings.Join(nodes, " "))
	return fmt.Sprintf("CONFIG cluster 0 %d\r\n%s\r\nEND\r\n", len(payload), payload)
}
