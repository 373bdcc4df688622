package diskjournal

// Release says that nobody reads for the sink any more: it is not configured. What it is owed stays, and no longer
// keeps segments from being deleted (they are copied, see Sweep). Journal.Sink takes it up again.
func (c *Cursor) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = false
}

// Pending returns what a sink was handed out and has not settled, in order, whether it is opened or not.
func (j *Journal) Pending(sink string) []Pending {
	c := j.sink(sink)
	if c == nil {
		return nil
	}
	return c.Pending()
}
