package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay"
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
	var file, event, source string
	cmd := &cobra.Command{
		Use:   "test NAME",
		Short: "Send one made-up event through a configured sink and show the exchange",
		Long: `test sends one made-up event through a sink of the configuration, as serve would, and prints what was sent and
answered, secrets masked. The event is signed with a source's secret, so that receivers verify it, and marked as a test: header
Ncs-Relay-Test (HTTP), ncs-test (Kafka), member test (file). Nothing is tried twice, and no running relay is asked or needed.
It fails if the event was not taken.`,
		Args: rangeArgs(1, 1, "the name of one sink"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, report := config.Load(file, os.LookupEnv)
			if report.Err() != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), report)
				return errReported
			}
			return testSink(cmd, cfg, args[0], source, event)
		},
	}
	addConfigFlag(cmd, &file)
	cmd.Flags().StringVar(&event, "event", "cloud_recording.uploaded", "the event to send, as ncs-relay events lists them")
	cmd.Flags().StringVar(&source, "source", "", "sign with the first secret of this source (default: the first source)")
	return cmd
}

func testSink(cmd *cobra.Command, cfg *config.Config, name, sourceName, event string) error {
	i := slices.IndexFunc(cfg.Sinks, func(c sinks.Config) bool { return c.Name == name })
	if i < 0 {
		return usagef("the configuration has no sink %q", name)
	}
	source := cfg.Sources[0]
	if j := slices.IndexFunc(cfg.Sources, func(c relay.SourceConfig) bool { return c.Name == sourceName }); j >= 0 {
		source = cfg.Sources[j]
	} else if sourceName != "" {
		return usagef("the configuration has no source %q", sourceName)
	}
	sample, err := sampleEvent(event, source)
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(cfg.Log, cmd.ErrOrStderr(), isTerminal(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	sink, err := sinks.New(cfg.Sinks[i], sinks.Options{UserAgent: "ncs-relay/" + buildVersion(), Logger: log})
	if err != nil {
		return fmt.Errorf("sink %s: %w", name, err)
	}
	defer sink.Close()

	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "event %s.%s %s, entity %q, to sink %s\n", sample.Info.Product, sample.Info.Event, sample.ID, sample.Entity, name)
	ctx, cancel := context.WithTimeout(cmd.Context(), trialTime)
	defer cancel()
	err = sinks.Try(ctx, sink, relay.Attempt{Event: sample, Number: 1, Test: true}, out)
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

// sampleEvent makes up an event as it comes in at a source. Its ids are new each time.
func sampleEvent(name string, source relay.SourceConfig) (*relay.Event, error) {
	selector, err := ncs.ParseEvent(nil, name)
	if err != nil {
		return nil, usagef("--event: %v", err)
	}
	types := slices.DeleteFunc(ncs.Catalogue(), func(i ncs.Info) bool { return !selector.Matches(i) })
	switch len(types) {
	case 0:
		return nil, usagef("--event: %s is not in the catalogue; see ncs-relay events", name)
	case 1:
	default:
		return nil, usagef("--event: %s is an event of several products; write %s.%s", name, types[0].Product, types[0].Event)
	}
	now := time.Now()
	body := sampleBody(types[0], now)
	n, err := ncs.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("BUG: the sample is no notification: %w", err)
	}
	secret := source.Resolved[0].Reveal()
	return &relay.Event{
		ID: n.Identify(source.Name).ID, Info: n.Info, Source: source.Name, Entity: n.Entity, ReceivedAt: now,
		ContentType: "application/json", SignatureV1: ncs.SignV1(secret, body), SignatureV2: ncs.SignV2(secret, body), Body: body,
	}, nil
}

// sampleBody has the ids by which the events of any product are identified, ordered and found; the rest of a payload
// is left out.
func sampleBody(i ncs.Info, now time.Time) []byte {
	id := strings.ToLower(rand.Text())
	ms := now.UnixMilli()
	return fmt.Appendf(nil, `{"noticeId":"test-%[1]s","notifyMs":%[2]d,"eventType":%[3]d,"sid":"test-%[1]s","payload":{"cname":"ncs-relay-test",`+
		`"channelName":"ncs-relay-test","uid":"1001","serviceType":0,"sequence":1,"sendts":%[2]d,"sid":"test-%[1]s","taskId":"test-%[1]s",`+
		`"agent_id":"test-%[1]s","ts":%[4]d,"details":{"msgName":"%[5]s"}},"productId":%[6]d}`,
		id, ms, i.EventType, now.Unix(), i.Event, i.ProductID)
}
