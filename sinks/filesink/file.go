package filesink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// file is what a sink needs of an *os.File.
type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
	Fd() uintptr
}

// openAppend opens path for appending. Events hold personal data: the file is not for everybody's eyes.
func openAppend(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err // not f: a nil *os.File in an interface is not nil
	}
	return f, nil
}

var (
	errLocked  = errors.New("another sink or process is writing this file")
	errNotOurs = errors.New("was not written by a file sink; choose another path")
)

// wrongPath tells a path that will never do from a disk that cannot be written now.
func wrongPath(err error) bool {
	return errors.Is(err, errNotOurs) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR)
}

// errTorn means that a file ends within a line.
var errTorn = errors.New("ends within a line, which serve cuts off unless a relay is writing it now")

// look is the work of Config.Look.
func look(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil: // to be made, or away for now
		if wrongPath(err) || errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s %w", path, errNotOurs)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := lineEnd(f, info.Size())
	if err != nil {
		return err
	}
	for _, offset := range []int64{0, end} {
		if ours, err := isOurs(f, offset); err != nil {
			return err
		} else if !ours {
			return fmt.Errorf("%s %w", path, errNotOurs)
		}
	}
	if end < info.Size() {
		return fmt.Errorf("%s %w", path, errTorn)
	}
	return nil
}

// makeDir makes dir, and makes it last through a power cut together with those above it that were made too.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// syncDir makes names created or renamed in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const scanStep = 64 << 10

// lineEnd is the offset behind the last newline in the first size bytes of f, looked for from the end because the file may be huge.
func lineEnd(f io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, min(size, scanStep))
	for end := size; end > 0; {
		start := max(0, end-scanStep)
		part := buf[:end-start]
		if _, err := f.ReadAt(part, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// isOurs reports whether what is in f from offset on was written by a sink; a power cut can leave zeros where a line was.
func isOurs(f io.ReaderAt, offset int64) (bool, error) {
	start := make([]byte, len(lineStart))
	n, err := f.ReadAt(start, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return n == 0 || start[0] == 0 || bytes.HasPrefix([]byte(lineStart), start[:n]), nil
}
