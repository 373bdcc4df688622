package diskjournal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
)

const (
	formatName    = "FORMAT"
	formatMagic   = "ncs-relay journal "
	formatVersion = 2
	lockName      = "LOCK"
)

// claimDirectory creates dir if need be, makes sure that it is ours to use, and locks it.
func claimDirectory(fsys FS, dir string) (io.Closer, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := checkForeign(fsys, dir); err != nil { // before the lock file would make it look less so
		return nil, err
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if err := claimFormat(fsys, dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

func checkForeign(fsys FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil || slices.Contains(names, formatName) {
		return err
	}
	for _, name := range names {
		switch name {
		case lockName, formatName + ".tmp": // a first start was interrupted
		case "lost+found": // the directory is a volume of its own
		default:
			return fmt.Errorf("%s holds %s: %w", dir, name, ErrForeign)
		}
	}
	return nil
}

// Look reports, without changing anything, why Open could not use dir: ErrForeign, ErrNewer, ErrDamaged of its state, or ErrLocked:
// then the rest was not looked at. A directory that is not there yet is none of these.
func Look(dir string) error {
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if err := checkForeign(DiskFS{}, dir); err != nil {
		return err
	}
	if err := checkFormat(DiskFS{}, dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	// Given back at once: whoever opens the directory now must not find it locked by us.
	lock, err := readOnlyFS{DiskFS{}}.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if err := lock.Close(); err != nil {
		return err
	}
	return lookAtState(dir)
}

func lookAtState(dir string) error {
	segments, err := (DiskFS{}).List(filepath.Join(dir, "log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path := filepath.Join(dir, "state.db")
	if fresh, err := isFreshState(path, len(segments) == 0); fresh || err != nil {
		return err
	}
	j := &Journal{dir: dir, fs: readOnlyFS{DiskFS{}}, logger: slog.New(slog.DiscardHandler), sinks: make(map[string]*Cursor),
		byID: make(map[sinkID]*Cursor), accounts: make(map[string]*sourceAccount)}
	if j.state, err = openStateReadOnly(path); err != nil {
		return fmt.Errorf("open %s: %w", path, boltError(err))
	}
	return errors.Join(j.loadState(), j.state.close())
}

func claimFormat(fsys FS, dir string) error {
	err := checkFormat(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return writeFormat(fsys, dir)
	}
	return err
}

func checkFormat(fsys FS, dir string) error {
	name := filepath.Join(dir, formatName)
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 64)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", name, err)
	}
	var version int
	if _, err := fmt.Sscanf(string(b[:n]), formatMagic+"%d", &version); err != nil {
		return fmt.Errorf("%s does not name the format of a journal: %w", name, ErrForeign)
	}
	if version < formatVersion {
		return fmt.Errorf("%s says format %d, which was never released: %w", name, version, ErrForeign)
	}
	if version > formatVersion {
		return fmt.Errorf("%s says format %d, this program knows up to %d: %w", name, version, formatVersion, ErrNewer)
	}
	return nil
}

func writeFormat(fsys FS, dir string) error {
	name := filepath.Join(dir, formatName)
	if err := fsys.Remove(name + ".tmp"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%s%d\n", formatMagic, formatVersion), 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(name+".tmp", name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}
