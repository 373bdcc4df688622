package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/telemetry"
	"ncs-relay/sinks"
)

func sinksCommand() *cobra.Command {
	return group("sinks", "Try, list, pause, resume, move and drop destinations",
		sinksTestCommand(), sinksListCommand(), sinksPauseCommand(), sinksResumeCommand(), sinksMoveCommand(), sinksDropCommand())
}

// trialTime bounds a test of a sink, whatever time-outs the sink has.
const trialTime = time.Minute

func sinksTestCommand() *cobra.Command {
	var t trial
	cmd := &cobra.Command{
		Use:   "test NAME",
		Short: "Send one sample event through a configured sink and show the exchange",
		Long: `test sends one event through a sink of the configuration, as serve would, and prints what was sent and answered, secrets
masked. It is the sample of an event type (see ncs-relay events show) with new ids and times of now, or the body of a file. It is
signed with a source's secret, so that receivers verify it, and marked as a test: header Ncs-Relay-Test (HTTP), ncs-test (Kafka),
member test (file). Nothing is tried twice, and no running relay is asked or needed. It fails if the event was not taken.`,
		Args: rangeArgs(1, 1, "the name of one sink"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if t.body != "" && cmd.Flags().Changed("event") {
				return usagef("--body cannot be combined with --event")
			}
			t.sink, t.marked = args[0], true
			return t.run(cmd)
		},
	}
	addConfigFlag(cmd, &t.config)
	cmd.Flags().StringVar(&t.event, "event", "cloud_recording.uploaded", "the event to send, as ncs-relay events lists them, or one of its samples by name")
	cmd.Flags().StringVar(&t.body, "body", "", "send the body in this file, byte for byte; - is standard input")
	cmd.Flags().StringVar(&t.source, "source", "", "sign with the first secret of this source (default: the first source)")
	return cmd
}

// trial is one event through a sink of a configuration.
type trial struct {
	config, sink, source string
	event, body          string // the name of a type or sample, or a file
	marked               bool   // as a test
}

func (t *trial) run(cmd *cobra.Command) error {
	cfg, report := loadConfig(t.config)
	if report.Err() != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), report)
		return errReported
	}
	i := slices.IndexFunc(cfg.Sinks, func(c sinks.Config) bool { return c.Name == t.sink })
	if i < 0 {
		return usagef("the configuration has no sink %q", t.sink)
	}
	source := cfg.Sources[0]
	if j := slices.IndexFunc(cfg.Sources, func(c ingress.SourceConfig) bool { return c.Name == t.source }); j >= 0 {
		source = cfg.Sources[j]
	} else if t.source != "" {
		return usagef("the configuration has no source %q", t.source)
	}
	body, err := trialBody(cmd, cfg.Catalogue, t.body, t.event)
	if err != nil {
		return err
	}
	event, err := incoming(body, source, cfg.Catalogue)
	if err != nil {
		return fmt.Errorf("the body is no notification: %w", err)
	}
	return t.send(cmd, cfg, cfg.Sinks[i], event)
}

func (t *trial) send(cmd *cobra.Command, cfg *config.Config, c sinks.Config, event *relay.Event) error {
	log, err := telemetry.NewLogger(cfg.Log, cmd.ErrOrStderr(), isTerminal(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	sink, err := c.Spec("ncs-relay/"+buildVersion(), log).Build()
	if err != nil {
		return fmt.Errorf("sink %s: %w", c.Name, err)
	}
	defer sink.Close()

	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "event %s.%s %s, entity %q, to sink %s\n", event.Info.Product, event.Info.Event, event.ID, event.Entity, c.Name)
	ctx, cancel := context.WithTimeout(cmd.Context(), trialTime)
	defer cancel()
	err = sinks.Try(ctx, sink, relay.Attempt{Event: event, Number: 1, Test: t.marked}, out)
	return sayVerdict(out, err)
}

// sayVerdict says what serve would do next.
func sayVerdict(out io.Writer, err error) error {
	switch {
	case err == nil:
		fmt.Fprintln(out, "delivered")
		return nil
	case relay.IsPermanent(err):
		fmt.Fprintf(out, "not taken, and never will be: it would become a dead letter: %s\n", err)
	case relay.IsPause(err):
		fmt.Fprintf(out, "not taken: the sink would be paused until an operator resumes it: %s\n", err)
	default:
		fmt.Fprintf(out, "not taken: it would be tried again: %s\n", err)
	}
	return errReported
}

// incoming is a body as an event that came in at a source, signed with the source's first secret.
func incoming(body []byte, source ingress.SourceConfig, catalogue *ncs.Catalogue) (*relay.Event, error) {
	n, err := catalogue.Parse(body)
	if err != nil {
		return nil, err
	}
	secret := source.Resolved[0].Reveal()
	return &relay.Event{
		ID: n.Identify(source.Name).ID, Info: n.Info, Source: source.Name, Entity: n.Entity, ReceivedAt: time.Now(),
		ContentType: "application/json", SignatureV1: ncs.SignV1(secret, body), SignatureV2: ncs.SignV2(secret, body), Body: body,
	}, nil
}

// trialBody is the body to try a sink or a receiver with: that of a file, or else a fresh sample.
func trialBody(cmd *cobra.Command, catalogue *ncs.Catalogue, file, sample string) ([]byte, error) {
	if file != "" {
		return readFileOrStdin(cmd, file)
	}
	s, err := findSample(catalogue, sample)
	if err != nil {
		return nil, err
	}
	return s.Fresh(time.Now()), nil
}

// findSample takes the name of an event type, or of a sample as events show prints it.
func findSample(catalogue *ncs.Catalogue, name string) (ncs.Sample, error) {
	all := ncs.Samples()
	if i := slices.IndexFunc(all, func(s ncs.Sample) bool { return s.Name == name }); i >= 0 {
		return all[i], nil
	}
	types, err := namedTypes(catalogue, name)
	switch {
	case err != nil:
		return ncs.Sample{}, err
	case len(types) > 1:
		return ncs.Sample{}, usagef("%s is an event of several products; write %s.%s", name, types[0].Product, types[0].Event)
	}
	s, ok := types[0].Sample()
	if !ok {
		return ncs.Sample{}, usagef("the payload of %s.%s is not published, so there is no sample; --body FILE sends one of yours", types[0].Product, types[0].Event)
	}
	return s, nil
}
