package cache

import "time"

// Stamp is the shared record of one entry's verification: what the origin's
// answer was, and when.
type Stamp struct {
	At          time.Time // when the verifying request was sent, by the clock of who sent it
	Fingerprint [32]byte  // of the answer without its request_id; zero: no answer that anybody may hold
}

// CursorStamp is the shared record of where the cursor was, and when. The zero
// CursorStamp is none; one with a time and nothing else says that an earlier one
// proves nothing any more.
type CursorStamp struct {
	At         time.Time // as Stamp.At
	Committed  uint64
	ActiveTime string
	Node       string // as Index.Node
}

// Index is the index that the stamp records.
func (s CursorStamp) Index() Index {
	return Index{Applied: s.Committed, ActiveTime: s.ActiveTime, Node: s.Node}
}
