package main

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.opentelemetry.io/otel/attribute"

	"ncs-relay/config"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/telemetry"
)

const (
	// Editors and Kubernetes change files in several steps; the reload waits until they are done.
	settleTime = 300 * time.Millisecond
	// Some file systems tell nobody of changes.
	pollInterval = 30 * time.Second
)

// reloader replaces the settings of a running relay when its configuration changes.
type reloader struct {
	file    string
	log     *slog.Logger
	apply   func(ctx context.Context, cfg *config.Config) error
	started *config.Config // what the process was started with

	mu     sync.Mutex // guards what follows
	state  reloadState
	inUse  *config.Config
	loaded [sha256.Size]byte // of the files of the last attempt
}

// reloadState is what operators are told.
type reloadState struct {
	Generation    int       `json:"generation"` // 1 at start, one more for each reload
	Hash          string    `json:"hash"`       // of what replicas must have in common, without secrets
	LoadedAt      time.Time `json:"loaded_at"`
	Error         string    `json:"error,omitempty"` // of the last attempt; what was in use before goes on
	NeedsRestart  []string  `json:"needs_restart,omitempty"`
	lastAttemptAt time.Time
}

func newReloader(file string, cfg *config.Config, log *slog.Logger, apply func(context.Context, *config.Config) error) *reloader {
	now := time.Now()
	r := &reloader{file: file, log: log, apply: apply, started: cfg, inUse: cfg,
		state: reloadState{Generation: 1, Hash: cfg.Hash(), LoadedAt: now, lastAttemptAt: now}}
	r.loaded = r.fingerprint()
	return r
}

func (r *reloader) observe(m *telemetry.Metrics) {
	gauge := func(name, help string, value func(reloadState) float64) {
		m.Gauge(name, help, func(observe telemetry.Observe) { observe(value(r.status())) })
	}
	gauge("config_generation", "1 at start, one more for each reload.", func(s reloadState) float64 { return float64(s.Generation) })
	m.Gauge("config_info", "1, with the hash of the configuration.", func(observe telemetry.Observe) { observe(1, attribute.String("hash", r.status().Hash)) })
	gauge("config_last_reload_successful", "1 if the last attempt to load the configuration succeeded.", func(s reloadState) float64 {
		if s.Error != "" {
			return 0
		}
		return 1
	})
	gauge("config_last_reload_timestamp_seconds", "When the last attempt was made.", func(s reloadState) float64 {
		return float64(s.lastAttemptAt.UnixMilli()) / 1000
	})
}

func (r *reloader) status() reloadState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// run reloads on each signal, and when the configuration or one of its secret files has changed. A reload that failed is
// tried again: what it lacked, such as a secret file, may not be among the files that are watched.
func (r *reloader) run(ctx context.Context, hup <-chan os.Signal) error {
	watcher, err := fsnotify.NewWatcher()
	var events <-chan fsnotify.Event
	var errs <-chan error
	if err != nil { // a machine has few of them
		r.log.Warn("files cannot be watched; they are looked at every "+pollInterval.String(), "error", err)
	} else {
		events, errs = watcher.Events, watcher.Errors
		defer watcher.Close()
	}
	r.watch(watcher)
	settle := time.NewTimer(settleTime) // what changed before there was a watch raised no event
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			r.reload(ctx)
			r.watch(watcher)
		case <-events: // any: a changed secret may be a symlink swapped beside it
			settle.Reset(settleTime)
		case err := <-errs:
			r.log.Debug("watching files", "error", err)
		case <-settle.C:
			if r.status().Error != "" || r.fingerprint() != r.lastLoaded() { // what was missing may have come
				r.reload(ctx)
				r.watch(watcher)
			}
			settle.Reset(pollInterval)
		}
	}
}

// watch follows the directories: files are replaced, not only written, and Kubernetes swaps the directory they are in.
func (r *reloader) watch(w *fsnotify.Watcher) {
	if w == nil {
		return
	}
	for _, f := range r.files() {
		dir := filepath.Dir(f)
		if !slices.Contains(w.WatchList(), dir) {
			if err := w.Add(dir); err != nil {
				r.log.Debug("directory cannot be watched", "directory", dir, "error", err)
			}
		}
	}
}

// files are those whose content makes the configuration.
func (r *reloader) files() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{r.file}, r.inUse.Files()...)
}

func (r *reloader) fingerprint() [sha256.Size]byte { return keyfile.Digest(r.files()...) }

func (r *reloader) lastLoaded() [sha256.Size]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loaded
}

// reload loads and applies the file. If anything is wrong with it, what is in use goes on.
func (r *reloader) reload(ctx context.Context) {
	print := r.fingerprint() // before loading: a change in between is noticed
	cfg, report := loadConfig(r.file)
	err := report.Err()
	if err == nil {
		err = r.apply(ctx, cfg)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.loaded = print
	r.state.lastAttemptAt = time.Now()
	if err != nil {
		if r.state.Error != err.Error() { // said once, however often it is tried
			r.log.Error("configuration not reloaded; the one in use goes on", "error", err)
		}
		r.state.Error = err.Error()
		return
	}
	r.inUse = cfg
	r.state.Generation++
	r.state.Hash, r.state.LoadedAt, r.state.Error = cfg.Hash(), r.state.lastAttemptAt, ""
	r.state.NeedsRestart = needsRestart(r.started, cfg)
	r.log.Info("configuration reloaded", "generation", r.state.Generation, "sources", len(cfg.Sources), "sinks", len(cfg.Sinks))
	if len(r.state.NeedsRestart) > 0 {
		r.log.Warn("some changes need a restart", "keys", strings.Join(r.state.NeedsRestart, ", "))
	}
}

// needsRestart names the changed settings that a running process cannot take up.
func needsRestart(old, new *config.Config) []string {
	limits := func(c *config.Config) ingress.LimitsConfig {
		l := c.Limits
		l.InFlight, l.InFlightBytes, l.Connections = 0, 0, 0 // taken up at once
		return l
	}
	var keys []string
	for _, s := range []struct {
		key      string
		old, new any
	}{
		{"listen", old.Listen, new.Listen}, {"tls", old.TLS, new.TLS}, {"health_path", old.HealthPath, new.HealthPath},
		{"admin", old.Admin, new.Admin}, {"data_dir", old.DataDir, new.DataDir}, {"replica", old.Replica, new.Replica}, {"journal", old.Journal, new.Journal},
		{"dead_letters", old.DeadLetters, new.DeadLetters}, {"limits", limits(old), limits(new)},
		{"shutdown", old.Shutdown, new.Shutdown}, {"log", old.Log, new.Log},
	} {
		if !reflect.DeepEqual(s.old, s.new) {
			keys = append(keys, s.key)
		}
	}
	return keys
}
