package cache

// Caller returns the identity of a caller's token.
func (a *Access) Caller(token string) *Identity {
	defer a.lock()()
	if id := a.callers[token]; id != nil {
		id.used = a.o.Now()
		a.idle.MoveToFront(id.place) // or else
		a.holding.MoveToFront(id.place)
		return id
	}
	a.lastID++
	id := &Identity{ID: a.lastID, Token: token, used: a.o.Now()}
	if len(token) > maxToken {
		return id // it is served, but nothing is remembered of it
	}
	a.rememberLocked(id)
	id.place, a.callers[token] = a.idle.PushFront(id), id
	a.index.size.Add(identitySize + int64(len(token)))
	for len(a.callers) > max(leastCallers, int(a.o.Bytes/callerBytes)) {
		a.forgetOldestLocked(id)
	}
	a.unseen.Store(true) // there may be too little room
	return id
}

// forgetOldestLocked forgets the caller that was not used for the longest time,
// but keep. Anyone may send any token, so those that hold nothing go first: a guess
// costs nobody else's capabilities or entries.
func (a *Access) forgetOldestLocked(keep *Identity) {
	last := a.idle.Back()
	if last == nil || last.Value.(*Identity) == keep {
		last = a.holding.Back()
	}
	a.forgetLocked(last.Value.(*Identity))
}

// thin forgets callers, but the last, until there is room for no more than limit
// bytes: those that hold nothing, and beyond least bytes the others, the longest unused
// first, but before them one who came last and holds half of that alone.
func (a *Access) thin(limit, least int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.index.size.Load() > limit {
		switch {
		case a.idle.Len() > 1:
			a.forgetLocked(a.idle.Back().Value.(*Identity))
		case a.index.size.Load() > least && a.holding.Len() > 1:
			id := a.holding.Front().Value.(*Identity)
			if int64(len(id.held))*(capabilitySize+holdSize) < least/2 {
				id = a.holding.Back().Value.(*Identity)
			}
			a.forgetLocked(id)
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
	for a.index.size.Load() > limit && len(a.callers) > 0 {
		a.forgetOldestLocked(nil)
	}
	if a.index.size.Load() > limit {
		a.emptyLocked(a.o.Own)
	}
}

// Forget drops a caller's token with its capabilities.
func (a *Access) Forget(token string) {
	defer a.lock()()
	if id := a.callers[token]; id != nil {
		a.forgetLocked(id)
	}
}

// drop forgets a caller whose token is none any more.
func (a *Access) drop(id *Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.holders[id] && !id.own {
		a.forgetLocked(id)
	}
}

func (a *Access) forgetLocked(id *Identity) {
	a.resetLocked(id)
	a.idle.Remove(id.place)
	delete(a.callers, id.Token)
	delete(a.holders, id)
	a.index.size.Add(-identitySize - int64(len(id.Token)))
}
