package memcached

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/tests/harness"
)

func BenchmarkEntries(b *testing.B) {
	s := newSite(b)
	tier := s.tier(b, nil)
	var keys []cache.Key
	var records []cache.Record
	stamps := map[cache.Key]cache.Stamp{}
	for i := range 1000 {
		k := read(fmt.Sprint("secret/data/app/", i))
		keys = append(keys, k)
		records = append(records, s.record(k, strings.Repeat("x", 1000), 0))
		stamps[k] = cache.Stamp{At: s.clk.now()}
	}
	began := time.Now()
	tier.Put(b.Context(), records)
	b.Logf("put %d in %v", len(records), time.Since(began))
	tier.PutStamps(b.Context(), cache.CursorStamp{At: s.clk.now(), Committed: 1, ActiveTime: "t"}, stamps)
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint("entries ", n), func(b *testing.B) {
			for b.Loop() {
				if got := tier.Entries(b.Context(), keys[:n]); len(got) != n {
					b.Fatal(len(got))
				}
			}
		})
		b.Run(fmt.Sprint("stamps ", n), func(b *testing.B) {
			for b.Loop() {
				if _, got := tier.Stamps(b.Context(), keys[:n]); len(got) != n {
					b.Fatal(len(got))
				}
			}
		})
	}
}

// BenchmarkColdRead is the first read of an instance: connect, ask, open.
func BenchmarkColdRead(b *testing.B) {
	real(b)
	ca, err := harness.NewCA()
	must(b, err)
	for name, m := range map[string]*harness.Memcached{
		"plain": harness.Memcache(b, harness.MemcachedConfig{}),
		"TLS":   harness.Memcache(b, harness.MemcachedConfig{CA: ca}),
	} {
		b.Run(name, func(b *testing.B) {
			o := Options{Nodes: []string{m.Addr()}}
			if m.CAFile() != "" {
				o.TLS = &config.MemcachedTLS{CACert: m.CAFile()}
			}
			s := &site{m, client(b, o), newClock()}
			s.tier(b, nil).Put(b.Context(), []cache.Record{s.record(read("a"), "v", 0)})
			for b.Loop() {
				s.c = client(b, o)
				if got := s.tier(b, nil).body(b.Context(), read("a")); got != "v" {
					b.Fatal(got)
				}
				s.c.Close()
			}
		})
	}
}
