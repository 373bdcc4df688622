// Package kafkalog uses partitions of a Kafka cluster as logs: it appends records to them once and in order, and reads
// them by offset.
//
// It promises that a batch is in the log once, whatever happens to the answers, as long as its Writer lives; that what is
// read is what was written, by its checksum; and that nothing a broker sends takes more memory than it may. Who may write
// a partition, and what its records mean, is left to those who ask.
package kafkalog

import (
	"fmt"
	"time"
)

// Record is a record of a log.
type Record struct {
	Offset  int64     // where it is in the log; set by Read
	Time    time.Time // as the broker keeps it, to the millisecond: of appending where the topic says LogAppendTime
	Key     []byte    // nil = none
	Value   []byte    // nil = none: in a compacted topic it removes the key
	Headers []Header
}

// Header is one header of a record. A key may be there more than once.
type Header struct {
	Key   string
	Value []byte
}

// Chunk is what was read of a partition.
type Chunk struct {
	Records []Record // by offset, without gaps other than those of the log
	Next    int64    // the offset to go on from, also beyond gaps that compaction has left
	End     int64    // the high watermark: the offset of the next record that all in-sync replicas will have
	Start   int64    // of the log; what was before it is gone
}

// OutOfRange is the error of reading from an offset that is not in the log, nor its end.
type OutOfRange struct {
	Offset     int64 // the one that was asked for
	Start, End int64 // of the log
}

func (e *OutOfRange) Error() string {
	return fmt.Sprintf("offset %d is not in the log, which begins at %d and ends at %d", e.Offset, e.Start, e.End)
}

// Refused is the error of an Append whose records the broker does not take as they are: none of them was written, and the
// same records would be refused again.
type Refused struct {
	Record int // the first record at fault; -1 = the broker does not name it
	Err    error
}

func (e *Refused) Error() string { return e.Err.Error() }

// Unwrap returns what the broker said.
func (e *Refused) Unwrap() error { return e.Err }
