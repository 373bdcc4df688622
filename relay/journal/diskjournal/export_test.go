package diskjournal

import (
	"time"

	"ncs-relay/relay/journal"
)

// Step does at once what the committer's goroutine would, so that a test decides the order of all file operations.
// Run must not be running.
func (j *Journal) Step() {
	j.writer.pause, j.space.checked = 0, time.Time{}
	j.writer.commit(j.queue.take(false))
}

// InLog reports whether the segment of a position was not deleted.
func (j *Journal) InLog(pos journal.Position) bool { return in(pos) >= j.log.oldest() }

// EncodePayload and DecodePayload are the two sides of what a segment holds of a record.
func EncodePayload(r *journal.Record, sinks ...sinkID) []byte { return appendPayload(nil, r, sinks) }
func DecodePayload(pos journal.Position, b []byte) (*journal.Record, error) {
	return sinkNames(nil).decodePayload(in(pos), b)
}

// SinkIDs are the sinks' numbers in what EncodePayload made.
func SinkIDs(b []byte) (ids []sinkID) {
	payloadSinks(b, func(id sinkID) { ids = append(ids, id) })
	return ids
}

// Audit compares what is in the state with what was counted.
func (j *Journal) Audit() error { return j.auditState() }

// Mend is what Run does at its start about dead letters that are damaged.
func (j *Journal) Mend() error { return j.mendLetters() }
