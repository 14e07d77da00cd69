package consistency

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/tests/standin"
)

// listen starts thaw as a process that does not freeze, at the load balancer,
// and waits until it listens.
func (w *world) listen(settings ...string) *instance {
	x := w.start(settings...)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { defer close(over); x.app.Watch(ctx) }()
	w.stop = append(w.stop, func() { cancel(); <-over })
	return x
}

// reads counts the reads of secrets that the origin was asked for.
func (w *world) reads() int {
	n := 0
	for what, times := range w.origin.Counts() {
		if strings.HasPrefix(what, "GET /v1/secret/") {
			n += times
		}
	}
	return n
}

func TestEventsStandForThePoll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		options  standin.ClusterOptions
		settings []string
		events   bool
		balanced bool // thaw knows a load balancer's address only, and reads what lags
	}{
		{name: "events", events: true},
		{name: "events of before 1.21", options: standin.ClusterOptions{OldEvents: true, Forwarding: true}, events: true},
		{name: "and no forwarding", options: standin.ClusterOptions{OldEvents: true}, events: true},
		{name: "behind a load balancer", settings: []string{"THAW_VAULT_ADDRS=http://vault.test:8200"}, events: true, balanced: true},
		{name: "of before 1.21, behind a load balancer", options: standin.ClusterOptions{OldEvents: true, Forwarding: true}, settings: []string{"THAW_VAULT_ADDRS=http://vault.test:8200"}, events: true, balanced: true},
		{name: "and no forwarding, behind a load balancer", options: standin.ClusterOptions{OldEvents: true}, settings: []string{"THAW_VAULT_ADDRS=http://vault.test:8200"}, events: true, balanced: true},
		{name: "a community server has none", options: standin.ClusterOptions{NoEvents: true}},
		{name: "switched off", settings: []string{"THAW_EVENTS=off"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.options)
				defer w.close()
				w.direct("POST", "secret/data/app", `{"data":{"n":1}}`)
				w.primary.Flush()
				x := w.listen(append([]string{nodes}, tt.settings...)...)
				x.read("app", "")
				time.Sleep(10 * time.Second) // simulated: it subscribes, and what lagged has caught up
				x.read("app", "")
				if got := w.primary.Subscribers() == 1; got != tt.events {
					t.Fatalf("subscribed: %v\n%s", got, x.log)
				}
				before := w.reads()
				for range 80 { // 20 s of reads
					time.Sleep(250 * time.Millisecond)
					if a, n := x.read("app", ""); n != 1 {
						t.Fatalf("%d %s", a.status, a.body)
					}
				}
				if polled := w.reads() - before; polled > 2 && tt.events || polled < 10 && !tt.events {
					t.Errorf("%d reads of the origin in 20 s", polled)
				}
				// A change is seen within the time that polls would take, and mostly at once.
				late, bound := time.Duration(0), 1100*time.Millisecond
				if tt.balanced { // another 500 ms of lag, and the poll after
					bound = 2600 * time.Millisecond
				}
				for i := 2; i < 30; i++ {
					w.direct("POST", "secret/data/app", fmt.Sprintf(`{"data":{"n":%d}}`, i))
					written := time.Now()
					for {
						a, n := x.read("app", "")
						if n == i {
							break
						}
						if took := time.Since(written); took > bound && a.header.Get("Warning") == "" {
							t.Fatalf("%d is served for %d after %v: %v\n%s", n, i, took, a.header, x.log)
						}
						time.Sleep(10 * time.Millisecond)
					}
					late += time.Since(written)
					time.Sleep(time.Duration(i%5) * 700 * time.Millisecond)
				}
				t.Logf("seen after %v on average; %v", late/28, w.primary.Counts())
				if tt.events && late/28 > max(400*time.Millisecond, bound/3) {
					t.Errorf("changes were seen after %v on average", late/28)
				}
			})
		})
	}
}

// Whatever happens to the stream, nothing is served old for longer than is said
// of it: Recheck where it is known not to be whole, the time of reconciling
// where an event was dropped without a sign.
func TestEventsThatAreDroppedDoubledOrCutOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		disturb func(message []byte) [][]byte
		cut     bool
		bound   time.Duration
	}{
		{name: "doubled", disturb: func(m []byte) [][]byte { return [][]byte{m, m, m} }, bound: 1100 * time.Millisecond},
		{name: "dropped", disturb: func([]byte) [][]byte { return nil }, bound: 31100 * time.Millisecond},
		{name: "garbled", disturb: func([]byte) [][]byte { return [][]byte{[]byte(`{"data":[]}`)} }, bound: 1100 * time.Millisecond},
		{name: "cut off", cut: true, bound: 1100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, standin.ClusterOptions{})
				defer w.close()
				w.direct("POST", "secret/data/app", `{"data":{"n":1}}`)
				w.primary.Flush()
				x := w.listen(nodes)
				x.read("app", "")
				time.Sleep(10 * time.Second)
				w.primary.Disturb(tt.disturb)
				worst := time.Duration(0)
				for i := 2; i < 8; i++ {
					x.read("app", "")
					if tt.cut {
						w.primary.CutEvents()
					}
					w.direct("POST", "secret/data/app", fmt.Sprintf(`{"data":{"n":%d}}`, i))
					written := time.Now()
					for {
						if _, n := x.read("app", ""); n == i {
							break
						}
						if time.Since(written) > tt.bound {
							t.Fatalf("%d is not served after %v\n%s", i, tt.bound, x.log)
						}
						time.Sleep(20 * time.Millisecond)
					}
					worst = max(worst, time.Since(written))
					time.Sleep(7 * time.Second)
				}
				t.Logf("worst: %v", worst)
				if w.primary.Subscribers() != 1 && !tt.cut && tt.name != "garbled" {
					t.Error("it listens no more")
				}
			})
		})
	}
}

// After a new login a subscription is made with the new token alone.
func TestARotatedTokenIsUsedOnRedial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{})
		defer w.close()
		w.direct("POST", "secret/data/app", `{"data":{"n":1}}`)
		login := w.approle()
		w.direct("PUT", "sys/policies/acl/app", `{"policy":"path \"secret/*\" { capabilities = [\"create\",\"update\",\"read\",\"list\",\"delete\"] } path \"sys/events/subscribe/kv*\" { capabilities = [\"read\"] }"}`)
		w.primary.Flush()
		var tokens []string
		w.primary.Active().SetFault(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "sys/events/") {
				tokens = append(tokens, strings.Join(r.Header.Values("X-Vault-Token"), "+"))
			}
			return false
		})
		x := w.listen(append(login, nodes)...)
		x.read("app", "")
		time.Sleep(10 * time.Second)
		x.ask("GET", "secret/data/app", "", "", "X-Vault-Token-Options", "revoke")
		w.primary.CutEvents()
		time.Sleep(5 * time.Second)
		if w.primary.Subscribers() != 1 || len(tokens) != 2 || tokens[0] == tokens[1] || strings.Contains(tokens[1], "+") || tokens[1] == "" {
			t.Errorf("%d subscribers; %d subscriptions\n%s", w.primary.Subscribers(), len(tokens), x.log)
		}
	})
}

// Vault leaves out, without a word, the events of paths on which the token lacks
// the capability "subscribe": those secrets are polled.
func TestSecretsWhoseEventsAreLeftOutArePolled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, standin.ClusterOptions{})
		defer w.close()
		w.direct("POST", "secret/data/app", `{"data":{"n":1}}`)
		login := w.approle()
		w.direct("PUT", "sys/policies/acl/app", `{"policy":"path \"secret/*\" { capabilities = [\"read\"] } path \"sys/events/subscribe/kv*\" { capabilities = [\"read\"] }"}`)
		w.primary.Flush()
		w.primary.Disturb(func([]byte) [][]byte { return nil })
		x := w.listen(append(login, nodes)...)
		x.read("app", "")
		time.Sleep(10 * time.Second)
		if w.primary.Subscribers() != 1 {
			t.Fatalf("%d subscribers\n%s", w.primary.Subscribers(), x.log)
		}
		for i := 2; i < 10; i++ {
			w.direct("POST", "secret/data/app", fmt.Sprintf(`{"data":{"n":%d}}`, i))
			for range 12 {
				x.read("app", "")
				time.Sleep(100 * time.Millisecond)
			}
			if a, n := x.read("app", ""); n != i {
				t.Errorf("%d is served for %d after 1.2 s: %v", n, i, a.header)
			}
		}
		if strings.Count(x.log.String(), `lacks the capability \"subscribe\"`) != 1 {
			t.Errorf("it is not said once:\n%s", x.log)
		}
	})
}
