package diskjournal

import (
	"fmt"
	"time"
)

// hungAfter is how long the disk may take over one write and sync before that is told: appends are not waited for longer.
const hungAfter = 5 * time.Second

// Ready says why an append would probably fail now. After a fault the journal finds out by itself when appends work again.
func (j *Journal) Ready() error {
	err := j.lastFault()
	if err == nil {
		err = j.space.check() // others may have filled the volume while nobody appended
	}
	if err != nil {
		return fmt.Errorf("the journal cannot take events: %w", err)
	}
	return nil
}

func (j *Journal) lastFault() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.writing.IsZero() && time.Since(j.writing) > hungAfter {
		return fmt.Errorf("the disk has not answered for %v", time.Since(j.writing).Round(time.Second))
	}
	return j.fault
}
