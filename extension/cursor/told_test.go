package cursor

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/vault"
)

// telling keeps what others are told, by leader.
type telling map[string]bool

func (telling) Forwards(context.Context, string) (forwards bool, at time.Time) { return }

func (t telling) SetForwards(_ context.Context, term string, forwards bool, _ time.Time) {
	t[term] = forwards
}

// TestG1OthersAreToldOnlyWhatCountsHere: what another leader, or another cluster, says is no
// word on the leader that was asked about.
func TestG1OthersAreToldOnlyWhatCountsHere(t *testing.T) {
	t.Parallel()
	other := forwarding
	other.ClusterID = "another"
	for name, row := range map[string]struct {
		next string // who leads when the answer comes
		says vault.Health
		want int // told of
	}{
		"the leader itself": {"2", forwarding, 2},
		"the next leader":   {"3", forwarding, 1},
		"another cluster":   {"2", other, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			o, others := &upgrading{answer: make(chan vault.Health)}, telling{}
			o.term.Store("1")
			c := New(o, others, time.Second, slog.New(slog.DiscardHandler), time.Now)
			defer c.Close()
			c.Answered()
			where := func() {
				go func() { _, _, _ = c.Where(t.Context()) }()
				synctest.Wait()
			}
			where()
			o.answer <- forwarding
			synctest.Wait()
			o.term.Store("2")
			where()
			o.term.Store(row.next)
			where()
			o.answer <- row.says
			synctest.Wait()
			if len(others) != row.want {
				t.Errorf("%s: others are told %v", name, others)
			}
		})
	}
}
