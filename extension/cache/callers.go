package cache

import "container/list"

// Caller returns the identity of a caller's token.
func (a *Access) Caller(token string) *Identity {
	defer a.lock()()
	if h := a.callers[token]; h != nil {
		h.used = a.now()
		a.listOf(h).MoveToFront(h.place)
		return h.Identity
	}
	a.lastID++
	id := &Identity{ID: a.lastID, Token: token}
	if len(token) > maxToken {
		return id // it is served, but nothing is remembered of it
	}
	h := newHolder(id)
	h.used = a.now()
	h.place = a.idle.PushFront(h)
	a.holders[id], a.callers[token] = h, h
	a.size.Add(identitySize + int64(len(token)))
	for len(a.callers) > a.maxCallers {
		a.forgetOldestLocked(h)
	}
	a.unseen.Store(true) // there may be too little room
	return id
}

// listOf is the list that a caller is in.
func (a *Access) listOf(h *holder) *list.List {
	if len(h.held) == 0 {
		return &a.idle
	}
	return &a.holding
}

// forgetOldestLocked forgets the caller that was not used for the longest time,
// but keep. Anyone may send any token, so those that hold nothing go first: a guess
// costs nobody else's capabilities or entries.
func (a *Access) forgetOldestLocked(keep *holder) {
	last := a.idle.Back()
	if last == nil || last.Value.(*holder) == keep {
		last = a.holding.Back()
	}
	a.forgetLocked(last.Value.(*holder))
}

// thin forgets callers, but the last, until there is room for no more than limit
// bytes: those that hold nothing, and beyond least bytes the others, the longest unused
// first, but before them one who came last and holds half of that alone.
func (a *Access) thin(limit, least int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.size.Load() > limit {
		switch {
		case a.idle.Len() > 1:
			a.forgetLocked(a.idle.Back().Value.(*holder))
		case a.size.Load() > least && a.holding.Len() > 1:
			h := a.holding.Front().Value.(*holder)
			if int64(len(h.held))*(capabilitySize+holdSize) < least/2 {
				h = a.holding.Back().Value.(*holder)
			}
			a.forgetLocked(h)
		default:
			return
		}
	}
}

// shrink makes do with limit bytes: callers lose what they hold, the longest
// unused first, and at last the extension itself.
func (a *Access) shrink(limit int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.size.Load() > limit && len(a.callers) > 0 {
		a.forgetOldestLocked(nil)
	}
	if a.size.Load() > limit {
		a.emptyLocked(a.holders[a.own])
	}
}

// Forget drops a caller's token with its capabilities.
func (a *Access) Forget(token string) {
	defer a.lock()()
	if h := a.callers[token]; h != nil {
		a.forgetLocked(h)
	}
}

// drop forgets a caller whose token is none any more.
func (a *Access) drop(id *Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.holders[id]; h != nil && !id.own {
		a.forgetLocked(h)
	}
}

func (a *Access) forgetLocked(h *holder) {
	h.Reset()
	a.emptyLocked(h)
	a.idle.Remove(h.place)
	delete(a.callers, h.Token)
	delete(a.holders, h.Identity)
	a.size.Add(-identitySize - int64(len(h.Token)))
}
