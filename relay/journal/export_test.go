package journal

// Step does at once what the committer's goroutine would, so that a test decides the order of all file operations.
// Run must not be running.
func (j *Journal) Step() {
	j.writer.pause = 0
	j.writer.commit(j.queue.take(false))
}
