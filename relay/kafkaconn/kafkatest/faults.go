package kafkatest

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Restart kills the first broker without warning and starts it again with its data.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.Kill(t, 1)
	c.Run(t, 1)
	c.AwaitAll(t)
}

// Stop asks the broker, counted from 1, to end, which moves its leaderships away, and returns when it has ended.
func (c *Cluster) Stop(t testing.TB, id int) {
	t.Helper()
	b := c.brokers[id-1]
	if err := terminate(b.cmd.Process); err != nil {
		t.Fatalf("stop broker %d: %v", id, err)
	}
	select {
	case <-b.ended:
	case <-time.After(toolTimeout):
		t.Fatalf("broker %d does not stop", id)
	}
}

// Kill ends the broker without warning.
func (c *Cluster) Kill(t testing.TB, id int) {
	t.Helper()
	c.brokers[id-1].kill()
}

// Pause stops the broker's process without ending it: its connections stay open, and nothing is answered.
func (c *Cluster) Pause(t testing.TB, id int) {
	t.Helper()
	if err := pause(c.brokers[id-1].cmd.Process); err != nil {
		t.Fatalf("pause broker %d: %v", id, err)
	}
}

// Resume lets a paused broker go on.
func (c *Cluster) Resume(t testing.TB, id int) {
	t.Helper()
	if err := resume(c.brokers[id-1].cmd.Process); err != nil {
		t.Fatalf("resume broker %d: %v", id, err)
	}
}

// Run starts a broker that was stopped or killed, with its data. It does not wait until the broker is up.
func (c *Cluster) Run(t testing.TB, id int) {
	t.Helper()
	if err := c.run(c.brokers[id-1]); err != nil {
		t.Fatalf("run broker %d: %v", id, err)
	}
}

// AwaitAll returns when every broker is in the cluster.
func (c *Cluster) AwaitAll(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := c.wait(ctx); err != nil {
		t.Fatalf("wait for brokers: %v\n%s", err, c.logs())
	}
}

// AwaitInSync returns when every partition of the topic has as many replicas in sync as there are brokers.
func (c *Cluster) AwaitInSync(t testing.TB, topic string) {
	t.Helper()
	c.await(t, "replicas in sync", topic, c.inSync, c.admin)
}

// InSync reports whether every partition of the topic has as many replicas in sync as there are brokers.
func (c *Cluster) InSync(t testing.TB, topic string) bool {
	t.Helper()
	return c.every(t, topic, c.inSync, c.admin)
}

func (c *Cluster) inSync(p kmsg.MetadataResponseTopicPartition) bool {
	return p.Leader >= 0 && len(p.ISR) == len(c.brokers)
}

// AwaitLeaderOtherThan returns when no partition of the topic is led by the broker.
func (c *Cluster) AwaitLeaderOtherThan(t testing.TB, topic string, id int) {
	t.Helper()
	c.await(t, "another leader", topic, func(p kmsg.MetadataResponseTopicPartition) bool {
		return p.Leader >= 0 && p.Leader != int32(id)
	}, c.admin.Broker(id%len(c.brokers)+1))
}

func (c *Cluster) await(t testing.TB, what, topic string, ok func(kmsg.MetadataResponseTopicPartition) bool, asked kmsg.Requestor) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for !c.every(t, topic, ok, asked) {
		if time.Now().After(deadline) {
			t.Fatalf("topic %s: no %s", topic, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *Cluster) every(t testing.TB, topic string, ok func(kmsg.MetadataResponseTopicPartition) bool, asked kmsg.Requestor) bool {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // the broker that is asked may be paused
	defer cancel()
	response, err := metadataRequest(topic).RequestWith(ctx, asked)
	if err != nil || response.Topics[0].ErrorCode != 0 {
		return false
	}
	for _, p := range response.Topics[0].Partitions {
		if !ok(p) {
			return false
		}
	}
	return true
}

// Leader is the broker, counted from 1, that leads the partition.
func (c *Cluster) Leader(t testing.TB, topic string, partition int) int {
	t.Helper()
	response, err := metadataRequest(topic).RequestWith(t.Context(), c.admin)
	if err != nil {
		t.Fatalf("leader of %s/%d: %v", topic, partition, err)
	}
	for _, p := range response.Topics[0].Partitions {
		if p.Partition == int32(partition) {
			return int(p.Leader)
		}
	}
	t.Fatalf("topic %s has no partition %d", topic, partition)
	return 0
}

// Controller is the broker, counted from 1, that decides who leads what.
func (c *Cluster) Controller(t testing.TB) int {
	t.Helper()
	request := kmsg.NewPtrDescribeQuorumRequest()
	partition := kmsg.NewDescribeQuorumRequestTopicPartition()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic, topic.Partitions = "__cluster_metadata", append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(t.Context(), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(response.ErrorCode)
	}
	if err != nil || len(response.Topics) == 0 {
		t.Fatalf("active controller: %v", err)
	}
	return int(response.Topics[0].Partitions[0].LeaderID)
}

// Leads is the number of the topic's partitions that the broker leads.
func (c *Cluster) Leads(t testing.TB, topic string, id int) (count int) {
	t.Helper()
	for partition := range c.partitions(t, topic) {
		if c.Leader(t, topic, partition) == id {
			count++
		}
	}
	return count
}

// ElectPreferred gives the leadership of the topic's partitions back to the brokers that had it at first.
func (c *Cluster) ElectPreferred(t testing.TB, topic string) {
	t.Helper()
	asked := kmsg.NewElectLeadersRequestTopic()
	asked.Topic = topic
	for partition := range c.partitions(t, topic) {
		asked.Partitions = append(asked.Partitions, int32(partition))
	}
	request := kmsg.NewPtrElectLeadersRequest()
	request.Topics = []kmsg.ElectLeadersRequestTopic{asked}
	preferred := func(p kmsg.MetadataResponseTopicPartition) bool { return p.Leader == p.Replicas[0] }
	for deadline := time.Now().Add(startTimeout); !c.every(t, topic, preferred, c.admin); {
		response, err := request.RequestWith(t.Context(), c.admin) // again, because a broker that has just come back may be passed over
		if time.Now().After(deadline) {
			t.Fatalf("topic %s: not led by the preferred replicas: %+v, %v", topic, response, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
