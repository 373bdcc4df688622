package kafkasink

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn"
)

// Of what a broker says we may do with a topic (org.apache.kafka.common.acl.AclOperation).
const (
	mayWrite        = 1 << 4
	rightsNotStated = -1 << 31 // also by old brokers; none at all (0) says as little: who sees a topic may at least describe it
)

// Connect opens connections as Send does and says what would fail there for the given topics. It neither writes nor creates
// anything.
func (s *Sink) Connect(ctx context.Context, topics []string) []error {
	ctx, cancel := context.WithTimeout(ctx, kafkaconn.RequestTimeout)
	defer cancel()
	response, err := kafkaconn.Answer[*metadata.Response](s.cluster.Ask(ctx, &metadata.Request{TopicNames: topics, IncludeTopicAuthorizedOperations: true}))
	if err != nil {
		return []error{kafkaconn.Explain(err)}
	}
	var problems []error
	slices.SortFunc(response.Topics, func(a, b metadata.ResponseTopic) int { return strings.Compare(a.Name, b.Name) })
	for _, t := range response.Topics {
		if err := s.topicProblem(t); err != nil {
			problems = append(problems, kafkaconn.Explain(err))
		}
	}
	problems = append(problems, s.cluster.TrySeeds(ctx)...)
	return append(problems, s.cluster.TryLeaders(ctx, response)...)
}

func (s *Sink) topicProblem(t metadata.ResponseTopic) error {
	code := kafka.Error(t.ErrorCode)
	switch {
	case code == kafka.UnknownTopicOrPartition && s.createTopics != nil:
		return nil
	case code == kafka.UnknownTopicOrPartition:
		return relay.Because(relay.ReasonBroker, fmt.Errorf("topic %s does not exist on the cluster; create it, or use create_topics", t.Name))
	case code != 0:
		return fmt.Errorf("topic %s: %w", t.Name, code)
	case t.TopicAuthorizedOperations != rightsNotStated && t.TopicAuthorizedOperations != 0 && t.TopicAuthorizedOperations&mayWrite == 0:
		return fmt.Errorf("topic %s: %w", t.Name, kafka.TopicAuthorizationFailed)
	}
	leaderless := 0
	for _, p := range t.Partitions {
		if p.LeaderID < 0 {
			leaderless++
		}
	}
	if leaderless > 0 {
		return fmt.Errorf("topic %s: %d of %d partitions have no leader: %w", t.Name, leaderless, len(t.Partitions), kafka.LeaderNotAvailable)
	}
	return nil
}
