// Command cluster shows several relays with one journal on Kafka, with nothing else installed: a Kafka-compatible cluster in this
// process, three relays behind a small balancer, and an HTTP service that checks Agora's signature itself. While recordings are
// played, with copies that reach different replicas, one relay is killed and another frozen. At the end the books say what was
// sent, accepted and delivered, and what was delivered twice and why. It exits 0 only if nothing was lost and nothing first
// arrived out of order.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"ncs-relay/examples/internal/process"
	"ncs-relay/relay/simulate"
)

//go:embed relay.yaml
var relayConfig []byte

const (
	secret   = "demo-secret-not-for-production"
	replicas = 3
)

func main() {
	calm := flag.Duration("calm", 8*time.Second, "how long to play before a relay is killed, and between then and the freeze")
	frozen := flag.Duration("frozen", 15*time.Second, "how long a relay is frozen; its lease is 10 s")
	rate := flag.Float64("rate", 150, "calls a second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *calm, *frozen, *rate); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, calm, frozen time.Duration, rate float64) error {
	return process.InTempDir(ctx, "ncs-relay-cluster-", "the logs of the relays are", func(dir string) error {
		return runIn(ctx, dir, calm, frozen, rate)
	})
}

func runIn(ctx context.Context, dir string, calm, frozen time.Duration, rate float64) (err error) {
	brokers, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	defer brokers.Close()
	kafka := strings.Join(brokers.ListenAddrs(), ",")
	books := newBooks()
	receiver, err := startReceiver(books)
	if err != nil {
		return fmt.Errorf("start the receiver: %w", err)
	}
	defer receiver.Close()

	fmt.Println("building ncs-relay ...")
	binary, err := process.Build(ctx, dir)
	if err != nil {
		return err
	}
	var relays []*process.Relay
	defer func() {
		for _, r := range relays {
			err = errors.Join(err, r.Thaw(), r.Stop())
		}
	}()
	for i := range replicas {
		name := replicaName(i)
		r, err := process.Start(ctx, binary, dir, name, relayConfig,
			"NCS_SECRET="+secret, "DEMO_KAFKA="+kafka, "DEMO_RECEIVER="+receiver.Addr, "DEMO_REPLICA="+name)
		if err != nil {
			return err
		}
		relays = append(relays, r)
	}
	front, err := startBalancer(ctx, relays, books)
	if err != nil {
		return fmt.Errorf("start the balancer: %w", err)
	}
	defer front.Close()
	owners, err := waitShared(ctx, relays[2], replicas)
	if err != nil {
		return err
	}
	fmt.Printf("Kafka     %s\nreplicas  %s\nbalancer  http://%s\nreceiver  http://%s\n\n", kafka, owners, front.Addr, receiver.Addr)

	tally, err := play(ctx, "http://"+front.Addr+"/ncs/recording", rate, books, func(ctx context.Context) error {
		return disturb(ctx, relays, books, owners, calm, frozen)
	})
	if err == nil {
		err = relays[2].Poll(ctx, 90*time.Second, "deliveries are still pending", relays[2].Settled)
	}
	if err != nil {
		return err
	}
	return books.print(os.Stdout, tally)
}

func replicaName(i int) string { return fmt.Sprint("relay-", i+1) }

// disturb kills one relay and freezes another.
func disturb(ctx context.Context, relays []*process.Relay, books *books, owners owners, calm, frozen time.Duration) error {
	if !sleep(ctx, calm) {
		return ctx.Err()
	}
	books.trouble(owners.of(replicaName(0)), "relay-1 was killed")
	if err := relays[0].Kill(); err != nil {
		return err
	}
	fmt.Printf("relay-1 is killed; its shards %v go to the others when its lease ends\n", owners.of(replicaName(0)))
	if !sleep(ctx, calm) {
		return ctx.Err()
	}
	now, err := waitShared(ctx, relays[2], replicas-1)
	if err != nil {
		return err
	}
	sleep(ctx, 2*time.Second) // for what had to wait: what a replica stores is up to 200 ms behind
	books.trouble(now.of(replicaName(1)), "relay-2 was frozen")
	if err := relays[1].Freeze(); err != nil {
		return err
	}
	fmt.Printf("relay-2 is frozen, with shards %v\n", now.of(replicaName(1)))
	sleep(ctx, frozen)
	if err := relays[1].Thaw(); err != nil {
		return err
	}
	fmt.Println("relay-2 goes on, and finds that it has no shards any more")
	if !sleep(ctx, calm) {
		return ctx.Err()
	}
	_, err = waitShared(ctx, relays[2], replicas-1)
	return err
}

// play plays recordings, again and again, until what happens meanwhile is over.
func play(ctx context.Context, url string, rate float64, books *books, meanwhile func(context.Context) error) (all simulate.Tally, err error) {
	playing, over := context.WithCancelCause(ctx)
	go func() { over(meanwhile(playing)) }()
	for {
		tally, err := simulate.Run(ctx, simulate.Config{
			URL: url, Secret: secret, Recordings: 20, Rate: rate, Concurrency: 20, Seed: rand.Int64(),
			CopyRate: 0.2, ResendRate: 0.1, BadSignatureRate: 0.03, Timeout: 9 * time.Second, RetryInterval: 500 * time.Millisecond,
			OnAnswer: books.answered,
		}, nil)
		if err != nil {
			return all, err
		}
		add(&all, tally)
		if playing.Err() != nil {
			if cause := context.Cause(playing); !errors.Is(cause, context.Canceled) {
				return all, cause
			}
			return all, nil
		}
	}
}

func add(all *simulate.Tally, t simulate.Tally) {
	all.Entities, all.Events, all.Calls = all.Entities+t.Entities, all.Events+t.Events, all.Calls+t.Calls
	all.Copies, all.Resends, all.Retries, all.Forged = all.Copies+t.Copies, all.Resends+t.Resends, all.Retries+t.Retries, all.Forged+t.Forged
	all.Unacknowledged, all.Elapsed = all.Unacknowledged+t.Unacknowledged, all.Elapsed+t.Elapsed
	all.Latency.Max = max(all.Latency.Max, t.Latency.Max)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
