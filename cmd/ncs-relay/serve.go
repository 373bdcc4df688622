package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ncs-relay/config"
	"ncs-relay/relay/admin"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/telemetry"
	"ncs-relay/relay/trail"
)

func serveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the relay",
		Long: `serve runs the relay until SIGTERM or an interrupt; then /readyz turns 503, notifications are still stored for
shutdown.delay, and what is in flight gets the rest of shutdown.timeout. A second signal ends it at once: nothing that
was answered 200 is lost either way.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := canServe(); err != nil {
				return err
			}
			cfg, report := loadConfig(file)
			if report.Err() != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), report)
				return errReported
			}
			log, err := telemetry.NewLogger(cfg.Log, cmd.ErrOrStderr(), isTerminal(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			for _, p := range report.Problems {
				if p.Severity == config.Warning {
					log.Warn("configuration: "+p.Message, "path", p.Path, "line", p.Line, "hint", p.Hint)
				}
			}
			warnOfDescriptors(cfg, log)
			return serve(cmd.Context(), file, cfg, log)
		},
	}
	addConfigFlag(cmd, &file)
	return cmd
}

func addConfigFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "relay.yaml", "the configuration file")
}

// heapFloor keeps the garbage collector from running for every few hundred calls while little is in memory: a quarter of the
// processor time of a busy relay. It is never written, so it takes no memory itself; what waits for collection is larger by it.
const heapFloor = 64 << 20

// serve builds the relay from the bottom up, runs it until ctx ends or a part of it fails, and takes it down from the top.
func serve(ctx context.Context, file string, cfg *config.Config, log *slog.Logger) (err error) {
	defer runtime.KeepAlive(make([]byte, heapFloor))
	var stack teardown
	defer func() {
		if err = errors.Join(err, stack.run(log)); err == nil {
			log.Info("stopped")
		}
	}()

	// First: opening the journal may take long, and what changes meanwhile, or is announced, counts.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var relaying *gateway.Gateway
	var server *ingress.Server
	share := func(*config.Config) {} // with the other replicas
	reload := newReloader(file, cfg, log, func(ctx context.Context, cfg *config.Config) error {
		if err := relaying.Reload(ctx, settings(cfg, log)); err != nil {
			return err
		}
		server.SetLimits(cfg.Limits)
		share(cfg)
		return nil
	})

	metrics, tracing := startTelemetry(ctx, log, &stack)
	failed := make(chan error, 6) // room for each of the parts below that may end by itself

	// Both addresses are open from here to the end: what cannot be done yet is said, and no call is refused. They end
	// before what they use, so they are on the stack a second time.
	var state readiness
	public := ingressOptions(cfg, log)
	public.Metrics = metrics
	public.Ready = func() bool { ok, _ := state.now(); return ok }
	if server, err = ingress.Listen(public); err != nil {
		return err
	}
	endIngress := sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), cfg.Shutdown.Timeout/2)
		defer cancel()
		return server.Shutdown(ctx)
	})
	stack.push("ingress", endIngress)
	start := newStart()
	adm := admin.New(cfg.Admin, admin.Options{
		Metrics: metrics.Handler(), Ready: state.now, Log: log, Start: start,
		Status: func(context.Context) (any, error) {
			return status{Version: buildVersion(), Config: reload.status(), Status: relaying.Status()}, nil
		},
	})
	if err := adm.Listen(); err != nil {
		return err
	}
	endAdmin := sync.OnceValue(background(failed, adm.Run))
	stack.push("admin address", endAdmin)

	answer := sync.OnceFunc(func() { // until then calls wait
		go func() {
			if err := server.Serve(); err != nil {
				failed <- fmt.Errorf("ingress: %w", err)
			}
		}()
	})
	defer time.AfterFunc(openPatience, answer).Stop()

	opener := diskOpener(cfg, log)
	if cfg.Journal.Kafka != nil {
		opener = kafkaOpener(cfg, start, adm.Addr(), log)
	}
	j, err := openJournal(ctx, opener, log, failed, func(why string) {
		state.not(why)
		answer()
	})
	if errors.Is(err, context.Canceled) {
		return nil // asked to stop while there was no journal
	}
	if err != nil {
		return err
	}
	if shared, ok := j.(*sharedJournal); ok {
		share = shared.Reconfigure
	}
	state.not("starting: known events are being loaded")
	// The journal ends last of the parts that use it: what they settle while they end is still written.
	stack.push("journal", j.Close)
	stack.push("journal writer", background(failed, j.Run))

	var events *trail.Trail // none without a directory of our own
	if cfg.DataDir != "" {
		events = trail.New(filepath.Join(cfg.DataDir, "trail"), func() bool { return j.Ready() == nil }, log)
		stack.push("trail", background(failed, events.Run))
	}
	relaying, err = gateway.New(gateway.Options{
		Settings: settings(cfg, log), Journal: j, Logger: log, Metrics: metrics, Tracing: tracing, Trail: events,
	})
	if err != nil {
		return damageHint(err, cfg.DataDir)
	}
	reload.observe(metrics)
	adm.Attach(relaying, sharing(j))
	stack.push("admin address", endAdmin)
	server.SetHandler(relaying)
	answer()
	state.journal = j
	state.serving()
	// Deliveries begin after the answers: they have waited already. They end after them, too.
	stack.push("deliveries", background(failed, func(ctx context.Context) error {
		return relaying.Run(ctx, cfg.Shutdown.Timeout/2)
	}))
	stack.push("ingress", endIngress)
	stack.push("reload", background(failed, func(ctx context.Context) error { return reload.run(ctx, hup) }))
	log.Info("serving", "listen", server.Addr().String(), "admin", adm.Addr(), "version", buildVersion(),
		"sources", len(cfg.Sources), "sinks", len(cfg.Sinks), "known_keys", relaying.KnownKeys())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// Still storing: whoever balances the load needs a moment to notice that we are going.
	log.Info("shutting down: still storing for the delay, then what is in flight ends; a second signal ends it at once",
		"delay", cfg.Shutdown.Delay.String(), "timeout", cfg.Shutdown.Timeout.String())
	state.not("shutting down")
	select {
	case err := <-failed:
		return err
	case <-time.After(cfg.Shutdown.Delay):
	}
	return nil
}

func ingressOptions(cfg *config.Config, log *slog.Logger) ingress.ServerOptions {
	o := ingress.ServerOptions{Listen: cfg.Listen, Limits: cfg.Limits, HealthPath: cfg.HealthPath, Logger: log}
	if cfg.TLS != nil {
		o.CertFile, o.KeyFile = cfg.TLS.CertFile, cfg.TLS.KeyFile
	}
	return o
}

// startTelemetry never fails: no trouble with a collector or its variables is worth a notification.
func startTelemetry(ctx context.Context, log *slog.Logger, stack *teardown) (*telemetry.Metrics, *telemetry.Tracing) {
	for _, w := range telemetry.Warnings(os.Getenv) {
		log.Warn("a telemetry variable is wrong and ignored", "variable", w.Variable, "error", w.Problem)
	}
	o := telemetry.Options{Getenv: os.Getenv, Version: buildVersion(), Log: log}
	metrics, metricsErr := telemetry.NewMetrics(ctx, o)
	tracing, tracingErr := telemetry.NewTracing(ctx, o)
	if err := errors.Join(metricsErr, tracingErr); err != nil {
		log.Warn("telemetry is not exported", "error", err)
	}
	stack.push("telemetry", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := errors.Join(tracing.Shutdown(ctx), metrics.Shutdown(ctx)); err != nil {
			log.Warn("the last telemetry did not get through", "error", err) // an absent collector is no failure of the relay
		}
		return nil
	})
	return metrics, tracing
}

// status is the answer to GET /api/v1/status.
type status struct {
	Version string      `json:"version"`
	Config  reloadState `json:"config"`
	gateway.Status

	// What is asked of several relays that share a journal has these, too.
	Replicas   []admin.ReplicaStatus `json:"replicas,omitempty"`
	Unanswered []admin.Unanswered    `json:"unanswered,omitempty"`
}

// settings are what a reload replaces.
func settings(cfg *config.Config, log *slog.Logger) gateway.Settings {
	s := gateway.Settings{Settings: ingress.Settings{Router: cfg.Router, Sources: cfg.Sources, Dedup: cfg.Dedup, Limits: cfg.Limits}}
	if cfg.Journal.Kafka != nil {
		s.Dedup.OnConflict = "deliver" // whether another event of its key is dropped, its judge knows: that is for all replicas alike
	}
	for _, c := range cfg.Sinks {
		spec := c.Spec("ncs-relay/"+buildVersion(), log)
		spec.Catalogue = cfg.Catalogue
		s.Sinks = append(s.Sinks, spec)
	}
	return s
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// background runs a part until the function it returns is called. An end that was not asked for goes to failed.
func background(failed chan<- error, run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			failed <- endedEarly(err)
		}
		done <- err
	}()
	return func() error {
		cancel()
		return <-done
	}
}

// endedEarly is why a part ended that nobody asked to.
func endedEarly(err error) error {
	if err == nil {
		return errors.New("a part ended by itself")
	}
	return err
}

// teardown is a stack of things to end: the last that began ends first, because it may use all before it.
type teardown struct{ steps []step }

type step struct {
	name string
	end  func() error
}

func (t *teardown) push(name string, end func() error) { t.steps = append(t.steps, step{name, end}) }

func (t *teardown) run(log *slog.Logger) error {
	var errs []error
	for i := len(t.steps) - 1; i >= 0; i-- {
		s := t.steps[i]
		log.Debug("ending", "part", s.name)
		if err := s.end(); err != nil {
			errs = append(errs, fmt.Errorf("end %s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}
