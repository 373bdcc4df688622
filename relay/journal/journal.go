package journal

// Skeleton of the package's API. Bodies to be written.

import (
	"context"
	"log/slog"
	"time"
)

// Position orders events; 0 is "before everything".
type Position uint64

type SinkID uint32

type Record struct {
	Position    Position // set by the journal
	ID, Key     [16]byte
	Time        time.Time // received, ms
	Source      string
	ProductID   int
	EventType   int
	Entity      string
	Sinks       []SinkID // owed to
	Quarantine  string   // why it is not understood; "" for an ordinary event
	ContentType string
	SignatureV1 string
	SignatureV2 string
	SpanID      [8]byte
	TraceFlags  byte
	Body        []byte
}

type Options struct {
	Config
	Dead        DeadConfig
	Logger      *slog.Logger
	SegmentSize int64
	// ...
}

type Journal struct{}

func Open(dir string, opts Options) (*Journal, error) { panic("skeleton") }

func (j *Journal) Run(ctx context.Context) error { panic("skeleton") }

// Append queues rec. When it returns nil, done will be called exactly once, from the journal's own goroutine.
func (j *Journal) Append(ctx context.Context, rec *Record, done func(Position, error)) error {
	panic("skeleton")
}

// Outcome is how a delivery was settled.
type Outcome uint8

const (
	Delivered Outcome = iota + 1
	Skipped
	Dropped
)

type Retry struct {
	Attempts    int
	FirstError  string
	LastError   string
	FirstFailed time.Time
	LastFailed  time.Time
	Next        time.Time
}

type Open_ struct {
	Position Position
	Retry    Retry
}

// DeadLetter is a delivery given up.
type DeadLetter struct {
	Position Position
	Reason   string
	At       time.Time
	Retry    Retry
}

type Totals struct{ Owed, Delivered, Dead, Skipped, Dropped, Pending uint64 }

// Cursor is what one sink has settled.
type Cursor struct{}

func (j *Journal) Sink(name string) (*Cursor, error)            { panic("skeleton") }
func (c *Cursor) ID() SinkID                                    { panic("skeleton") }
func (c *Cursor) Unsettled() []Open_                            { panic("skeleton") }
func (c *Cursor) Next(maxBytes int) (recs []*Record, err error) { panic("skeleton") }
func (c *Cursor) Load(pos []Position) ([]*Record, error)        { panic("skeleton") }
func (c *Cursor) Settle(pos Position, o Outcome)                { panic("skeleton") }
func (c *Cursor) Failed(pos Position, r Retry)                  { panic("skeleton") }
func (c *Cursor) Bury(d DeadLetter)                             { panic("skeleton") }
func (c *Cursor) Totals() Totals                                { panic("skeleton") }
func (j *Journal) Appended() <-chan struct{}                    { panic("skeleton") }
