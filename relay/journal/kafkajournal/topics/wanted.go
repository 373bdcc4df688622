package topics

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options say what the topics of a journal must be.
type Options struct {
	Brokers     []string // for commands that are suggested
	Prefix      string
	Shards      int // partitions; 0 = any number, the same for all
	Replication int // of topics that are made
	Retention   time.Duration
	MaxBody     int64 // the largest body of any source
	Unsafe      bool  // replicas do not count
}

const (
	kib = 1 << 10
	mib = 1 << 20

	usualMessage = mib + 12 // Kafka's default of max.message.bytes, below which no topic is made

	safeReplicas = 3
	safeInSync   = 2

	tombstonesKept = 30 * 24 * time.Hour // a broker that was away longer must be wiped: it would bring back what they removed
)

// InboxBytes, EventsBytes and DeadBytes are what the largest record of a topic may take: its body, and what the journal adds.
func (o Options) InboxBytes() int64  { return o.MaxBody + 64*kib }
func (o Options) EventsBytes() int64 { return o.InboxBytes() + 4*kib }
func (o Options) DeadBytes() int64   { return o.EventsBytes() + 128*kib }

// verdict is how bad a value is.
type verdict int

const (
	good verdict = iota
	odd          // it works, and somebody should know
	bad          // something would be lost
)

// setting is one that a topic must have.
type setting struct {
	name  string
	value string // that topics are made with
	judge func(found string) verdict
	why   string // what another value does
}

// layout is what one topic must be.
type layout struct {
	topic    string
	sharded  bool // it has a partition for each shard, otherwise one
	settings []setting
}

// layouts lists what all topics must be.
func (o Options) layouts() []layout {
	n := NamesOf(o.Prefix)
	common := []setting{
		exactly("message.timestamp.type", "LogAppendTime", "the time of a record would be what a replica's clock says"),
		exactly("unclean.leader.election.enable", "false", "a broker that lacks the last records could become the leader, and they would be lost"),
	}
	if !o.Unsafe {
		common = append(common, atLeast("min.insync.replicas", safeInSync, bad, "200 would mean that one broker has the event"))
	} else {
		common = append(common, setting{name: "min.insync.replicas", value: strconv.Itoa(min(safeInSync, max(1, o.Replication-1))), judge: func(string) verdict { return good }})
	}
	deleted := func(bytes int64) []setting {
		return []setting{
			exactly("cleanup.policy", "delete", "records without a key are refused where the policy is compact"),
			o.retention(),
			exactly("retention.bytes", "-1", "what is owed could be deleted before its time"),
			atLeast("max.message.bytes", max(usualMessage, bytes), bad, "a notification of the largest max_body would be refused"),
		}
	}
	compacted := []setting{
		exactly("cleanup.policy", "compact", "what is still needed would be deleted by its age"),
		atLeast("delete.retention.ms", tombstonesKept.Milliseconds(), odd, "a broker that was away longer brings back what was removed"),
	}
	quick := []setting{ // an idle partition is never compacted, and a long one takes long to be taken over
		atMost("segment.bytes", 16*mib, "the topic is compacted later, and a shard is taken over more slowly"),
		atMost("segment.ms", (10 * time.Minute).Milliseconds(), "the topic is compacted later, and a shard is taken over more slowly"),
		{"min.cleanable.dirty.ratio", "0.1", ratioAtMost(0.1), "the topic is compacted later, and a shard is taken over more slowly"},
	}
	dead := atLeast("max.message.bytes", max(usualMessage, o.DeadBytes()), bad, "a dead letter with the largest body would be refused, and kept without it")
	return []layout{
		{n.Inbox, true, slices.Concat(common, deleted(o.InboxBytes()))},
		{n.Events, true, slices.Concat(common, deleted(o.EventsBytes()))},
		{n.State, true, slices.Concat(common, compacted, quick)},
		{n.Dead, true, slices.Concat(common, compacted, []setting{dead})},
		{n.Control, false, slices.Concat(common, compacted, quick)},
	}
}

func exactly(name, value, why string) setting {
	return setting{name, value, func(found string) verdict {
		if strings.EqualFold(found, value) {
			return good
		}
		return bad
	}, why}
}

// numbered judges a number; what is none is bad.
func numbered(judge func(int64) verdict) func(string) verdict {
	return func(found string) verdict {
		n, err := strconv.ParseInt(found, 10, 64)
		if err != nil {
			return bad
		}
		return judge(n)
	}
}

func atLeast(name string, least int64, otherwise verdict, why string) setting {
	return setting{name, strconv.FormatInt(least, 10), numbered(func(n int64) verdict {
		if n >= least || n == -1 {
			return good
		}
		return otherwise
	}), why}
}

func atMost(name string, most int64, why string) setting {
	return setting{name, strconv.FormatInt(most, 10), numbered(func(n int64) verdict {
		if n <= most {
			return good
		}
		return odd
	}), why}
}

func ratioAtMost(most float64) func(string) verdict {
	return func(found string) verdict {
		if n, err := strconv.ParseFloat(found, 64); err != nil || n > most {
			return odd
		}
		return good
	}
}

// retention must be what is configured: less loses what is owed, and more is kept for nobody.
func (o Options) retention() setting {
	want := o.Retention.Milliseconds()
	return setting{"retention.ms", strconv.FormatInt(want, 10), numbered(func(n int64) verdict {
		switch {
		case n == want:
			return good
		case n == -1 || n > want:
			return odd
		}
		return bad
	}), "it is not journal.retention: less loses what is owed, more takes room"}
}

// configs are those that a topic is made with.
func (l layout) configs() map[string]string {
	configs := make(map[string]string, len(l.settings))
	for _, s := range l.settings {
		configs[s.name] = s.value
	}
	return configs
}

// createCommand is what makes the topic with Kafka's own tool.
func (o Options) createCommand(l layout) string {
	partitions, replication := 1, max(o.Replication, 1)
	if l.sharded {
		partitions = max(o.Shards, 1)
	}
	if !o.Unsafe {
		replication = max(replication, safeReplicas)
	}
	configs := l.configs()
	line := fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d --replication-factor %d", o.bootstrap(), l.topic, partitions, replication)
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		line += " --config " + name + "=" + configs[name]
	}
	return line
}

// alterCommand is what gives the topic a setting.
func (o Options) alterCommand(topic string, s setting) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s=%s", o.bootstrap(), topic, s.name, s.value)
}

func (o Options) bootstrap() string { return strings.Join(o.Brokers, ",") }
