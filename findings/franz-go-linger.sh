#!/usr/bin/env bash
# franz-go 1.22.2: a client that sets no linger sends a lone record of ProduceSync at once, and one of Produce after 10 ms.
#
# Guess before it was run: the default linger of 10 ms holds for both, so a caller who waits for each record gets at most 100 a
# second out of one goroutine either way.
# Seen: ProduceSync ends the linger of the partitions that it wrote. Only Produce, whose callback is waited for, lingers. A service
# that is changed from one to the other to "save a goroutine" answers each of its callers 10 ms later.
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
)
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		panic(err)
	}
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic("t"))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	ctx := context.Background()
	fastest := func(produce func() error) time.Duration {
		best := time.Hour
		for range 50 {
			began := time.Now()
			if err := produce(); err != nil {
				panic(err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	synchronous := fastest(func() error { return client.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr() })
	asynchronous := fastest(func() error {
		done := make(chan error, 1)
		client.Produce(ctx, kgo.StringRecord("x"), func(_ *kgo.Record, err error) { done <- err })
		return <-done
	})
	const linger = 9 * time.Millisecond
	fmt.Println("ProduceSync waits for the default linger:", synchronous >= linger)
	fmt.Println("Produce waits for the default linger:", asynchronous >= linger)
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log >&2; exit 1; }
seen=$(go run .)
printf '%s\n' "$seen"
[ "$seen" = "ProduceSync waits for the default linger: false
Produce waits for the default linger: true" ] || { echo "franz-go behaves otherwise now" >&2; exit 1; }
