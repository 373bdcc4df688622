package journal

import "errors"

// Ready says why an append would probably fail now; nil = it would not.
func (j *Journal) Ready() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failing {
		return errors.New("the journal cannot take events")
	}
	return nil
}
