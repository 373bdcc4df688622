package filesink

import "time"

// File is what a test may put in the place of an *os.File.
type File = file

// Wrap puts wrap around every file the sink opens from now on.
func (s *Sink) Wrap(wrap func(File) File) {
	open := s.open
	s.open = func(path string) (file, error) {
		f, err := open(path)
		if err != nil {
			return nil, err
		}
		return wrap(f), nil
	}
}

// SetClock sets the time archives are named after.
func (s *Sink) SetClock(now func() time.Time) { s.now = now }
