// Reads what ncs-relay writes to a Kafka topic: verified, each event once, a late one never undoing a later one.
// Settings: BROKERS, TOPIC, GROUP, DATABASE (a file), NCS_SECRETS (one for each Agora product, separated by spaces).
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"consumers/books"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	b, err := books.Open(os.Getenv("DATABASE"))
	check(err)
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(os.Getenv("BROKERS"), ",")...),
		kgo.ConsumerGroup(os.Getenv("GROUP")), kgo.ConsumeTopics(os.Getenv("TOPIC")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())
	check(err)
	defer client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		if ctx.Err() == nil {
			check(fetches.Err()) // what the client cannot mend by itself, such as a topic that was made again
		}
		fetches.EachRecord(func(r *kgo.Record) { check(handle(b, r)) }) // after an error what is not committed comes again
		check(client.CommitUncommittedOffsets(context.Background()))
		client.AllowRebalance() // between a poll and its commit another member would do the same again
	}
}

func handle(b *books.Books, r *kgo.Record) error {
	headers := map[string]string{}
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	sequence, err := books.Sequence(r.Value)
	if err != nil || !books.Signed(r.Value, headers["agora-signature-v2"], os.Getenv("NCS_SECRETS")) {
		log.Println("refused", r.Topic, r.Partition, r.Offset) // waiting mends nothing; it stays in the topic, there
		return nil
	}
	if headers["ncs-test"] != "" { // an operator tries the sink
		return nil
	}
	key := books.Key(headers["ncs-event-id"], headers["ncs-replay"])
	return b.Do(key, string(r.Key), headers["ncs-event"], sequence)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
