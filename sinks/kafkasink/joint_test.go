package kafkasink_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay"
	"ncs-relay/sinks/kafkasink"
)

// sendToAll sends one batch to each partition but one at the same time, and returns how long each took.
func sendToAll(t *testing.T, sink *kafkasink.Sink, group string, partitions, but, round int) []time.Duration {
	t.Helper()
	took := make([]time.Duration, partitions)
	var sending sync.WaitGroup
	for partition := range partitions {
		if partition == but {
			continue
		}
		sending.Go(func() {
			began := time.Now()
			send(t, sink, relay.Lane{Group: group, Key: strconv.Itoa(partition)}, attempts("e", fmt.Sprintf("%d of %d", round, partition)))
			took[partition] = time.Since(began)
		})
	}
	sending.Wait()
	return took
}

const nobody = -1

// produces counts the requests that the cluster gets, and calls before for each.
func produces(cluster *kfake.Cluster, before func(*kmsg.ProduceRequest)) *atomic.Int64 {
	count := new(atomic.Int64)
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		count.Add(1)
		cluster.SleepControl(func() { before(r.(*kmsg.ProduceRequest)) })
		return nil, nil, false
	})
	return count
}

func TestPartitionsOfABrokerShareRequests(t *testing.T) {
	t.Parallel()
	const partitions, rounds = 16, 10
	cluster := fake(t, partitions, kfake.NumBrokers(1))
	sink := newSink(t, cluster.ListenAddrs())
	group := learn(t, sink, attempts("e", "x")).Group
	sendToAll(t, sink, group, partitions, nobody, 0) // each learns its id
	count := produces(cluster, func(*kmsg.ProduceRequest) { time.Sleep(20 * time.Millisecond) })
	for round := range rounds {
		sendToAll(t, sink, group, partitions, nobody, round+1)
	}
	require.LessOrEqual(t, count.Load(), int64(partitions*rounds/3), "some wait while others are under way, and go together")
	records := read(t, cluster, partitions*(rounds+1))
	next := make(map[int32]int)
	for _, r := range records {
		require.Equal(t, fmt.Sprintf("%d of %d", next[r.Partition], r.Partition), string(r.Value))
		next[r.Partition]++
	}
}

// A partition that waits for its replicas holds up those that share its request for a moment, and once.
func TestASlowPartitionHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	const partitions, slow = 8, 3
	cluster := fake(t, partitions, kfake.NumBrokers(1))
	sink := newSink(t, cluster.ListenAddrs())
	group := learn(t, sink, attempts("e", "x")).Group
	sendToAll(t, sink, group, partitions, nobody, 0)
	produces(cluster, func(r *kmsg.ProduceRequest) {
		for _, p := range r.Topics[0].Partitions {
			if p.Partition == slow {
				time.Sleep(500 * time.Millisecond)
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	var sent atomic.Int64
	sending.Go(func() {
		for round := 1; ctx.Err() == nil; round++ {
			sent.Store(int64(round))
			send(t, sink, relay.Lane{Group: group, Key: strconv.Itoa(slow)}, attempts("e", fmt.Sprint("slow ", round)))
		}
	})
	defer sending.Wait()
	defer cancel()
	held := make(map[int]int)
	for round := 0; sent.Load() < 6; round++ {
		for partition, took := range sendToAll(t, sink, group, partitions, slow, round+1) {
			if took > 200*time.Millisecond {
				held[partition]++
			}
		}
	}
	for partition, times := range held {
		require.LessOrEqual(t, times, 2, "partition %d", partition)
	}
}
