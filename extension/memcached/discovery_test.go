package memcached

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseClusterTakesWhatElastiCacheSends(t *testing.T) {
	t.Parallel()
	// The documentation's own example, wrong length and all.
	got, err := parseCluster(strings.NewReader("CONFIG cluster 0 147\r\n12\n" +
		"myCluster.pc4ldq.0001.use1.cache.amazonaws.com|10.82.235.120|11211 myCluster.pc4ldq.0002.use1.cache.amazonaws.com|10.80.249.27|11211\n\r\nEND\r\n"))
	want := []string{"myCluster.pc4ldq.0001.use1.cache.amazonaws.com:11211", "myCluster.pc4ldq.0002.use1.cache.amazonaws.com:11211"}
	if err != nil || got.version != 12 || !slices.Equal(got.nodes, want) || got.addrs[want[1]] != "10.80.249.27" {
		t.Errorf("%+v, %v", got, err)
	}
	for in, want := range map[string]string{
		"a||11211":        "a:11211",
		"|10.0.0.1|11211": "10.0.0.1:11211",
		"|2001:db8::1|1":  "[2001:db8::1]:1",
		"a|2001:DB8::1|1": "a:1",
	} {
		got, err := parseCluster(strings.NewReader("CONFIG cluster 0 1\r\n1\n" + in + "\n\r\nEND\r\n"))
		if err != nil || len(got.nodes) != 1 || got.nodes[0] != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

func TestParseClusterRefusesEverythingElse(t *testing.T) {
	t.Parallel()
	list := func(version, nodes string) string {
		return "CONFIG cluster 0 1\r\n" + version + "\n" + nodes + "\n\r\nEND\r\n"
	}
	var many []string
	for i := range maxNodes + 1 {
		many = append(many, fmt.Sprintf("n%d||1", i))
	}
	for _, in := range []string{
		"", "END\r\n", "ERROR\r\n", "CONFIG cluster 0 1\r\n", "CONFIG cluster 0 1\r\nEND\r\n", "VALUE cluster 0 1\r\n1\na||1\n\r\nEND\r\n",
		list("x", "a||1"), list("-1", "a||1"), list("1", ""), list("1", "a"), list("1", "a|1"), list("1", "a||1|2"), list("1", "||1"),
		list("1", "a||0"), list("1", "a||65536"), list("1", "a||x"), list("1", "a|x|1"), list("1", "a\x00b||1"), list("1", "a/b||1"),
		list("1", "a||1\nb||1"), list("1", strings.Join(many, " ")), strings.Repeat("x", 1<<20), "CONFIG cluster 0 1\r\n" + strings.Repeat("\n", 1<<20),
	} {
		if got, err := parseCluster(strings.NewReader(in)); err == nil {
			t.Errorf("%.60q gave %+v", in, got)
		}
	}
	if _, err := parseCluster(strings.NewReader("ERROR\r\n")); !errors.Is(err, errNotCluster) {
		t.Errorf("a plain memcached: %v", err)
	}
}

func TestDiscoveredNodesAreOtherMachines(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"10.0.0.1": true, "172.31.1.1": true, "2001:db8::1": true, "fd00::1": true, "52.1.2.3": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "::": false,
		"169.254.169.254": false, "169.254.170.2": false, "::ffff:169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false,
		"224.0.0.1": false, "255.255.255.255": false, "ff02::1": false, "x": false,
	} {
		if got := foreign(addr); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

func FuzzParseCluster(f *testing.F) {
	f.Add("CONFIG cluster 0 147\r\n12\na.b|10.82.235.120|11211 |::1|1\n\r\nEND\r\n")
	f.Add("CONFIG cluster 0 1\r\n1\na||1\nEND\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		c, err := parseCluster(strings.NewReader(in))
		if err != nil {
			return
		}
		if len(c.nodes) == 0 || len(c.nodes) > maxNodes {
			t.Fatalf("%d nodes", len(c.nodes))
		}
		for _, id := range c.nodes {
			if again, err := nodeID(id); err != nil || again != id {
				t.Fatalf("%q is not a node: %v", id, err)
			}
		}
	})
}
