package kafkatest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreateTopic creates a topic and returns when every broker knows the leaders of its partitions.
func (c *Cluster) CreateTopic(t testing.TB, name string, partitions int, config map[string]string) {
	t.Helper()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, int32(partitions), -1
	for key, value := range config {
		entry := kmsg.NewCreateTopicsRequestTopicConfig()
		entry.Name, entry.Value = key, &value
		topic.Configs = append(topic.Configs, entry)
	}
	request := kmsg.NewPtrCreateTopicsRequest()
	request.Topics = []kmsg.CreateTopicsRequestTopic{topic}
	response, err := request.RequestWith(t.Context(), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	c.waitForLeaders(t, name, partitions)
}

// AddPartitions raises the topic's partitions to count and returns when every broker knows their leaders.
func (c *Cluster) AddPartitions(t testing.TB, name string, count int) {
	t.Helper()
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = name, int32(count)
	request := kmsg.NewPtrCreatePartitionsRequest()
	request.Topics = []kmsg.CreatePartitionsRequestTopic{topic}
	response, err := request.RequestWith(t.Context(), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("add partitions to topic %s: %v", name, err)
	}
	c.waitForLeaders(t, name, count)
}

func (c *Cluster) waitForLeaders(t testing.TB, name string, partitions int) {
	t.Helper()
	deadline := time.Now().Add(toolTimeout)
	for _, b := range c.brokers {
		for !c.leadersKnown(t, b, name, partitions) {
			if time.Now().After(deadline) {
				t.Fatalf("topic %s: no leaders of %d partitions on broker %d", name, partitions, b.id)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func (c *Cluster) leadersKnown(t testing.TB, b *broker, name string, partitions int) bool {
	response, err := c.admin.Broker(b.id).RetriableRequest(t.Context(), metadataRequest(name))
	if err != nil {
		return false
	}
	found := response.(*kmsg.MetadataResponse).Topics[0]
	return len(found.Partitions) == partitions && !slices.ContainsFunc(found.Partitions,
		func(p kmsg.MetadataResponseTopicPartition) bool { return p.Leader < 0 || p.ErrorCode != 0 })
}

func (c *Cluster) partitions(t testing.TB, name string) int {
	t.Helper()
	response, err := metadataRequest(name).RequestWith(t.Context(), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("partitions of topic %s: %v", name, err)
	}
	return len(response.Topics[0].Partitions)
}

func metadataRequest(name string) *kmsg.MetadataRequest {
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &name
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{topic}
	return request
}

// Count tells how many records the topic has.
func (c *Cluster) Count(t testing.TB, name string) int {
	t.Helper()
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = name
	for partition := range c.partitions(t, name) {
		end := kmsg.NewListOffsetsRequestTopicPartition()
		end.Partition, end.Timestamp = int32(partition), -1
		asked.Partitions = append(asked.Partitions, end)
	}
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID, request.Topics = -1, []kmsg.ListOffsetsRequestTopic{asked}
	total := 0
	for _, shard := range c.admin.RequestSharded(t.Context(), request) {
		if shard.Err != nil {
			t.Fatalf("count the records of topic %s: %v", name, shard.Err)
		}
		for _, partition := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				t.Fatalf("count the records of topic %s: %v", name, err)
			}
			total += int(partition.Offset)
		}
	}
	return total
}

// Read reads all records of a topic with franz-go. Each partition's are in its order.
func (c *Cluster) Read(t testing.TB, topic string) []*kgo.Record {
	t.Helper()
	total := c.Count(t, topic)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()...), kgo.DisableFetchSessions(), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatalf("read topic %s: %v", topic, err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), toolTimeout)
	defer cancel()
	records := make([]*kgo.Record, 0, total)
	for len(records) < total {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read topic %s: %d of %d records: %v", topic, len(records), total, fetches.Err())
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// AllowWrite lets the user write the topic; this gives no other right but to see it.
func (c *Cluster) AllowWrite(t testing.TB, user, topic string) {
	t.Helper()
	c.allow(t, user, topic, kmsg.ACLOperationWrite)
}

// AllowDescribe lets the user see the topic.
func (c *Cluster) AllowDescribe(t testing.TB, user, topic string) {
	t.Helper()
	c.allow(t, user, topic, kmsg.ACLOperationDescribe)
}

func (c *Cluster) allow(t testing.TB, user, topic string, operation kmsg.ACLOperation) {
	t.Helper()
	c.Allow(t, user, kmsg.ACLResourceTypeTopic, topic, operation)
}

// Allow lets the user do something with what is called so.
func (c *Cluster) Allow(t testing.TB, user string, kind kmsg.ACLResourceType, name string, operation kmsg.ACLOperation) {
	t.Helper()
	rule := kmsg.NewCreateACLsRequestCreation()
	rule.ResourceType, rule.ResourceName, rule.ResourcePatternType = kind, name, kmsg.ACLResourcePatternTypeLiteral
	rule.Principal, rule.Host, rule.Operation, rule.PermissionType = "User:"+user, "*", operation, kmsg.ACLPermissionTypeAllow
	request := kmsg.NewPtrCreateACLsRequest()
	request.Creations = []kmsg.CreateACLsRequestCreation{rule}
	response, err := request.RequestWith(t.Context(), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(response.Results[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("allow user %s to use %s: %v", user, name, err)
	}
}

// DeleteTopic deletes a topic and returns when no broker knows it.
func (c *Cluster) DeleteTopic(t testing.TB, name string) {
	t.Helper()
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TopicNames, request.Topics = []string{name}, []kmsg.DeleteTopicsRequestTopic{topic}
	response, err := request.RequestWith(t.Context(), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("delete topic %s: %v", name, err)
	}
	deadline := time.Now().Add(toolTimeout)
	for _, b := range c.brokers {
		for {
			response, err := c.admin.Broker(b.id).RetriableRequest(t.Context(), metadataRequest(name))
			if err == nil && response.(*kmsg.MetadataResponse).Topics[0].ErrorCode == kerr.UnknownTopicOrPartition.Code {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("topic %s is still there", name)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// Configure sets a dynamic setting of all brokers until the end of the test.
func (c *Cluster) Configure(t testing.TB, name, value string) {
	t.Helper()
	c.configure(t, name, value, kmsg.IncrementalAlterConfigOpSet)
	t.Cleanup(func() { c.configure(t, name, "", kmsg.IncrementalAlterConfigOpDelete) })
}

func (c *Cluster) configure(t testing.TB, name, value string, op kmsg.IncrementalAlterConfigOp) {
	setting := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	setting.Name, setting.Op, setting.Value = name, op, &value
	all := kmsg.NewIncrementalAlterConfigsRequestResource()
	all.ResourceType, all.Configs = kmsg.ConfigResourceTypeBroker, []kmsg.IncrementalAlterConfigsRequestResourceConfig{setting}
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = []kmsg.IncrementalAlterConfigsRequestResource{all}
	response, err := request.RequestWith(context.Background(), c.admin) // also after the test
	if err == nil {
		err = kerr.ErrorForCode(response.Resources[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("configure %s: %v", name, err)
	}
}

// Producers tells how many producers the leader of the topic's first partition remembers.
func (c *Cluster) Producers(t testing.TB, name string) int {
	t.Helper()
	topic := kmsg.NewDescribeProducersRequestTopic()
	topic.Topic, topic.Partitions = name, []int32{0}
	request := kmsg.NewPtrDescribeProducersRequest()
	request.Topics = []kmsg.DescribeProducersRequestTopic{topic}
	response, err := request.RequestWith(t.Context(), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("producers of topic %s: %v", name, err)
	}
	return len(response.Topics[0].Partitions[0].ActiveProducers)
}
