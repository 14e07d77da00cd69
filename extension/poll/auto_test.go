package poll

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
)

// TestPollsAreForThoseWhoRead: a function that reads pays one poll for an invocation, at
// its INVOKE; one that has read nothing in its last four invocations pays none before
// it reads. What was read during the init is no invocation's.
func TestPollsAreForThoseWhoRead(t *testing.T) {
	t.Parallel()
	// A word is an invocation: r reads, - does not.
	for _, c := range []struct {
		mode    config.PollMode
		files   bool // kept, which no read comes for
		reads   string
		invoked string // by which a poll began: i the INVOKE, r the read, - neither
	}{
		{config.PollInvoke, false, "----r-----", "iiiiiiiiii"},
		{config.PollRead, false, "rr--r-----", "rr--r-----"},
		{config.PollOff, false, "rr--r-----", "----------"},
		{config.PollAuto, false, "----------", "----------"},
		{config.PollAuto, false, "rrrr", "riii"},
		{config.PollAuto, false, "r-----r--r------", "riiii-riiiiiii--"},
		{config.PollAuto, false, "-r----r", "-riiiir"},
		{config.PollAuto, false, "r----r", "riiiir"},
		{config.PollAuto, false, "r-----r", "riiii-r"},
		{config.PollAuto, true, "----------", "iiiiiiiiii"},
		{config.PollRead, true, "-r", "-r"},
	} {
		t.Run(fmt.Sprint(c.mode, c.files, c.reads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(_ *cache.Options, o *Options) {
					o.Mode = c.mode
					if c.files {
						o.After = func(context.Context) {}
					}
				})
				defer w.close()
				w.cluster.put("secret/data/a")
				w.ask()
				reads := NewReads(ReadOptions{Cache: w.cache, Poll: w.poller, Permissions: w.poller.o.Permissions, StaleWait: time.Second, Now: time.Now})
				reads.Ensure(t.Context(), Want{Key: cache.Key{Path: "secret/data/a"}, ID: w.cache.Own(), MaxAge: -1, StaleFor: -1}) // during the init
				for i := range c.reads {
					time.Sleep(10 * time.Second)
					before := w.poller.Counts()
					w.invoke()
					after := w.poller.Counts()
					how := byte('-')
					if after.Polls > before.Polls {
						how = 'i'
					}
					if c.reads[i] == 'r' {
						reads.Ensure(t.Context(), Want{Key: cache.Key{Path: "secret/data/a"}, ID: w.cache.Own(), MaxAge: -1, StaleFor: -1})
						synctest.Wait()
						if w.poller.Counts().AtRead > after.AtRead {
							how = 'r'
						}
					}
					if n := w.poller.Counts().Polls - before.Polls; n > 1 {
						t.Errorf("invocation %d had %d polls", i, n)
					}
					if how != c.invoked[i] {
						t.Errorf("invocation %d: %c, want %c", i, how, c.invoked[i])
					}
				}
			})
		})
	}
}
