package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"ncs-relay/config"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/telemetry"
)

const (
	// reopenInterval is the pause between attempts to open a journal on a disk that fails.
	reopenInterval = time.Second

	// openPatience is how long calls wait for the journal to be opened before they are told 503. With what storing may
	// take then, NCS still has its answer within 10 s.
	openPatience = 2 * time.Second
)

// journalOpener opens a journal, once. An error may pass if lasting says that it does not.
type journalOpener struct {
	open    func(ctx context.Context) (journal.Opened, error)
	lasting func(err error) bool
	key     string // of the log
	where   string
}

func diskOpener(cfg *config.Config, log *slog.Logger) journalOpener {
	return journalOpener{
		open: func(context.Context) (journal.Opened, error) {
			return diskjournal.Open(cfg.DataDir, diskjournal.Options{
				Config: cfg.Journal.Disk(), Dead: cfg.DeadLetters, KeepKeys: cfg.Dedup.MaxKeys, KeepKeysFor: cfg.Dedup.Window, Logger: log,
			})
		},
		lasting: func(err error) bool {
			return errors.Is(err, diskjournal.ErrLocked) || errors.Is(err, diskjournal.ErrForeign) || errors.Is(err, diskjournal.ErrNewer) || errors.Is(err, diskjournal.ErrDamaged)
		},
		key: "data_dir", where: cfg.DataDir,
	}
}

// openJournal opens the journal. A disk that is full, read-only or failing, or a cluster that is away, may get well again, and a
// relay that is gone cannot say why: so it tries until it can, and tells why it cannot. Only a directory or topics that are
// not ours to use, or a state that is damaged, is an error; or that a part which is up already has failed.
func openJournal(ctx context.Context, o journalOpener, log *slog.Logger, failed <-chan error, cannot func(why string)) (journal.Opened, error) {
	var said telemetry.Repetition
	for {
		j, err := o.open(ctx)
		switch {
		case err == nil:
			return j, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case o.lasting(err):
			return nil, damageHint(err, o.where)
		}
		err = rightsHint(err)
		cannot("the journal cannot be opened: " + err.Error())
		if suppressed, ok := said.Allow(time.Now()); ok {
			log.Error("the journal cannot be opened; answering 503 and trying again", o.key, o.where, "error", err, "suppressed", suppressed)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-failed:
			return nil, err
		case <-time.After(reopenInterval):
		}
	}
}

// damageHint says what to do about a journal whose state cannot be believed.
func damageHint(err error, dir string) error {
	if errors.Is(err, diskjournal.ErrDamaged) {
		return fmt.Errorf("%w; nothing was changed: ncs-relay journal verify %[2]s says more, ncs-relay journal export %[2]s writes the events that can be read; put state.db back as it was, or move the directory away", err, dir)
	}
	return err
}

// rightsHint says whose rights are missing: in a container that is seldom who one thinks.
func rightsHint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (this process runs as user %d, group %d)", err, os.Getuid(), os.Getgid())
	}
	return err
}

// readiness is what /readyz says. It may be used concurrently.
type readiness struct {
	journal journal.Opened // set before the first serving
	why     atomic.Pointer[string]
}

const starting = "starting: the journal is being opened"

func (r *readiness) not(why string) { r.why.Store(&why) }
func (r *readiness) serving()       { r.not("") }

func (r *readiness) now() (ready bool, reason string) {
	switch why := r.why.Load(); {
	case why == nil:
		return false, starting
	case *why != "":
		return false, *why
	}
	if err := r.journal.Ready(); err != nil {
		return false, err.Error()
	}
	return true, ""
}
