package topics

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay/kafkaconn"
)

// Problem is something that is not as it must be.
type Problem struct {
	Topic   string // "" = it is about none
	Setting string // as Kafka calls it; "" = none
	Found   string
	Wanted  string
	Why     string // what comes of it
	Hint    string // what to type
	Fatal   bool   // a relay does not take notifications then; otherwise it says so

	Upgradable bool // ncs-relay cluster upgrade can end it; a relay that runs goes on with it
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Topic != "" {
		fmt.Fprintf(&b, "topic %s: ", p.Topic)
	}
	if p.Setting != "" {
		b.WriteString(p.Setting + " ")
	}
	b.WriteString(p.Found)
	if p.Wanted != "" {
		b.WriteString(", must be " + p.Wanted)
	}
	if p.Why != "" {
		b.WriteString(": " + p.Why)
	}
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Found is what a cluster says of the journal's topics.
type Found map[string]Topic

// Topic is what a cluster says of one topic. The zero value is one that does not exist.
type Topic struct {
	ID         kafkaconn.TopicID
	Partitions int
	Leaderless int // partitions without a leader
	Replicas   int // of the partition that has fewest
	Settings   map[string]string
}

// Shards is how many partitions the first sharded topic that exists has; 0 = none exists.
func (f Found) Shards(prefix string) int {
	for _, name := range NamesOf(prefix).All()[:4] {
		if n := f[name].Partitions; n > 0 {
			return n
		}
	}
	return 0
}

// Missing returns the topics that do not exist.
func (f Found) Missing(prefix string) (names []string) {
	for _, name := range NamesOf(prefix).All() {
		if f[name].Partitions == 0 {
			names = append(names, name)
		}
	}
	return names
}

// Check compares what was found with what must be, and returns all that differs, topic by topic.
func (o Options) Check(found Found) (problems []Problem) {
	shards := o.Shards
	if shards == 0 {
		shards = found.Shards(o.Prefix)
		o.Shards = shards
	}
	for _, l := range o.layouts() {
		topic := found[l.topic]
		if topic.Partitions == 0 {
			problems = append(problems, Problem{Topic: l.topic, Found: "does not exist", Fatal: true,
				Hint: "ncs-relay cluster init makes it, where journal.kafka.create_topics is given; or " + o.createCommand(l)})
			continue
		}
		want := 1
		if l.sharded {
			want = shards
		}
		if topic.Partitions != want {
			problems = append(problems, Problem{Topic: l.topic, Found: fmt.Sprintf("has %d partitions", topic.Partitions), Wanted: strconv.Itoa(want), Fatal: true,
				Why:  "what belongs together would be in two of them",
				Hint: "the number never changes: choose another journal.kafka.prefix, or create_topics.shards as it is"})
		}
		if topic.Partitions > mostShards {
			problems = append(problems, Problem{Topic: l.topic, Found: fmt.Sprintf("has %d partitions", topic.Partitions), Wanted: fmt.Sprintf("%d or fewer", mostShards), Fatal: true,
				Why: "one replica may have to follow all of them", Hint: "choose another journal.kafka.prefix, with fewer"})
		}
		problems = append(problems, o.checkReplicas(l.topic, topic)...)
		problems = append(problems, o.checkSettings(l, topic)...)
	}
	return problems
}

func (o Options) checkReplicas(name string, topic Topic) (problems []Problem) {
	if topic.Leaderless > 0 {
		problems = append(problems, Problem{Topic: name, Found: fmt.Sprintf("has %d partitions without a leader", topic.Leaderless), Hint: "start the brokers that have them"})
	}
	if o.Unsafe {
		return problems
	}
	if topic.Replicas < safeReplicas {
		problems = append(problems, Problem{Topic: name, Found: fmt.Sprintf("has %d replicas", topic.Replicas), Wanted: "3 or more", Fatal: true,
			Why:  "two brokers must have each record, also while one is away",
			Hint: "give it more with kafka-reassign-partitions.sh; journal.kafka.unsafe: true is for tests"})
	}
	if topic.Settings["min.insync.replicas"] == strconv.Itoa(topic.Replicas) && topic.Replicas >= safeReplicas {
		problems = append(problems, Problem{Topic: name, Setting: "min.insync.replicas", Found: fmt.Sprintf("is %d of %d replicas", topic.Replicas, topic.Replicas),
			Why: "notifications are answered 503 while any broker is away", Hint: o.alterCommand(name, atLeast("min.insync.replicas", safeInSync, bad, ""))})
	}
	return problems
}

func (o Options) checkSettings(l layout, topic Topic) (problems []Problem) {
	for _, s := range l.settings {
		found, told := topic.Settings[s.name]
		if !told {
			if topic.Settings != nil {
				continue // this broker does not know it
			}
			return append(problems, Problem{Topic: l.topic, Found: "does not tell its settings", Hint: "allow this user to DescribeConfigs of the topic"})
		}
		if v := s.judge(found); v != good {
			problems = append(problems, Problem{Topic: l.topic, Setting: s.name, Found: "is " + found, Wanted: s.value, Why: s.why,
				Hint: o.alterCommand(l.topic, s), Fatal: v == bad})
		}
	}
	return problems
}

// Fatal returns the problems with which a relay does not take notifications.
func Fatal(problems []Problem) (fatal []Problem) {
	for _, p := range problems {
		if p.Fatal {
			fatal = append(fatal, p)
		}
	}
	return fatal
}

func topicOf(d kafkaconn.Described) Topic {
	t := Topic{ID: d.ID, Partitions: len(d.Partitions)}
	for _, p := range d.Partitions {
		if p.Leader < 0 {
			t.Leaderless++
		}
		if t.Replicas == 0 || len(p.Replicas) < t.Replicas {
			t.Replicas = len(p.Replicas)
		}
	}
	return t
}

func isUnknown(err kafka.Error) bool { return err == kafka.UnknownTopicOrPartition }
