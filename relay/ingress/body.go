package ingress

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// uncountedBody is what each call may send without a share of limits.in_flight_bytes. Notifications are smaller, so
	// no sender of large bodies can keep them out; what they take together is bounded by limits.connections.
	uncountedBody = 16 << 10

	// unannouncedBody is the share taken at a time by a body of which no length was announced.
	unannouncedBody = 1 << 20

	// bodyWait is how long a large body waits for its share, besides the time for storing it (answersWithin).
	bodyWait = 2 * time.Second
)

// bodies bounds the memory that the bodies of all calls take together.
type bodies struct{ budget atomic.Pointer[bodyBudget] }

type bodyBudget struct {
	size  int64
	taken *semaphore.Weighted
}

// setLimit is for the calls that begin after it.
func (b *bodies) setLimit(size int64) {
	b.budget.Store(&bodyBudget{size, semaphore.NewWeighted(size)})
}

// bounded makes the bodies that next reads fail with errBusy while there is no share for them, and tells the connection
// when one has arrived.
func (b *bodies) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &boundedBody{ReadCloser: r.Body, ctx: r.Context(), from: connectionFor(r.Context()), bodyBudget: b.budget.Load(), announced: r.ContentLength}
		defer body.end()
		body.from.handling()
		// A copy: the server looks at the type of its own request's body, and would read on, waiting, before it sends a
		// refusal if that were not its own.
		call := *r
		call.Body = body
		next.ServeHTTP(w, &call)
	})
}

type boundedBody struct {
	io.ReadCloser
	ctx  context.Context
	from *connection
	*bodyBudget
	announced int64 // -1 = unknown
	read      int64
	share     int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if errors.Is(err, io.EOF) {
		b.from.arrived()
	}
	if b.read > uncountedBody && b.read > b.share && !b.reserve() {
		return 0, errBusy
	}
	return n, err
}

// reserve takes the whole of an announced length at once: bodies that each hold a part and wait for more would wait for
// each other. A body larger than all there is takes all there is.
func (b *boundedBody) reserve() bool {
	want := b.announced
	if want < b.read {
		want = b.share + unannouncedBody
	}
	more := min(want, b.size) - b.share
	ctx, cancel := context.WithTimeout(b.ctx, bodyWait)
	defer cancel()
	if b.taken.Acquire(ctx, more) != nil {
		return false
	}
	b.share += more
	return true
}

func (b *boundedBody) end() {
	b.from.answered()
	if b.share > 0 {
		b.taken.Release(b.share)
	}
}
