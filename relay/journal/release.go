package journal

// Release says that nobody reads for the sink any more: it is not configured. What it is owed stays, and no longer
// keeps segments from being deleted (they are copied, see Sweep). Journal.Sink takes it up again.
func (c *Cursor) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = false
}
