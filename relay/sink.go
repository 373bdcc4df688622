package relay

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Sink sends events to one destination, and does nothing else: retries, order, the breaker and dead letters are
// wrapped around it by the dispatcher.
type Sink interface {
	// Lane names the lane an event is delivered in. Events of one lane are sent in the order of the journal, one
	// batch at a time; lanes do not wait for each other. It is called by one goroutine, must not block, and must
	// give the same answer for the same event until Relane is called.
	Lane(*Event) Lane

	// Send delivers a batch of one lane in order and returns how many events from its start were taken for good,
	// and, when that is not all, why the next one was not: an error says try again later, Permanent says never,
	// RetryAfterError says when, Pause waits for an operator, ErrRelane asks for new lanes. A batch that failed with a plain error is sent again with the same
	// events (Number raised). Send is called concurrently for different lanes, never for the same lane. When ctx ends it returns soon.
	Send(ctx context.Context, lane Lane, batch []Attempt) (taken int, err error)

	// MaxBatch bounds the events of one Send by count and body bytes; 1, 0 = one event at a time.
	MaxBatch() (events, bytes int)

	// Close frees what the sink holds. No Send is running or follows.
	Close() error
}

// Traits are what kinds of sinks differ in besides how they send.
type Traits struct {
	Build       func() (Sink, error) // makes the sink, touching no network; called again when it has changed
	Concurrency int                  // Sends at the same time, of all replicas together; at least 1
	Breaks      bool                 // pause the whole sink when several lanes fail and none succeeds
	Ordered     bool                 // order costs nothing, so that to do without is a mistake
	SpanKind    trace.SpanKind       // of its deliveries: producer (Kafka), client (HTTP) or internal (file)
	SpanAttrs   []attribute.KeyValue // of all its spans
}

// Lane is the unit of order at a sink. The zero Lane is for unordered events.
type Lane struct {
	Group string // lanes of a group are laned anew together (a Kafka topic)
	Key   string // the lane within the group; "" = unordered: every event is a lane of its own
}

// Relaner is a Sink whose lanes can change. When a Send answered ErrRelane, the dispatcher sends nothing more for that group, waits for
// what is in flight, calls Relane, asks Lane again for every waiting event of the group, and goes on.
type Relaner interface {
	Sink
	Relane(group string)
}

// Reconnecter is a Sink that keeps connections. After Reconnect, what is sent goes over new ones, for which names are looked up
// again; what is in flight ends as it began. It is called when an operator resumes the sink and when the configuration is loaded
// again, also while Sends run, and must not block.
type Reconnecter interface {
	Sink
	Reconnect()
}

// Sharer is a Sink whose settings promise something to its far side, such as a rate. All replicas promise it together: Share says
// that this process has so many of all shards, at least one, and may use that part. It is called also while Sends run, and must not block.
type Sharer interface {
	Sink
	Share(owned, shards int)
}

// ErrRelane is returned by Send when the lanes of the batch's group are out of date.
var ErrRelane = errors.New("lanes of the group have changed")

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks err as final for the event: it becomes a dead letter instead of being tried again.
func Permanent(err error) error { return &permanentError{err} }

// IsPermanent reports whether err was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

type pauseError struct{ err error }

func (e *pauseError) Error() string { return e.err.Error() }
func (e *pauseError) Unwrap() error { return e.err }

// Pause marks err as a reason to send nothing more to this sink until an operator resumes it. The event stays owed.
func Pause(err error) error { return &pauseError{err} }

// IsPause reports whether err was marked by Pause.
func IsPause(err error) bool {
	var p *pauseError
	return errors.As(err, &p)
}

// RetryAfterError is a failure whose far side said when to come back.
type RetryAfterError struct {
	Err   error
	After time.Duration
	All   bool // the far side meant everything we send (429, 503), not this event alone: the whole sink waits
}

func (e *RetryAfterError) Error() string { return e.Err.Error() }
func (e *RetryAfterError) Unwrap() error { return e.Err }
