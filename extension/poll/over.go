package poll

import "context"

// Over waits until the poll that runs, if there is one, is over.
func (p *Poller) Over(ctx context.Context) {
	p.mu.Lock()
	r := p.running
	p.mu.Unlock()
	if r == nil {
		return
	}
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}
