package journal

import "time"

// DiskStats describe a journal on a disk.
type DiskStats struct {
	Segments    int
	Bytes       int64 // the log and what was kept of it
	MaxBytes    int64 // what it may take
	Free        int64 // bytes free on the volume, up to a second ago
	TornBytes   int64 // of an unfinished write, cut at start
	Damaged     int64 // stretches found damaged
	LostRecords int64 // in them
	Faults      uint64
	Syncs       uint64 // groups of appends that were written, each with one sync
}

// SinkStatus is what is known of a sink, open or not.
type SinkStatus struct {
	Name         string
	Open         bool // by somebody who has not released it
	Totals       Totals
	PendingBytes int64
	Letters      uint64    // dead letters kept
	LettersLost  uint64    // dead letters that their limits dropped, by this process
	Oldest       time.Time // when the oldest event was received that is not settled, read or not; zero = none, or not known
	Paused       string    // see Sink.SetPaused
}

// Snapshot is the state of all accounts at one instant.
type Snapshot struct {
	Accounts map[string]Account // by source, those not configured any more included
	Unjudged uint64             // records that are stored, and of which it is not known yet whether they are copies: nobody is owed them so far
	Sinks    []SinkStatus       // by name
}
