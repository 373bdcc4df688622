package topics

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"

	"ncs-relay/relay/kafkaconn"
)

const (
	topicResource  = 2
	brokerResource = 4

	// leaderPause is the time between two looks whether a topic that was made has its leaders.
	leaderPause = 200 * time.Millisecond

	// sessionAdvice is broker.session.timeout.ms: while a broker that died is waited for, nothing can be appended to what it
	// has, and an answer must come within 8 s. Where brokers are controllers too, the one that dies may be the active controller: another
	// is elected first, and then waits for the session anew.
	sessionAdvice           = 6000
	sessionAdviceController = 4000
)

// Describe asks the cluster what it knows of the topics with a prefix. Topics that do not exist are left out.
func Describe(ctx context.Context, c *kafkaconn.Cluster, prefix string) (Found, error) {
	found, err := describe(ctx, c, prefix)
	if err != nil {
		return nil, err
	}
	return found, addSettings(ctx, c, found)
}

// describe is Describe without settings.
func describe(ctx context.Context, c *kafkaconn.Cluster, prefix string) (Found, error) {
	names := NamesOf(prefix).All()
	described, err := c.Describe(ctx, names)
	if err != nil {
		return nil, kafkaconn.Explain(err)
	}
	found := make(Found, len(names))
	slices.SortFunc(described, func(a, b kafkaconn.Described) int { return slices.Index(names, a.Name) - slices.Index(names, b.Name) })
	var problems []error
	for _, d := range described {
		switch {
		case isUnknown(d.Err):
		case d.Err != 0 && d.Err != kafka.LeaderNotAvailable:
			problems = append(problems, kafkaconn.Explain(fmt.Errorf("topic %s: %w", d.Name, d.Err)))
		default:
			found[d.Name] = topicOf(d)
		}
	}
	return found, errors.Join(problems...)
}

// addSettings adds the settings of the topics, where we may see them.
func addSettings(ctx context.Context, c *kafkaconn.Cluster, found Found) error {
	request := &describeconfigs.Request{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		request.Resources = append(request.Resources, describeconfigs.RequestResource{ResourceType: topicResource, ResourceName: name})
	}
	if len(request.Resources) == 0 {
		return nil
	}
	response, err := kafkaconn.Answer[*describeconfigs.Response](c.Ask(ctx, request))
	if err != nil {
		return kafkaconn.Explain(fmt.Errorf("ask for the settings of topics: %w", err))
	}
	for _, r := range response.Resources {
		topic, known := found[r.ResourceName]
		switch code := kafka.Error(r.ErrorCode); {
		case !known || code == kafka.TopicAuthorizationFailed || code == kafka.ClusterAuthorizationFailed:
			continue
		case code != 0:
			return kafkaconn.Explain(fmt.Errorf("ask for the settings of topic %s: %w", r.ResourceName, code))
		}
		topic.Settings = make(map[string]string, len(r.ConfigEntries))
		for _, e := range r.ConfigEntries {
			topic.Settings[e.ConfigName] = e.ConfigValue
		}
		found[r.ResourceName] = topic
	}
	return nil
}

// Create makes the topics that are missing, and returns when they have leaders. Those that another replica has made
// meanwhile are not in made.
func (o Options) Create(ctx context.Context, c *kafkaconn.Cluster, found Found) (made []string, err error) {
	missing := found.Missing(o.Prefix)
	request := &createtopics.Request{TimeoutMs: int32((kafkaconn.RequestTimeout / 2).Milliseconds())}
	for _, l := range o.layouts() {
		if slices.Contains(missing, l.topic) {
			request.Topics = append(request.Topics, o.creation(l))
		}
	}
	if len(request.Topics) == 0 {
		return nil, nil
	}
	_ = c.Look(ctx, time.Now()) // for the controller
	response, err := c.RoundTrip(ctx, nil, request)
	if err != nil {
		return nil, kafkaconn.Explain(fmt.Errorf("create topics: %w", err))
	}
	answer, ok := response.(*createtopics.Response)
	if !ok {
		return nil, fmt.Errorf("create topics: unexpected response %T", response)
	}
	var problems []error
	for _, t := range answer.Topics {
		switch code := kafka.Error(t.ErrorCode); code {
		case 0:
			made = append(made, t.Name)
		case kafka.TopicAlreadyExists:
		default:
			problems = append(problems, o.creationProblem(t, code))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return made, err
	}
	return made, o.await(ctx, c)
}

func (o Options) creationProblem(t createtopics.ResponseTopic, code kafka.Error) error {
	err := fmt.Errorf("create topic %s: %w", t.Name, code)
	if t.ErrorMessage != "" {
		err = fmt.Errorf("%w: %s", err, t.ErrorMessage)
	}
	switch code {
	case kafka.InvalidReplicationFactor:
		err = fmt.Errorf("%w (journal.kafka.create_topics.replication is %d; use as many brokers, or with unsafe: true fewer replicas)", err, o.Replication)
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed:
		err = fmt.Errorf("%w (let an administrator type what ncs-relay cluster check suggests)", err)
	}
	return kafkaconn.Explain(err)
}

func (o Options) creation(l layout) createtopics.RequestTopic {
	topic := createtopics.RequestTopic{Name: l.topic, NumPartitions: 1, ReplicationFactor: int16(o.Replication)}
	if l.sharded {
		topic.NumPartitions = int32(o.Shards)
	}
	configs := l.configs()
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		topic.Configs = append(topic.Configs, createtopics.RequestConfig{Name: name, Value: configs[name]})
	}
	return topic
}

// await returns when all topics are there and have leaders.
func (o Options) await(ctx context.Context, c *kafkaconn.Cluster) error {
	for {
		found, err := Describe(ctx, c, o.Prefix)
		if err == nil && len(found.Missing(o.Prefix)) == 0 && !slices.ContainsFunc(slices.Collect(maps.Values(found)), func(t Topic) bool { return t.Leaderless > 0 }) {
			return nil
		}
		if !kafkaconn.Pause(ctx, leaderPause) {
			return errors.Join(errors.New("the topics that were made have no leaders yet"), err)
		}
	}
}

// Advice says which brokers are noticed too late when they die. Those that do not tell are left out.
func Advice(ctx context.Context, c *kafkaconn.Cluster) (problems []Problem) {
	const session, roles = "broker.session.timeout.ms", "process.roles"
	type lateness struct{ ms, most int64 }
	slow := make(map[lateness][]string) // brokers
	for id, address := range c.Brokers() {
		response, err := kafkaconn.Answer[*describeconfigs.Response](c.To(ctx, address, &describeconfigs.Request{Resources: []describeconfigs.RequestResource{
			{ResourceType: brokerResource, ResourceName: strconv.Itoa(int(id)), ConfigNames: []string{session, roles}}}}))
		if err != nil || len(response.Resources) != 1 {
			continue
		}
		l := lateness{most: sessionAdvice}
		for _, e := range response.Resources[0].ConfigEntries {
			switch {
			case e.ConfigName == session:
				l.ms, _ = strconv.ParseInt(e.ConfigValue, 10, 64)
			case e.ConfigName == roles && strings.Contains(e.ConfigValue, "controller"):
				l.most = sessionAdviceController
			}
		}
		if l.ms > l.most {
			host, _, _ := net.SplitHostPort(address)
			slow[l] = append(slow[l], fmt.Sprintf("%d (%s)", id, host))
		}
	}
	for l, brokers := range slow {
		slices.Sort(brokers)
		p := Problem{Setting: session, Found: fmt.Sprintf("is %d at broker %s", l.ms, strings.Join(brokers, ", ")), Wanted: strconv.FormatInt(l.most, 10),
			Why: "when a broker dies, notifications for what it has are answered 503 for as long", Hint: "set it in each broker's server.properties"}
		if l.most == sessionAdviceController {
			p.Why = "when a broker dies that is the active controller, its successor waits for as long once more, and notifications are answered 503"
			p.Hint += ", and broker.heartbeat.interval.ms to 1000"
		}
		problems = append(problems, p)
	}
	slices.SortFunc(problems, func(a, b Problem) int { return strings.Compare(a.Found, b.Found) })
	return problems
}
