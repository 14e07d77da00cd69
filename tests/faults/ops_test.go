package faults

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing/synctest"
	"time"
)

// run carries out a schedule and judges its history. It is called in a bubble.
func run(s Schedule) (problems []string) {
	before := runtime.NumGoroutine()
	w := newWorld(s)
	for _, op := range s.Ops {
		w.do(op)
		if !op.Apart {
			synctest.Wait()
			w.check7Now()
		}
		time.Sleep([]time.Duration{0, 0, time.Millisecond, 4 * time.Millisecond, 20 * time.Millisecond}[op.D%5])
	}
	w.settle()
	w.end()
	synctest.Wait()
	if n := runtime.NumGoroutine(); n > before {
		// The bubble will not end while they are there: this is the last chance to
		// say whose they are.
		fmt.Fprintf(os.Stderr, "seed %d of %d operations broke:\nG7: %d goroutines are left when all is over\n", s.Seed, len(s.Ops), n-before)
	}
	w.judge()
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	return w.h.problems
}

func pick[T any](all []T, n int) T { return all[n%len(all)] }

// do carries out one operation.
func (w *world) do(op Op) {
	x := w.slots[op.A%w.setup.Instances]
	w.trace("%s", op)
	switch op.Kind {
	case OpRead:
		w.read(x, op)
	case OpInvoke:
		w.invoke(x, pick([]time.Duration{time.Minute, 15 * time.Minute, 3 * time.Second}, op.B))
	case OpFreeze:
		w.freeze(op)
	case OpWait:
		time.Sleep(pick([]time.Duration{50 * time.Millisecond, 300 * time.Millisecond, 1100 * time.Millisecond, 3 * time.Second, 12 * time.Second}, op.A))
	case OpSettle:
		w.settle()
	case OpStep:
		before := w.moment()
		x.clock.shift(pick([]time.Duration{500 * time.Millisecond, 30 * time.Second, time.Hour, -500 * time.Millisecond, -3 * time.Second, -time.Minute, -time.Hour}, op.B))
		after := w.moment()
		w.h.mu.Lock()
		w.h.steps = append(w.h.steps, before, after)
		w.h.mu.Unlock()
	case OpKill:
		w.retire(x)
		w.start(x.n, x.inc+1)
	case OpStop:
		w.stop(x)
		w.start(x.n, x.inc+1)
	case OpSeal:
		w.seal(true)
	case OpUnseal:
		w.seal(false)
	case OpLead: // a new leader has a new active_time, and its term has entries of its own
		if w.seal(true); op.B%2 == 0 {
			time.Sleep(w.dice("lead").lag())
		}
		w.elect(op.C)
		w.seal(false)
	case OpFault:
		w.fault(x.n, op)
	case OpMend:
		for i := range w.setup.Instances {
			if op.B%2 == 0 || i == x.n {
				w.trouble(i, fine, up)
			}
		}
	case OpRotate: // others may look while it is under way
		w.background(func() { w.rotate(w.secret(op.A)) })
	case OpRemove:
		w.background(func() { w.remove(w.secret(op.A), op) })
	case OpPolicy:
		w.setPolicy(op.A%policies, pick([][]string{{"a", "b"}, {"a", "b"}, {"a"}, {"b"}, nil}, op.B), pick(limits[:], op.C))
	case OpRevoke:
		w.leave(x, op)
	case OpOwnWrite:
		w.write(x, op)
	case OpMemcached:
		w.memcached(op)
	case OpMetrics:
		w.metrics(x)
	}
}

// freeze stops every process while time passes. What became of connections
// meanwhile differs.
func (w *world) freeze(op Op) {
	d := pick([]time.Duration{200 * time.Millisecond, 1500 * time.Millisecond, 40 * time.Second, 10 * time.Minute, 3 * time.Hour, 30 * time.Hour}, op.B)
	w.clock.shift(d)
	m := w.moment()
	for _, x := range w.slots[:w.setup.Instances] {
		x.clock.shift(d)
		if op.C%3 != 0 {
			w.h.mu.Lock()
			w.h.shaken[x.n] = append(w.h.shaken[x.n], m)
			w.h.mu.Unlock()
		}
		for _, l := range []*link{x.origin, x.cache} {
			switch op.C % 3 {
			case 1:
				l.each((*wire).die)
			case 2:
				l.each(func(c *wire) { c.Conn.Close() })
			}
		}
	}
}

func (w *world) seal(sealed bool) {
	w.change(0, nil, func() {
		w.sealNodes(sealed)
	})
	w.mu.Lock()
	w.sealed = sealed
	w.mu.Unlock()
	for i := range w.setup.Instances {
		w.trouble(i, w.mode[i], w.way[i])
	}
}

// fault makes trouble between an instance, or all, and the origin.
func (w *world) fault(n int, op Op) {
	mode, way := fine, up
	switch op.B % 8 {
	case 0, 1:
		way = refused
	case 2, 3:
		way = silent
	default:
		mode = trouble(1 + op.B/8%int(troubles-1))
	}
	for i := range w.setup.Instances {
		if op.C%2 == 0 || i == n {
			w.trouble(i, mode, way)
		}
	}
}

// trouble sets how instance i sees the origin and notes since when.
func (w *world) trouble(i int, mode trouble, way state) {
	if w.way[i] != way {
		w.slots[i].origin.set(way)
	}
	w.mu.Lock()
	w.mode[i], w.way[i] = mode, way
	sealed := w.sealed
	w.mu.Unlock()
	w.note(&w.h.faults[i], sealed || way != up || mode != fine && mode != quota)
	w.note(&w.h.quotas[i], mode == quota)
	w.note(&w.h.outages[i], sealed || way != up || mode == limited || mode == failing)
}

func (w *world) note(spans *[]span, now bool) {
	m := w.moment()
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	switch n := len(*spans); {
	case n > 0 && (*spans)[n-1].open() && !now:
		(*spans)[n-1].until = m
	case now && (n == 0 || !(*spans)[n-1].open()):
		*spans = append(*spans, span{from: m})
	}
}

func (w *world) remove(s *secret, op Op) {
	method, path, body := http.MethodDelete, s.mount+"/"+s.key(), ""
	if s.v2 {
		all := []string{"data", "metadata", "delete", "undelete", "destroy"}
		area := pick(all, op.B)
		path = s.mount + "/" + area + "/" + s.key()
		if area != "data" && area != "metadata" {
			method, body = http.MethodPost, fmt.Sprintf(`{"versions":[%d,%d]}`, 1+op.C%3, s.writes)
		}
	}
	w.change(0, s.resources(), func() { w.root(method, path, body) })
}

// write has the function write a secret through its instance.
func (w *world) write(x *instance, op Op) {
	s := w.secret(op.B)
	method, path, body := http.MethodPost, "", ""
	if op.C%4 == 0 {
		method, path = http.MethodDelete, s.mount+"/"+s.key()
		if s.v2 {
			path = s.mount + "/data/" + s.key()
		}
	} else {
		path, body = w.writeRequest(s)
	}
	token, _ := w.tokenOf(op.D)
	w.mu.Lock()
	w.writes++
	id := w.writes
	w.mu.Unlock()
	w.forget(func(k warmth) bool { return k.inst == x.n })
	begun := w.moment()
	w.background(func() {
		res, _, err := x.ask(context.Background(), method, "/v1/"+path, token, body, http.Header{writeHeader: {strconv.Itoa(id)}})
		w.forget(func(k warmth) bool { return k.inst == x.n })
		over := w.moment()
		w.h.mu.Lock()
		w.h.writing[x.n] = append(w.h.writing[x.n], span{begun, over})
		w.h.mu.Unlock()
		if err != nil || res.StatusCode >= 300 {
			return // it may yet come about
		}
		m := w.moment()
		w.h.mu.Lock()
		defer w.h.mu.Unlock()
		w.h.written[id] = written{x.n, x.inc, m}
	})
}

// background runs what a function waits for.
func (w *world) background(f func()) {
	w.mu.Lock()
	crowded := w.wait >= 40
	w.mu.Unlock()
	if crowded {
		w.reads.Wait()
	}
	w.mu.Lock()
	w.wait++
	w.mu.Unlock()
	w.reads.Go(func() {
		f()
		w.mu.Lock()
		w.wait--
		w.mu.Unlock()
	})
}

func (w *world) memcached(op Op) {
	set := func(s state) {
		w.mu.Lock()
		w.hung = s
		w.mu.Unlock()
		for _, x := range w.slots[:w.setup.Instances] {
			x.cache.set(s)
		}
	}
	if n := op.A % 9; n == 4 || n == 5 {
		w.copies = append(w.copies, w.cache.Copy())
		return
	}
	w.upset(func() (out bool) {
		switch op.A % 9 {
		case 0:
			w.cache.Flush()
		case 1:
			set(silent)
		case 2:
			set(refused)
		case 3:
			set(garbled)
		case 6:
			if len(w.copies) > 0 {
				w.cache.PutBack(pick(w.copies, op.B), op.C%2 == 0)
			}
		default:
			set(up)
		}
		return w.hung != up
	})
}

// metrics looks at the metrics, for secrets and for bounds.
func (w *world) metrics(x *instance) {
	w.background(func() {
		_, text, err := x.ask(context.Background(), http.MethodGet, "/proxy/v1/metrics", "", "", nil)
		if err != nil {
			return
		}
		w.check5("the metrics", []byte(text))
		limit := 16 << 20
		if w.setup.Small {
			limit = smallCache
		}
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(line, "thaw_cache_bytes "); ok {
				if n, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err != nil || int(n) > limit {
					w.h.broke(fmt.Sprintf("G7: the cache has %s bytes of %d", strings.TrimSpace(v), limit))
				}
			}
		}
	})
}

// settle lets all that is under way end and measures what is left.
func (w *world) settle() {
	w.reads.Wait()
	time.Sleep(3 * clientTimeout)
	synctest.Wait()
	w.check7Now()
	n := (runtime.NumGoroutine() - w.base) / w.setup.Instances
	if n > goroutines {
		w.h.broke(fmt.Sprintf("G7: %d goroutines for each instance at rest", n))
	}
}
