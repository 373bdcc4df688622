package member

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn/kafkatest"
)

func TestRealKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three brokers")
	}
	t.Parallel()
	kafka := kafkatest.Start(t, kafkatest.Options{Brokers: 3, Config: map[string]string{
		"broker.session.timeout.ms":    "6000", // as `check --connect` advises
		"group.min.session.timeout.ms": "1000",
	}})
	kafka.CreateTopic(t, topic, 24, nil)
	t.Run("contract", func(t *testing.T) { contract(t, kafka.Addresses(), true) })
	t.Run("coordinator", func(t *testing.T) {
		for name, fail := range map[string]func(*testing.T, *kafkatest.Cluster, int){
			"killed":  func(t *testing.T, c *kafkatest.Cluster, id int) { c.Kill(t, id) },
			"stopped": func(t *testing.T, c *kafkatest.Cluster, id int) { c.Stop(t, id) },
			"paused":  func(t *testing.T, c *kafkatest.Cluster, id int) { c.Pause(t, id) },
		} {
			t.Run(name, func(t *testing.T) {
				f := newFleet(t, kafka.Addresses(), "coordinator "+name, 10*time.Second)
				coordinatorFails(t, f, kafka, fail)
				if name == "paused" {
					kafka.Resume(t, lastFailed)
				} else {
					kafka.Run(t, lastFailed)
				}
				kafka.AwaitAll(t)
				kafka.AwaitInSync(t, "__consumer_offsets")
			})
		}
	})
}

var lastFailed int

// No shard moves, and no lease ends.
func coordinatorFails(t *testing.T, f *fleet, kafka *kafkatest.Cluster, fail func(*testing.T, *kafkatest.Cluster, int)) {
	replicas := []*relayReplica{f.start("a"), f.start("b"), f.start("c")}
	f.awaitShares(t, replicas...)
	had := make(map[string][]int32)
	for _, r := range replicas {
		had[r.Name] = owned(r.Member)
	}
	lastFailed = kafka.Leader(t, "__consumer_offsets", 0)
	began := time.Now()
	fail(t, kafka, lastFailed)
	kafka.AwaitLeaderOtherThan(t, "__consumer_offsets", lastFailed)
	elected := time.Since(began)
	for _, r := range replicas { // the lease is renewed by the new coordinator
		await(t, "a heartbeat is answered", func() bool { return r.Lease() > 9*time.Second })
	}
	t.Log("elected after", elected, "renewed after", time.Since(began))
	for _, r := range replicas {
		require.Equal(t, had[r.Name], owned(r.Member))
		require.Zero(t, f.books.gap(t, r.Start, began), "%s had no lease for a while", r.Name)
	}
}
