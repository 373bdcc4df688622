package journal

import "context"

// Scan calls fn with the records from the first to the last position given, in order, those kept after their segment
// was deleted included, until it returns false. want decides by everything but the body. What is damaged is skipped,
// reported and counted as always.
func (j *Journal) Scan(ctx context.Context, from, to Position, want func(header *Record) bool, fn func(*Record) bool) error {
	return nil
}

// Find returns the positions of the events with an id, the newest first, as far as their keys are still known
// (Options.KeepKeys and KeepKeysFor); Scan finds the others.
func (j *Journal) Find(id [16]byte) ([]Position, error) { return nil, nil }

// Standing tells how a delivery stands: waiting (not read yet), pending, dead, or settled.
func (j *Journal) Standing(sink SinkID, pos Position) (name, state string, retry Retry, reason string, err error) {
	return "", "", Retry{}, "", nil
}
