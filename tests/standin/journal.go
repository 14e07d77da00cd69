package standin

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// journal is the log of writes, and where each node is in it.
type journal struct {
	now     func() time.Time
	writing sync.Mutex // held by the one write that is being done

	mu        sync.Mutex
	begin     uint64      // guarded by mu; index of the entry before entries[0]
	entries   []entry     // guarded by mu; those that some node may still lack
	tokens    []issue     // guarded by mu; tokens issued by entries that some node may lack
	followers []*follower // guarded by mu
}

// entry is one write.
type entry struct {
	before map[string]*saved // request line -> what was answered before the write
	paths  []string          // what the write can change, for requests that were not saved
}

// issue is a token that an entry made.
type issue struct {
	token string
	index uint64
}

// saved is an answer as it was.
type saved struct {
	status int
	header http.Header
	body   []byte
}

// follower is a node that lags.
type follower struct {
	up  *follower // it gets everything from this one; nil: from the active node
	lag Lag
	due []time.Time // guarded by journal.mu; when it gets each of entries
}

func newJournal(now func() time.Time) *journal { return &journal{now: now} }

func (j *journal) follow(up *follower, lag Lag) *follower {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := &follower{up: up, lag: lag}
	for range j.entries {
		f.due = append(f.due, time.Time{})
	}
	j.followers = append(j.followers, f)
	return f
}

// maxCacheLag bounds ClusterOptions.CacheLag.
const maxCacheLag = 10 * time.Second

// add appends an entry that is done now, and returns its index.
func (j *journal) add(e entry, tokens ...string) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, e)
	now := j.now()
	index := j.begin + uint64(len(j.entries))
	for _, f := range j.followers { // each after the one it follows
		due := now
		if f.up != nil {
			due = f.up.due[len(j.entries)-1]
		}
		if f.lag != nil {
			due = due.Add(f.lag())
		}
		if n := len(f.due); n > 0 && due.Before(f.due[n-1]) {
			due = f.due[n-1]
		}
		f.due = append(f.due, due)
	}
	for _, t := range tokens {
		j.tokens = append(j.tokens, issue{t, index})
	}
	j.pruneLocked(now)
	return index
}

// pruneLocked drops entries that every node has.
func (j *journal) pruneLocked(now time.Time) {
	least := j.begin + uint64(len(j.entries))
	for _, f := range j.followers {
		least = min(least, j.positionLocked(f, now.Add(-maxCacheLag)))
	}
	n := int(least - j.begin)
	if n < 64 {
		return
	}
	j.begin = least
	j.entries = slices.Clone(j.entries[n:])
	for _, f := range j.followers {
		f.due = slices.Clone(f.due[n:])
	}
	j.tokens = slices.DeleteFunc(j.tokens, func(t issue) bool { return t.index <= least })
}

func (j *journal) positionLocked(f *follower, now time.Time) uint64 {
	if f == nil {
		return j.begin + uint64(len(j.entries))
	}
	n, _ := slices.BinarySearchFunc(f.due, now, func(due, now time.Time) int {
		if due.After(now) {
			return 1
		}
		return -1
	})
	return j.begin + uint64(n)
}

// seen is the index of the last entry that f answers with: what it had a while
// ago.
func (j *journal) seen(f *follower, ago time.Duration) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return max(j.positionLocked(f, j.now().Add(-ago)), j.begin)
}

// position is the index of the last entry that f has; nil has all.
func (j *journal) position(f *follower) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.positionLocked(f, j.now())
}

// lead gives f, which is nil if it led last, all that there is, and begins a term
// with an entry of its own.
func (j *journal) lead(f *follower) {
	j.mu.Lock()
	if f != nil {
		clear(f.due)
	}
	j.mu.Unlock()
	j.add(entry{})
}

func (j *journal) last() uint64 { return j.position(nil) }

// flush gives every node every entry.
func (j *journal) flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.followers {
		for i := range f.due {
			f.due[i] = time.Time{}
		}
	}
}

// view is what a node that lags knows of a request.
type view struct {
	old     *saved // the answer before the first entry that it lacks; nil: nothing changes
	unknown bool   // something changes, and what was answered before is not known
}

// see looks a request line up for a node at position at.
func (j *journal) see(at uint64, line, path string) view {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := int(at - j.begin); i >= 0 && i < len(j.entries); i++ {
		if old := j.entries[i].before[line]; old != nil {
			return view{old: old}
		}
		if slices.Contains(j.entries[i].paths, path) {
			return view{unknown: true}
		}
	}
	return view{}
}

// issued returns the index at which a token was issued; 0: long ago, or never.
func (j *journal) issued(token string) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, t := range j.tokens {
		if t.token == token {
			return t.index
		}
	}
	return 0
}
