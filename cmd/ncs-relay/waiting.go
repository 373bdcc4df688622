package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"ncs-relay/config"
	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
)

// reopenInterval is the pause between attempts to open a journal on a disk that fails.
const reopenInterval = time.Second

// openJournal opens the journal. A disk that is full, read-only or failing may get well again, and a relay that is gone
// cannot say why: so until then every notification is answered 503, and /readyz says what is wrong. Only a directory
// that is not ours to use, or whose state is damaged, is an error.
func openJournal(ctx context.Context, cfg *config.Config, log *slog.Logger) (journal.Opened, error) {
	open := func() (journal.Opened, error) {
		return diskjournal.Open(cfg.DataDir, diskjournal.Options{
			Config: cfg.Journal, Dead: cfg.DeadLetters, KeepKeys: cfg.Dedup.MaxKeys, KeepKeysFor: cfg.Dedup.Window, Logger: log,
		})
	}
	final := func(err error) bool {
		return err == nil || errors.Is(err, diskjournal.ErrLocked) || errors.Is(err, diskjournal.ErrForeign) || errors.Is(err, diskjournal.ErrNewer) ||
			errors.Is(err, diskjournal.ErrDamaged)
	}
	j, err := open()
	if final(err) {
		return j, damageHint(err, cfg.DataDir)
	}
	log.Error("the journal cannot be opened; answering 503 and trying again", "data_dir", cfg.DataDir, "error", err)
	room, err := enterWaitingRoom(cfg, log)
	if err != nil {
		return nil, err
	}
	defer room.leave()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(reopenInterval):
		}
		if j, err := open(); final(err) {
			return j, damageHint(err, cfg.DataDir)
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

// waitingRoom answers at both addresses while there is no journal.
type waitingRoom struct{ ingress, admin *relay.Server }

func enterWaitingRoom(cfg *config.Config, log *slog.Logger) (*waitingRoom, error) {
	unavailable := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"error":"the journal cannot be opened"}`)
	})
	probes := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/livez" {
			io.WriteString(w, "{}")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"ready":false,"reason":"the journal cannot be opened"}`)
	})
	options := ingressOptions(cfg, log)
	options.Handler, options.HealthPath = unavailable, ""
	ingress, err := relay.Listen(options)
	if err != nil {
		return nil, err
	}
	admin, err := relay.Listen(relay.ServerOptions{Listen: cfg.Admin.Listen, Handler: probes, Limits: cfg.Limits, Logger: log})
	if err != nil {
		return nil, errors.Join(err, ingress.Shutdown(context.Background()))
	}
	go ingress.Serve()
	go admin.Serve()
	return &waitingRoom{ingress, admin}, nil
}

func (r *waitingRoom) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.ingress.Shutdown(ctx)
	_ = r.admin.Shutdown(ctx)
}
