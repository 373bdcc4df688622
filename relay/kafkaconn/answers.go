package kafkaconn

import (
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/describegroups"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
)

const (
	small  = 64 << 10
	medium = 1 << 20
)

// answers are the answers we read, with the greatest size they can have. A request that is not among them is not sent.
var answers = map[protocol.ApiKey]struct {
	empty func() protocol.Message
	most  int // bytes
}{
	protocol.ApiVersions:      {func() protocol.Message { return new(apiversions.Response) }, small}, // some 90 of 6 bytes
	protocol.SaslHandshake:    {func() protocol.Message { return new(saslhandshake.Response) }, small},
	protocol.SaslAuthenticate: {func() protocol.Message { return new(saslauthenticate.Response) }, small},
	protocol.InitProducerId:   {func() protocol.Message { return new(initproducerid.Response) }, small},
	protocol.FindCoordinator:  {func() protocol.Message { return new(findcoordinator.Response) }, small},
	protocol.Heartbeat:        {func() protocol.Message { return new(HeartbeatResponse) }, small},
	protocol.LeaveGroup:       {func() protocol.Message { return new(leavegroup.Response) }, small},
	protocol.ListOffsets:      {func() protocol.Message { return new(listoffsets.Response) }, medium},
	protocol.OffsetCommit:     {func() protocol.Message { return new(offsetcommit.Response) }, medium},
	protocol.OffsetFetch:      {func() protocol.Message { return new(offsetfetch.Response) }, medium},
	protocol.CreateTopics:     {func() protocol.Message { return new(createtopics.Response) }, medium},
	protocol.DescribeConfigs:  {func() protocol.Message { return new(describeconfigs.Response) }, medium},
	protocol.SyncGroup:        {func() protocol.Message { return new(syncgroup.Response) }, medium},
	protocol.JoinGroup:        {func() protocol.Message { return new(joingroup.Response) }, 4 * medium}, // what all members say of themselves
	protocol.DescribeGroups:   {func() protocol.Message { return new(describegroups.Response) }, 4 * medium},
	protocol.Produce:          {func() protocol.Message { return new(produce.Response) }, 4 * medium}, // it may name up to 10,000 records
	protocol.Metadata:         {func() protocol.Message { return new(metadata.Response) }, medium},    // brokers, and as much for each topic
	protocol.Fetch:            {func() protocol.Message { return new(FetchResponse) }, small},         // besides the records
}

// mostOf is the greatest size that the answer to a request can have.
func mostOf(request protocol.Message) int {
	most := answers[request.ApiKey()].most
	switch r := request.(type) {
	case *metadataRequest:
		most += medium * min(len(r.Topics), 256) // as below
	case *metadata.Request:
		most += medium * min(len(r.TopicNames), 256) // a topic of 10,000 partitions with 5 replicas each has 660,000 bytes
	case *fetch.Request:
		most += int(r.MaxBytes)
	}
	return most
}

// FetchResponse is the answer to a fetch.Request. Other than kafka-go's it leaves the records as they came: batches of
// Kafka's format 2, perhaps compressed, the last perhaps cut off. A broker answers with one batch even if it is larger than
// the request's MaxBytes, so that must not be smaller than the largest batch of the topic.
type FetchResponse struct {
	ThrottleTimeMs int32        `kafka:"min=v1,max=v11"`
	ErrorCode      int16        `kafka:"min=v7,max=v11"`
	SessionID      int32        `kafka:"min=v7,max=v11"`
	Topics         []FetchTopic `kafka:"min=v0,max=v11"`
}

// FetchTopic are the partitions of one topic.
type FetchTopic struct {
	Topic      string           `kafka:"min=v0,max=v11"`
	Partitions []FetchPartition `kafka:"min=v0,max=v11"`
}

// FetchPartition is what was read of one partition.
type FetchPartition struct {
	Partition            int32              `kafka:"min=v0,max=v11"`
	ErrorCode            int16              `kafka:"min=v0,max=v11"`
	HighWatermark        int64              `kafka:"min=v0,max=v11"`
	LastStableOffset     int64              `kafka:"min=v4,max=v11"`
	LogStartOffset       int64              `kafka:"min=v5,max=v11"`
	AbortedTransactions  []FetchTransaction `kafka:"min=v4,max=v11"`
	PreferredReadReplica int32              `kafka:"min=v11,max=v11"`
	Records              []byte             `kafka:"min=v0,max=v11"`
}

// FetchTransaction is a transaction that was aborted.
type FetchTransaction struct {
	ProducerID  int64 `kafka:"min=v4,max=v11"`
	FirstOffset int64 `kafka:"min=v4,max=v11"`
}

// ApiKey names the request that is answered.
func (*FetchResponse) ApiKey() protocol.ApiKey { return protocol.Fetch }

// HeartbeatResponse is the answer to a heartbeat.Request. Other than kafka-go's it has its fields in the order in which brokers
// send them, so the error is not taken for the time to wait.
type HeartbeatResponse struct {
	_ struct{} `kafka:"min=v4,max=v4,tag"`

	ThrottleTimeMs int32 `kafka:"min=v1,max=v4"`
	ErrorCode      int16 `kafka:"min=v0,max=v4"`
}

// ApiKey names the request that is answered.
func (*HeartbeatResponse) ApiKey() protocol.ApiKey { return protocol.Heartbeat }
