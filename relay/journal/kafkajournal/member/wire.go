package member

import (
	"encoding/json"
	"fmt"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/consumer"

	"ncs-relay/relay/kafkaconn"
)

// What members tell each other is in the form of Kafka's consumers, so that Kafka's own tools show who has what; what only relays
// understand is in the user data, as JSON. Members that do not know a field skip it. A change that they must understand gets another
// name of the protocol.
const (
	protocolType = "consumer"
	protocolName = "ncs-relay-1"
	wireVersion  = 1 // of Kafka's subscriptions and assignments
)

// hello is the user data of a member.
type hello struct {
	Admin   string `json:"admin,omitempty"`
	Start   string `json:"start"`
	Version string `json:"version,omitempty"`
	Format  int    `json:"format,omitempty"`
	claim
}

func encodeHello(topic string, h hello) ([]byte, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return protocol.Marshal(wireVersion, consumer.Subscription{Version: wireVersion, Topics: []string{topic}, UserData: data,
		OwnedPartitions: []consumer.TopicPartition{{Topic: topic, Partitions: h.Owned}}})
}

func decodeHello(name string, metadata []byte) (h hello, err error) {
	var subscription consumer.Subscription
	if err = kafkaconn.Unmarshal(metadata, wireVersion, &subscription); err == nil {
		err = json.Unmarshal(subscription.UserData, &h)
	}
	if err != nil {
		err = fmt.Errorf("what replica %s says of itself cannot be read: %w", name, err)
	}
	h.name, h.start = name, h.Start
	return h, err
}

func encodeTable(topic, name string, t table) ([]byte, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return protocol.Marshal(wireVersion, consumer.Assignment{Version: wireVersion, UserData: data,
		AssignedPartitions: []consumer.TopicPartition{{Topic: topic, Partitions: t.Owners[name]}}})
}

// decodeTable reads what a member was assigned. The coordinator gives nothing at all to a member that the leader did not know of;
// that is a table of generation 0.
func decodeTable(assignment []byte) (t table, err error) {
	if len(assignment) == 0 {
		return table{}, nil
	}
	var a consumer.Assignment
	if err = kafkaconn.Unmarshal(assignment, wireVersion, &a); err == nil {
		err = json.Unmarshal(a.UserData, &t)
	}
	if err != nil {
		return table{}, fmt.Errorf("what the group's leader has assigned cannot be read: %w", err)
	}
	return t, nil
}
