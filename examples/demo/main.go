// Command demo shows the relay at work with nothing else installed: it builds and starts the real binary with
// relay.yaml, a Kafka-compatible broker in this process and an HTTP service that checks Agora's signature itself,
// plays some hundred recordings with copies, resends and bad signatures, and then holds what arrived against what was
// accepted. It exits 0 only if every event arrived at every sink exactly once, in order per recording, byte for byte.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"ncs-relay/examples/internal/process"
	"ncs-relay/relay/simulate"
)

//go:embed relay.yaml
var relayConfig []byte

const secret = "demo-secret-not-for-production"

func main() {
	recordings := flag.Int("recordings", 300, "recordings to play")
	keep := flag.Bool("keep", false, "leave everything running at the end, for a look around")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *recordings, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, recordings int, keep bool) error {
	return process.InTempDir(ctx, "ncs-relay-demo-", "data and the relay's log are", func(dir string) error {
		return runIn(ctx, dir, recordings, keep)
	})
}

func runIn(ctx context.Context, dir string, recordings int, keep bool) (err error) {
	broker, err := startBroker()
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	defer broker.Close()
	service, err := startService()
	if err != nil {
		return fmt.Errorf("start the HTTP service: %w", err)
	}
	defer service.Close()

	fmt.Println("building ncs-relay ...")
	relay, err := startRelay(ctx, dir, broker.Addr(), service.Addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relay.Stop()) }()
	url := "http://" + relay.Listen + "/ncs/recording"
	fmt.Printf("relay     %s (admin %s)\nKafka     %s\nreceiver  http://%s\n\n", url, relay.Admin, broker.Addr(), service.Addr)

	books := newBooks()
	progress, done := showProgress(os.Stdout, service, filepath.Join(dir, "archive/events.jsonl"))
	tally, err := simulate.Run(ctx, simulate.Config{
		URL: url, Secret: secret, Recordings: recordings,
		CopyRate: 0.15, ResendRate: 0.15, ShuffleRate: 0.05, BadSignatureRate: 0.05, FailoverRate: 0.05,
		OnAccepted: books.accepted,
	}, progress)
	if err == nil {
		err = relay.Poll(ctx, 60*time.Second, "deliveries are still pending", relay.Settled)
	}
	done()
	if err != nil {
		return err
	}

	arrived, err := collect(ctx, broker, service, filepath.Join(dir, "archive/events.jsonl"))
	if err != nil {
		return err
	}
	faults := books.check(arrived)
	if err := printResult(os.Stdout, tally, arrived, service); err != nil {
		return err
	}
	faults = append(faults, tallyFaults(tally, books)...)
	for _, f := range faults {
		fmt.Println("FAULT:", f)
	}
	if len(faults) == 0 {
		fmt.Println("Every event arrived exactly once at each of its sinks, in order per recording, byte for byte.")
	}
	if keep {
		lookAround(dir, url, relay.Admin, broker)
		<-ctx.Done()
	}
	if len(faults) > 0 {
		return fmt.Errorf("%d faults", len(faults))
	}
	return nil
}

func lookAround(dir, url, admin string, b *broker) {
	fmt.Printf(`
Everything is left running; Ctrl-C ends it.
  curl %s/metrics
  curl %s/api/v1/status
  kcat -b %s -C -t ncs.cloud_recording.recorder -f '%%k %%h\n' -e
  tail %s/archive/events.jsonl
  %s simulate --url %s --secret %s --recordings 20
`, admin, admin, b.Addr(), dir, filepath.Join(dir, "ncs-relay"), url, secret)
}
