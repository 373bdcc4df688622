package kafkasink

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/batch"
)

// checkLanes compares the topic's partitions as its lanes were told with those the cluster has now.
func (s *Sink) checkLanes(ctx context.Context, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaconn.RequestTimeout)
	defer cancel()
	began := time.Now()
	found, err := s.partitions(ctx, topic)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		_ = s.cluster.Look(ctx, began)
		found, err = s.partitions(ctx, topic)
	}
	if errors.Is(err, kafka.UnknownTopicOrPartition) && s.createTopics != nil {
		if err := s.createTopic(ctx, topic); err != nil {
			return err
		}
		found, err = s.createdPartitions(ctx, topic)
	}
	if err != nil {
		return err
	}
	if s.setFound(topic, found) {
		return nil
	}
	s.learnLimit(ctx, topic, 0)
	return relay.ErrRelane
}

// setFound notes how many partitions the topic has and reports whether its lanes are up to date.
func (s *Sink) setFound(topic string, found int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[topic]
	if t.laned == found {
		return true
	}
	t.found = found
	s.topics[topic] = t
	return false
}

// partitions tells how many partitions the topic has: at least one, or an error.
func (s *Sink) partitions(ctx context.Context, topic string) (int, error) {
	found, err := s.cluster.Topic(ctx, topic)
	switch {
	case err != nil:
		return 0, err
	case found.Err == kafka.UnknownTopicOrPartition:
		return 0, fmt.Errorf("topic %s does not exist on the cluster: %w", topic, found.Err)
	case found.Err != 0:
		return 0, fmt.Errorf("topic %s: %w", topic, found.Err)
	case len(found.Leaders) == 0:
		return 0, fmt.Errorf("topic %s has no partitions: %w", topic, kafka.LeaderNotAvailable)
	}
	return len(found.Leaders), nil
}

// createdPartitions waits until the brokers know a topic that was just created.
func (s *Sink) createdPartitions(ctx context.Context, topic string) (int, error) {
	for {
		_ = s.cluster.Look(ctx, time.Now())
		found, err := s.partitions(ctx, topic)
		if err == nil || !kafkaconn.Pause(ctx, batch.ElectionPause) {
			return found, err
		}
	}
}

// createTopic creates a topic that does not exist.
func (s *Sink) createTopic(ctx context.Context, topic string) error {
	wanted := kafka.TopicConfig{
		Topic:             topic,
		NumPartitions:     brokersChoice(s.createTopics.Partitions),
		ReplicationFactor: brokersChoice(s.createTopics.Replication),
	}
	for name, value := range s.createTopics.Configs {
		wanted.ConfigEntries = append(wanted.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	response, err := s.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{wanted}})
	if err == nil {
		err = response.Errors[topic]
	}
	switch {
	case errors.Is(err, kafka.TopicAlreadyExists): // another relay was faster
		return nil
	case err != nil:
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	s.log.Info("Kafka topic created", "topic", topic)
	return nil
}

// brokersChoice is -1, the cluster's default, where nothing is configured.
func brokersChoice(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

// limit is how many bytes a request to the topic may have; 0 = unknown. It only keeps requests from being refused and
// halved: what a topic takes is for its broker to say, which may have changed its mind.
func (s *Sink) limit(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.topics[topic].limit
}

// learnLimit asks for the topic's max.message.bytes. A request of refused bytes was too large; 0 = none was. Where we may
// not ask, half of it is the next guess, and 0 is what it answers.
func (s *Sink) learnLimit(ctx context.Context, topic string, refused int) int {
	limit, err := s.maxMessageBytes(ctx, topic)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[topic]
	if t.limit = limit; err != nil {
		t.limit = refused / 2
	}
	s.topics[topic] = t
	return limit
}

func (s *Sink) maxMessageBytes(ctx context.Context, topic string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaconn.RequestTimeout)
	defer cancel()
	const name = "max.message.bytes"
	response, err := s.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name}},
	}})
	switch {
	case err != nil:
		return 0, err
	case len(response.Resources) != 1 || len(response.Resources[0].ConfigEntries) != 1:
		return 0, errors.New("unexpected response to a request for the topic's configuration")
	case response.Resources[0].Error != nil:
		return 0, response.Resources[0].Error
	}
	return strconv.Atoi(response.Resources[0].ConfigEntries[0].ConfigValue)
}
