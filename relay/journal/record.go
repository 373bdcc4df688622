package journal

import "time"

// Record is one event as it is kept.
type Record struct {
	Position    Position // set by the journal
	ID, Key     [16]byte
	Time        time.Time // received; kept in milliseconds
	Stored      time.Time // the same by the clock of who reads it, for its age; zero: the clock that Time is of is believed
	Source      string
	ProductID   int
	EventType   int
	Entity      string
	Sinks       []string // owed to, by name; each once
	Quarantine  string   // why it is not understood; "" for an ordinary event
	ContentType string
	SignatureV1 string
	SignatureV2 string
	SpanID      [8]byte
	TraceFlags  byte
	Body        []byte
}
