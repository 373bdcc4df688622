package kafkaconn

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// TopicID is what a cluster calls a topic: one that is deleted and made again under the same name gets another.
type TopicID [16]byte

// Described is what a cluster says of a topic.
type Described struct {
	Name       string
	Err        kafka.Error // 0 = none; kafka.UnknownTopicOrPartition = there is no such topic
	ID         TopicID     // zero = the cluster gives none
	Partitions []DescribedPartition
}

// DescribedPartition is what a cluster says of a partition.
type DescribedPartition struct {
	Partition, Leader int32   // a negative leader = none
	Replicas, InSync  []int32 // brokers
}

// Describe returns what the cluster says of the topics, with their ids, in no order.
func (c *Cluster) Describe(ctx context.Context, names []string) ([]Described, error) {
	request := &metadataRequest{}
	for i := range names {
		request.Topics = append(request.Topics, metadataTopic{Name: names[i]})
	}
	response, err := Answer[*metadataResponse](c.Ask(ctx, request))
	if err != nil {
		return nil, fmt.Errorf("ask the cluster for topics: %w", err)
	}
	all := make([]Described, 0, len(response.Topics))
	for _, t := range response.Topics {
		described := Described{Name: t.Name, Err: kafka.Error(t.ErrorCode)}
		binary.BigEndian.PutUint64(described.ID[:], uint64(t.IDHigh))
		binary.BigEndian.PutUint64(described.ID[8:], uint64(t.IDLow))
		for _, p := range t.Partitions {
			described.Partitions = append(described.Partitions, DescribedPartition{p.PartitionIndex, p.LeaderID, p.ReplicaNodes, p.IsrNodes})
		}
		all = append(all, described)
	}
	return all, nil
}

// own is a request of which we know one version, which kafka-go does not.
type own interface {
	protocol.Message
	protocol.OverrideTypeMessage
	version() int16
	empty() protocol.Message // its answer
}

// metadataVersion is the first that tells ids. Brokers know it since Kafka 2.8.
const metadataVersion = 10

func init() {
	request := new(metadataRequest)
	protocol.RegisterOverride(request, new(metadataResponse), request.TypeKey())
}

type metadataRequest struct {
	_                                  struct{}        `kafka:"min=v10,max=v10,tag"`
	Topics                             []metadataTopic `kafka:"min=v10,max=v10"`
	AllowAutoTopicCreation             bool            `kafka:"min=v10,max=v10"`
	IncludeClusterAuthorizedOperations bool            `kafka:"min=v10,max=v10"`
	IncludeTopicAuthorizedOperations   bool            `kafka:"min=v10,max=v10"`
}

type metadataTopic struct {
	_      struct{} `kafka:"min=v10,max=v10,tag"`
	IDHigh int64    `kafka:"min=v10,max=v10"` // zero: it is the name that counts
	IDLow  int64    `kafka:"min=v10,max=v10"`
	Name   string   `kafka:"min=v10,max=v10"`
}

func (*metadataRequest) ApiKey() protocol.ApiKey           { return protocol.Metadata }
func (*metadataRequest) TypeKey() protocol.OverrideTypeKey { return 1 }
func (*metadataRequest) version() int16                    { return metadataVersion }
func (*metadataRequest) empty() protocol.Message           { return new(metadataResponse) }

type metadataResponse struct {
	_                           struct{}          `kafka:"min=v10,max=v10,tag"`
	ThrottleTimeMs              int32             `kafka:"min=v10,max=v10"`
	Brokers                     []describedBroker `kafka:"min=v10,max=v10"`
	ClusterID                   string            `kafka:"min=v10,max=v10,nullable"`
	ControllerID                int32             `kafka:"min=v10,max=v10"`
	Topics                      []describedTopic  `kafka:"min=v10,max=v10"`
	ClusterAuthorizedOperations int32             `kafka:"min=v10,max=v10"`
}

type describedBroker struct {
	_      struct{} `kafka:"min=v10,max=v10,tag"`
	NodeID int32    `kafka:"min=v10,max=v10"`
	Host   string   `kafka:"min=v10,max=v10"`
	Port   int32    `kafka:"min=v10,max=v10"`
	Rack   string   `kafka:"min=v10,max=v10,nullable"`
}

type describedTopic struct {
	_                         struct{}             `kafka:"min=v10,max=v10,tag"`
	ErrorCode                 int16                `kafka:"min=v10,max=v10"`
	Name                      string               `kafka:"min=v10,max=v10"`
	IDHigh                    int64                `kafka:"min=v10,max=v10"`
	IDLow                     int64                `kafka:"min=v10,max=v10"`
	IsInternal                bool                 `kafka:"min=v10,max=v10"`
	Partitions                []describedPartition `kafka:"min=v10,max=v10"`
	TopicAuthorizedOperations int32                `kafka:"min=v10,max=v10"`
}

type describedPartition struct {
	_               struct{} `kafka:"min=v10,max=v10,tag"`
	ErrorCode       int16    `kafka:"min=v10,max=v10"`
	PartitionIndex  int32    `kafka:"min=v10,max=v10"`
	LeaderID        int32    `kafka:"min=v10,max=v10"`
	LeaderEpoch     int32    `kafka:"min=v10,max=v10"`
	ReplicaNodes    []int32  `kafka:"min=v10,max=v10"`
	IsrNodes        []int32  `kafka:"min=v10,max=v10"`
	OfflineReplicas []int32  `kafka:"min=v10,max=v10"`
}

func (*metadataResponse) ApiKey() protocol.ApiKey { return protocol.Metadata }
