package cache

import (
	"errors"
	"testing"
	"time"
)

// Whether an entry is still true, by all that is known of it: a table of judge.
func TestJudge(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }
	read := func(seconds float64, epoch uint64) record { return record{read: Revalidation{at(seconds), epoch}} }
	down := errors.New("down")
	k := key("secret/data/a")
	const epoch, before = 7, 6
	for name, c := range map[string]struct {
		entry  Entry
		other  bool // it was opted in
		record record
		policy Options
		moment moment
		now    float64 // seconds since the epoch began
		state  State
		by     string // what verified it, where that is no read of its own
		stale  bool
	}{
		"read in this epoch":                  {record: read(1, epoch), now: 2, state: Fresh, stale: true},
		"read too long ago":                   {record: read(1, epoch), now: 2.1, state: Unverified, stale: true},
		"read in the epoch before":            {record: read(-1, before), now: 0, state: Unverified, stale: true},
		"within the maximum age":              {record: read(-3, before), policy: Options{MaxAge: 3 * time.Second}, now: 0.5, state: Fresh, stale: true},
		"beyond it":                           {record: read(-3.1, before), policy: Options{MaxAge: 3 * time.Second}, now: 0.5, state: Unverified, stale: true},
		"by another instance, in this epoch":  {record: read(0.5, sharedEpoch), policy: Options{MaxAge: time.Second}, now: 1, state: Fresh, stale: true},
		"by another instance, with no age":    {record: read(0.5, sharedEpoch), now: 1, state: Unverified, stale: true},
		"from the future":                     {record: read(3, epoch), now: 2, state: Unverified},
		"by an index check":                   {record: record{read: Revalidation{at(-9), before}, index: &group{checked: Revalidation{at(1), epoch}}}, now: 2, state: Fresh, by: "index", stale: true},
		"by one from before a change":         {record: record{since: at(1.5), index: &group{checked: Revalidation{at(1), epoch}}}, now: 2, state: Unverified},
		"a read after the check":              {record: record{read: Revalidation{at(1.5), epoch}, index: &group{checked: Revalidation{at(1), epoch}}}, now: 2, state: Fresh, stale: true},
		"its own end":                         {entry: Entry{Expires: at(2)}, record: read(1, epoch), now: 2, state: Absent},
		"the longest life":                    {record: read(1, epoch), policy: Options{TTL: 10 * time.Second}, now: 1, state: Aged, stale: true},
		"that alone":                          {record: read(-5, before), policy: Options{TTL: time.Minute, TTLOnly: true}, now: 1, state: Fresh, stale: true},
		"failed after it was read":            {record: record{read: Revalidation{at(-9), before}, failed: &failure{Revalidation{at(1), epoch}, down}}, now: 1.5, state: Failing, stale: true},
		"failed before it was read":           {record: record{read: Revalidation{at(0.2), epoch}, failed: &failure{Revalidation{at(0.1), epoch}, down}}, now: 1.5, state: Unverified, stale: true},
		"failed long ago":                     {record: record{read: Revalidation{at(-9), before}, failed: &failure{Revalidation{at(1), epoch}, down}}, now: 2.1, state: Unverified, stale: true},
		"all failed":                          {record: read(-9, before), moment: moment{failed: &failure{Revalidation{at(1), epoch}, down}}, now: 1.5, state: Failing, stale: true},
		"all failed in another epoch":         {record: read(-9, before), moment: moment{failed: &failure{Revalidation{at(-0.1), before}, down}}, now: 0.5, state: Unverified, stale: true},
		"pessimistic":                         {record: read(1, epoch), policy: Options{Pessimistic: true}, now: 2, state: Fresh},
		"true too long ago":                   {record: read(-4000, before), now: 1, state: Unverified},
		"true before it changed":              {record: record{trueAt: at(-10), since: at(1)}, now: 1, state: Unverified, stale: true},
		"of before an own write":              {record: record{since: at(1)}, now: 1, state: Unverified},
		"of another cache, never verified":    {record: record{}, now: 1, state: Unverified, stale: true},
		"what was opted in ends by itself":    {other: true, entry: Entry{Expires: at(60)}, record: read(-9, before), now: 1, state: Fresh, stale: true},
		"a stream that began before the read": {record: read(-5, before), moment: moment{stream: listening{since: at(-20), at: at(1)}}, now: 1.5, state: Fresh, by: "events", stale: true},
		"one that began after it":             {record: read(-5, before), moment: moment{stream: listening{since: at(-4), at: at(1)}}, now: 1.5, state: Unverified, stale: true},
		"a change that the read may lack":     {record: record{read: Revalidation{at(-5), before}, since: at(-6)}, moment: moment{stream: listening{since: at(-20), at: at(1)}}, now: 1.5, state: Unverified, stale: true},
		"a change that it has for certain":    {record: record{read: Revalidation{at(-5), before}, since: at(-7)}, moment: moment{stream: listening{since: at(-20), at: at(1)}}, now: 1.5, state: Fresh, by: "events", stale: true},
		"a stream that is to be reconciled":   {record: read(-31, before), moment: moment{stream: listening{since: at(-60), at: at(1)}}, now: 1.5, state: Unverified, stale: true},
	} {
		e := c.entry
		e.Key, e.FetchedAt, e.Kind = k, at(-50), Data
		if c.other {
			e.Kind = Other
		}
		p, m := c.policy, c.moment
		p.Recheck, p.StaleIfError, p.Lag, p.Reconcile = time.Second, time.Hour, 2*time.Second, 30*time.Second
		m.epoch, m.began, m.stream.covered = epoch, begin, map[Key]bool{k: true}
		got := p.judge(&e, &c.record, &m, at(c.now))
		by := map[[2]bool]string{{true, false}: "index", {false, true}: "events", {true, true}: "both"}[[2]bool{got.ByIndex, got.ByEvents}]
		if got.State != c.state || by != c.by || got.Stale != c.stale || (got.Err != nil) != (c.state == Failing) {
			t.Errorf("%s: state %d by %q, may be stale: %v, %v; want %d by %q, %v", name, got.State, by, got.Stale, got.Err, c.state, c.by, c.stale)
		}
	}
}
