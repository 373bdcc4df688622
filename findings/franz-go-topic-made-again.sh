#!/usr/bin/env bash
# franz-go 1.22.2: a consumer whose topic is deleted and made again never reads the new one, and asks for it without a pause.
#
# Guess before it was run: franz-go knows topics by their ids; it notices the new one and starts where its reset offset says.
# Seen: each PollFetches returns at once with UNKNOWN_TOPIC_ID, hundreds of times a second, for as long as it runs. The member stays
# in its group, so nothing looks wrong from outside but the lag. It is meant so: the topic must be purged and added again, or the
# client made anew. Against Apache Kafka 4.4.0 it is the same; there librdkafka 2.16.1 and Kafka's own client go on with the new
# topic from its start. A loop that logs each error and polls again fills a disk: end on this error and be started again.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.26.0

require (
	github.com/twmb/franz-go v1.22.2
	github.com/twmb/franz-go/pkg/kfake v0.0.0-20260918054303-01f206a7e32c
	github.com/twmb/franz-go/pkg/kmsg v1.15.0
)
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const topic = "events"

func main() {
	fmt.Println("as it is:", afterwards(false))
	fmt.Println("purged and added after an error:", afterwards(true))
}

// afterwards says what a consumer makes of 10 s during which its topic is another one.
func afterwards(purge bool) string {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	check(err)
	defer cluster.Close()
	produce(cluster, 5)
	consumer := client(cluster, kgo.ConsumerGroup("g"), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer consumer.Close()
	for read := 0; read < 5; {
		read += consumer.PollFetches(context.Background()).NumRecords()
	}
	makeAgain(cluster)
	produce(cluster, 8)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	read, refused := 0, 0
	for read < 8 && ctx.Err() == nil {
		fetches := consumer.PollFetches(ctx)
		read += fetches.NumRecords()
		refused += len(fetches.Errors())
		if purge && errors.Is(fetches.Err(), kerr.UnknownTopicID) {
			consumer.PurgeTopicsFromClient(topic)
			consumer.AddConsumeTopics(topic)
			purge = false
		}
	}
	if read < 8 {
		return fmt.Sprintf("%d records, more than 100 errors: %t", read, refused > 100)
	}
	return fmt.Sprintf("%d records", read)
}

func client(cluster *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(cluster.ListenAddrs()...))...)
	check(err)
	return c
}

func produce(cluster *kfake.Cluster, n int) {
	producer := client(cluster, kgo.DefaultProduceTopic(topic))
	defer producer.Close()
	for range n {
		check(producer.ProduceSync(context.Background(), kgo.StringRecord("x")).FirstErr())
	}
}

func makeAgain(cluster *kfake.Cluster) {
	admin := client(cluster)
	defer admin.Close()
	name, ctx := topic, context.Background()
	old := kmsg.NewPtrDeleteTopicsRequest()
	old.TopicNames, old.Topics = []string{name}, []kmsg.DeleteTopicsRequestTopic{{Topic: &name}}
	_, err := old.RequestWith(ctx, admin)
	check(err)
	asked := kmsg.NewPtrCreateTopicsRequest()
	asked.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: name, NumPartitions: 1, ReplicationFactor: 1}}
	answer, err := asked.RequestWith(ctx, admin)
	check(err)
	if answer.Topics[0].ErrorCode != 0 {
		panic(answer.Topics[0].ErrorCode)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log >&2; exit 1; }
seen=$(go run .)
printf '%s\n' "$seen"
[ "$seen" = "as it is: 0 records, more than 100 errors: true
purged and added after an error: 8 records" ] || { echo "franz-go behaves otherwise now" >&2; exit 1; }
