package backoff

import (
	"cmp"
	"time"
)

// pace spreads requests evenly below the origin's limit. It is not safe for
// concurrent use; the backoff's mutex guards it.
//
// # Where the rate comes from
//
// X-Ratelimit headers say it: requests in a window, divided by the window's
// length, of which the longest reset seen in it is the best estimate. Vault's
// windows are fixed: all the requests are there again at each window's begin
// (sethvargo/go-limiter, memorystore), so an even flow below the limit is never
// refused.
//
// Without headers it is learned. What was accepted in the second before a
// refusal is the limit of windows of one second, and of a bucket that fills
// steadily. Where a window is longer, the time until a request passes again
// shows it: then what was accepted since the last time that happened, by the
// time it took, is the rate. A rate that was learned from little, or while
// others used the quota, is raised by and by as long as nothing is refused.
type pace struct {
	rate  float64   // requests a second; 0: no limit is known
	ahead time.Time // when the next request would go in an even flow

	window time.Duration // longest reset of this window
	last   limit         // of the last answer that had one; known: the rate is the headers'
	cut    float64       // share of the told rate that is used, 1 after a quiet time

	passed  moments   // moments of the last accepted requests
	begun   time.Time // of the window whose requests are counted
	counted float64   // accepted since begun
	stopped bool      // refused since begun
	quiet   time.Time // since when nothing was refused
	step    float64   // by which the learned rate is raised next
}

// below is the share of a limit that is used.
const below = 0.97

// What an even flow is cut by when it was refused. Where nearly the whole limit
// went to us, our answers' latency only varied by more than the margin, and a
// little more margin does. Else others use the quota too.
const (
	ours     = 0.9 // share of the limit
	overshot = 0.98
	others   = 0.8
)

// rise is how long nothing may be refused before a learned rate is raised, and
// raised between steps while that goes well.
const (
	rise     = 10 * time.Second
	raised   = 2 * time.Second
	riseStep = 0.05
)

// window1 is the longest time from the first request to the one that passes
// after a refusal that is taken for a window of one second.
const window1 = 2500 * time.Millisecond

// take returns 0 and counts a request, or how long to wait for the next.
func (p *pace) take(now time.Time) time.Duration {
	if p.rate <= 0 {
		return 0
	}
	gap := time.Duration(float64(time.Second) / p.rate)
	// Requests that could not go in time, for a slow answer or a late timer, are
	// made up for, a few at once.
	burst := max(1, int(p.rate*(1-below)*0.66))
	if wait := p.ahead.Add(-time.Duration(burst-1) * gap).Sub(now); wait > 0 {
		return wait
	}
	if p.ahead.Before(now) {
		p.ahead = now
	}
	p.ahead = p.ahead.Add(gap)
	return 0
}

// accepted learns from an answer that was no refusal.
func (p *pace) accepted(now time.Time, l limit) {
	if p.begun.IsZero() {
		p.begun, p.quiet = now, now
	}
	p.counted++
	p.passed.add(now)
	if l.known {
		p.tell(now, l)
		return
	}
	if p.rate > 0 && !p.last.known && now.Sub(p.quiet) > rise {
		p.step = max(p.step*2, riseStep)
		p.rate *= 1 + min(p.step, 1)
		p.quiet = now.Add(raised - rise)
	}
}

// tell takes the headers' word.
func (p *pace) tell(now time.Time, l limit) {
	switch {
	case !p.last.known || l.most != p.last.most:
		p.window = l.reset
	case l.remaining > p.last.remaining+max(8, l.most/4):
		p.window = l.reset // a new window
	default:
		p.window = max(p.window, l.reset)
	}
	p.last = l
	p.cut = cmp.Or(p.cut, 1)
	if p.cut < 1 && now.Sub(p.quiet) > rise {
		p.cut, p.quiet = min(1, p.cut*1.1), now.Add(raised-rise)
	}
	p.rate = below * p.cut * l.most / p.window.Seconds()
	if l.remaining <= 0 && l.reset > time.Second {
		// Used up, by us or others, and it is a while until the window ends. In
		// windows of a second the reset's rounding would cost more than it saves.
		if end := now.Add(l.reset); p.ahead.Before(end) {
			p.ahead = end
		}
	}
}

// refused learns from a refusal. again is set if no request passed since the
// one before.
func (p *pace) refused(now time.Time, l limit, again bool) {
	p.quiet, p.step = now, 0
	if l.known {
		slow := p.last.known && !again
		p.tell(now, l)
		if slow {
			less := others
			if p.passed.since(now.Add(-p.window)) >= ours*l.most {
				less = overshot
			}
			p.cut = max(p.cut*less, 0.05)
			p.rate *= less
		}
		return
	}
	if again || p.counted == 0 {
		return
	}
	p.stopped = true
	guess := p.passed.since(now.Add(-time.Second))
	if p.rate > 0 {
		guess = min(guess, p.rate)
	}
	if guess > 0 && !p.last.known {
		p.rate = below * guess
	}
}

// reopened learns from the first request that passed after a refusal.
func (p *pace) reopened(now time.Time) {
	p.quiet = now
	if p.ahead.Before(now) {
		p.ahead = now
	}
	if !p.stopped || p.last.known {
		p.stopped = false
		return
	}
	// Nothing passed for longer than a window of a second would explain.
	n := len(p.passed)
	gap := n > 0 && now.Sub(p.passed[n-1]) > window1
	if took := now.Sub(p.begun); took > window1 && p.counted > 0 && gap {
		p.rate = below * p.counted / took.Seconds()
	}
	p.begun, p.counted, p.stopped = now, 0, false
}

// moments are those of the last requests, the newest at the end.
type moments []time.Time

// maxMoments is more than any origin answers in a second.
const maxMoments = 4096

func (m *moments) add(t time.Time) { *m = append((*m)[max(0, len(*m)+1-maxMoments):], t) }

// since counts the moments after t.
func (m moments) since(t time.Time) float64 {
	n := 0
	for _, at := range m {
		if at.After(t) {
			n++
		}
	}
	return float64(n)
}
