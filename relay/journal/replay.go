package journal

import "time"

// ReplaySpec says what is delivered again.
type ReplaySpec struct {
	Sink        string  // to which sink
	Of          string  // whose deliveries; "" = Sink's own
	Anyway      bool    // also events that Of was not owed
	DeadLetters bool    // only dead letters of Of; otherwise whatever is settled
	Pending     bool    // instead, what Of is owed and has not settled, and Sink was not owed; for journals that are no Mover
	To          Cut     // what comes behind it is not delivered; nil: what there is now
	Letters     Cut     // dead letters that were written behind it are not delivered; set by a journal that several processes share
	Filter      []byte  // the caller's
	Rate        float64 // the caller's
	CreatedAt   time.Time
}

// ReplayTotals say how far a replay is. Matched = Delivered + Failed + Skipped + Pending.
type ReplayTotals struct {
	Matched, Delivered, Failed uint64
	Skipped                    uint64 // by an operator, by Cancel, or because max_size left no room to keep them
	Pending                    uint64
	Read                       Cut // what is up to here was looked at
}

// Add adds the totals of other shards.
func (t *ReplayTotals) Add(more ReplayTotals) {
	t.Matched += more.Matched
	t.Delivered += more.Delivered
	t.Failed += more.Failed
	t.Skipped += more.Skipped
	t.Pending += more.Pending
	t.Read = append(t.Read, more.Read...)
}
