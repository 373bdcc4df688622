package topics

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var options = Options{Brokers: []string{"k1:9092", "k2:9092"}, Prefix: "ncs", Shards: 6, Replication: 3, Retention: 7 * 24 * time.Hour, MaxBody: mib}

var mine = Meta{Cluster: "production", Format: Format, Shards: 6, Hash: Hash, Identity: 1, Entity: 1, OnConflict: "deliver", MaxKeys: 1000, Window: "24h0m0s"}

// right is what a cluster says of topics that are as they must be.
func right(o Options) Found {
	found := make(Found)
	for i, l := range o.layouts() {
		topic := Topic{ID: kafkaconn.TopicID{byte(i + 1)}, Partitions: 1, Replicas: 3, Settings: l.configs()}
		if l.sharded {
			topic.Partitions = o.Shards
		}
		found[l.topic] = topic
	}
	return found
}

// with returns what was found with one topic changed.
func with(found Found, name string, change func(*Topic)) Found {
	found = maps.Clone(found)
	topic := found[name]
	topic.Settings = maps.Clone(topic.Settings)
	change(&topic)
	found[name] = topic
	return found
}

func set(name, value string) func(*Topic) { return func(t *Topic) { t.Settings[name] = value } }

func TestTopicsAsTheyMustBeAreNoProblem(t *testing.T) {
	t.Parallel()
	require.Empty(t, options.Check(right(options)))
	any := options
	any.Shards = 0
	require.Empty(t, any.Check(right(options)), "any number, where none is configured")
}

func TestEachDifferenceIsSaidWithWhatToType(t *testing.T) {
	t.Parallel()
	alter := func(topic, setting string) string {
		return "kafka-configs.sh --bootstrap-server k1:9092,k2:9092 --alter --entity-type topics --entity-name " + topic + " --add-config " + setting
	}
	for name, test := range map[string]struct {
		topic  string
		change func(*Topic)
		fatal  bool
		words  []string
	}{
		"missing":             {"ncs.inbox", func(t *Topic) { *t = Topic{} }, true, []string{"topic ncs.inbox: does not exist", "ncs-relay cluster init", "kafka-topics.sh --bootstrap-server k1:9092,k2:9092 --create --topic ncs.inbox --partitions 6 --replication-factor 3", "--config retention.ms=604800000", "--config max.message.bytes=1114112"}},
		"missing control":     {"ncs.control", func(t *Topic) { *t = Topic{} }, true, []string{"--create --topic ncs.control --partitions 1"}},
		"other partitions":    {"ncs.events", func(t *Topic) { t.Partitions = 12 }, true, []string{"topic ncs.events: has 12 partitions, must be 6", "journal.kafka.prefix"}},
		"two of control":      {"ncs.control", func(t *Topic) { t.Partitions = 2 }, true, []string{"topic ncs.control: has 2 partitions, must be 1"}},
		"few replicas":        {"ncs.state", func(t *Topic) { t.Replicas = 2 }, true, []string{"topic ncs.state: has 2 replicas, must be 3 or more", "kafka-reassign-partitions.sh"}},
		"one in sync":         {"ncs.inbox", set("min.insync.replicas", "1"), true, []string{"topic ncs.inbox: min.insync.replicas is 1, must be 2", alter("ncs.inbox", "min.insync.replicas=2")}},
		"all in sync":         {"ncs.inbox", set("min.insync.replicas", "3"), false, []string{"min.insync.replicas is 3 of 3 replicas", "503 while any broker is away"}},
		"compacted inbox":     {"ncs.inbox", set("cleanup.policy", "compact"), true, []string{"topic ncs.inbox: cleanup.policy is compact, must be delete", alter("ncs.inbox", "cleanup.policy=delete")}},
		"state deleted":       {"ncs.state", set("cleanup.policy", "delete"), true, []string{"topic ncs.state: cleanup.policy is delete, must be compact"}},
		"state both":          {"ncs.state", set("cleanup.policy", "compact,delete"), true, []string{"cleanup.policy is compact,delete, must be compact"}},
		"producer's time":     {"ncs.dead", set("message.timestamp.type", "CreateTime"), true, []string{"message.timestamp.type is CreateTime, must be LogAppendTime"}},
		"unclean":             {"ncs.events", set("unclean.leader.election.enable", "true"), true, []string{"unclean.leader.election.enable is true, must be false"}},
		"short retention":     {"ncs.events", set("retention.ms", "604799999"), true, []string{"retention.ms is 604799999, must be 604800000", "journal.retention"}},
		"long retention":      {"ncs.events", set("retention.ms", "604800001"), false, []string{"retention.ms is 604800001"}},
		"endless retention":   {"ncs.inbox", set("retention.ms", "-1"), false, []string{"retention.ms is -1"}},
		"retention of bytes":  {"ncs.inbox", set("retention.bytes", "1000000000"), true, []string{"retention.bytes is 1000000000, must be -1"}},
		"small messages":      {"ncs.inbox", set("max.message.bytes", "1048588"), true, []string{"max.message.bytes is 1048588, must be 1114112", "max_body"}},
		"small events":        {"ncs.events", set("max.message.bytes", "1114112"), true, []string{"must be 1118208"}},
		"small letters":       {"ncs.dead", set("max.message.bytes", "1118208"), true, []string{"must be 1249280"}},
		"short tombstones":    {"ncs.state", set("delete.retention.ms", "86400000"), false, []string{"delete.retention.ms is 86400000, must be 2592000000"}},
		"large segments":      {"ncs.state", set("segment.bytes", "1073741824"), false, []string{"segment.bytes is 1073741824, must be 16777216", "taken over more slowly"}},
		"seldom compacted":    {"ncs.control", set("min.cleanable.dirty.ratio", "0.5"), false, []string{"min.cleanable.dirty.ratio is 0.5, must be 0.1"}},
		"no number":           {"ncs.inbox", set("retention.ms", "x"), true, []string{"retention.ms is x"}},
		"settings not told":   {"ncs.inbox", func(t *Topic) { t.Settings = nil }, false, []string{"topic ncs.inbox: does not tell its settings", "DescribeConfigs"}},
		"without its leaders": {"ncs.inbox", func(t *Topic) { t.Leaderless = 2 }, false, []string{"topic ncs.inbox: has 2 partitions without a leader"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			problems := options.Check(with(right(options), test.topic, test.change))
			require.Len(t, problems, 1)
			require.Equal(t, test.fatal, problems[0].Fatal, problems[0])
			require.Equal(t, test.topic, problems[0].Topic)
			for _, words := range test.words {
				require.Contains(t, problems[0].String(), words)
			}
		})
	}
}

func TestMoreShardsThanAReplicaCanFollowAreSaid(t *testing.T) {
	t.Parallel()
	o := options
	o.Shards = 101
	problems := o.Check(right(o))
	require.Len(t, problems, 4)
	require.Contains(t, problems[0].String(), "topic ncs.inbox: has 101 partitions, must be 100 or fewer")
	require.True(t, problems[0].Fatal)
}

func TestUnsafeIsAboutReplicasOnly(t *testing.T) {
	t.Parallel()
	o := options
	o.Unsafe, o.Replication = true, 1
	one := with(right(options), "ncs.inbox", func(t *Topic) { t.Replicas = 1; t.Settings["min.insync.replicas"] = "1" })
	require.Len(t, options.Check(one), 2)
	require.Empty(t, o.Check(one))
	require.Len(t, o.Check(with(one, "ncs.inbox", set("cleanup.policy", "compact"))), 1)
	require.Len(t, o.Check(with(one, "ncs.inbox", set("unclean.leader.election.enable", "true"))), 1)
	require.Contains(t, o.Check(Found{})[0].Hint, "--replication-factor 1 --config cleanup.policy=delete")
	require.Contains(t, o.Check(Found{})[0].Hint, "min.insync.replicas=1")
}

func TestTheConstantsOfAnotherClusterAreSaid(t *testing.T) {
	t.Parallel()
	s := State{Key: "meta/1", Meta: mine}
	s.Meta.Topics = right(options).IDs("ncs")
	require.Empty(t, s.Check("ncs", mine, right(options)))
	require.Empty(t, State{}.Check("ncs", mine, right(options)), "none yet")
	for name, test := range map[string]struct {
		theirs func(*Meta)
		found  Found
		fatal  bool
		words  []string
	}{
		"cluster":       {func(m *Meta) { m.Cluster = "staging" }, nil, true, []string{`the cluster is "staging", and this replica has "production"`, "journal.kafka.cluster: staging"}},
		"newer format":  {func(m *Meta) { m.Format, m.Hash = 2, "new" }, nil, true, []string{"has format 2, and this version of ncs-relay knows 1", "install the version that the other replicas have"}},
		"older format":  {func(m *Meta) { m.Format = 0 }, nil, false, []string{"the format is 0, and this replica has 1", "ncs-relay cluster upgrade, when all replicas have this version"}},
		"shards":        {func(m *Meta) { m.Shards = 4 }, nil, true, []string{"the number of shards is 4, and this replica has 6", "it never changes"}},
		"hash":          {func(m *Meta) { m.Hash = "crc" }, nil, true, []string{"hash function of shards is crc", "fnv1a64", "it never changes"}},
		"identity":      {func(m *Meta) { m.Identity = 2 }, nil, true, []string{"event's id is 2", "install the version that the other replicas have"}},
		"older entity":  {func(m *Meta) { m.Entity = 0 }, nil, true, []string{"event's entity is 0", "ncs-relay cluster upgrade, with all relays stopped"}},
		"on_conflict":   {func(m *Meta) { m.OnConflict = "drop" }, nil, true, []string{"dedup.on_conflict is drop, and this replica has deliver", "dedup.on_conflict: drop here, or ncs-relay cluster upgrade to have deliver everywhere"}},
		"limits":        {func(m *Meta) { m.MaxKeys = 7 }, nil, false, []string{"dedup.max_keys is 7", "dedup.max_keys: 7 here, or ncs-relay cluster upgrade to have 1000 everywhere"}},
		"another topic": {nil, with(right(options), "ncs.events", func(t *Topic) { t.ID = kafkaconn.TopicID{9} }), true, []string{"topic ncs.events: is not the one that was known, in 6 shards", "ncs-relay cluster confirm"}},
		"another inbox": {nil, with(right(options), "ncs.inbox", func(t *Topic) { t.ID = kafkaconn.TopicID{9} }), true, []string{"topic ncs.inbox: is not the one that was known, in 6 shards", "another journal.kafka.prefix"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := s
			found := right(options)
			if test.found != nil {
				found = test.found
			}
			if test.theirs != nil {
				test.theirs(&s.Meta)
			}
			problems := s.Check("ncs", mine, found)
			require.Len(t, problems, 1)
			require.Equal(t, test.fatal, problems[0].Fatal)
			for _, words := range test.words {
				require.Contains(t, problems[0].String(), words)
			}
		})
	}
}

// Of what is written at the same time the first counts, for all who read it; what it takes the place of holds before its offsets.
func TestConstantsChangeFromAnOffsetOn(t *testing.T) {
	t.Parallel()
	record := func(key string, c Change) *kafkalog.Record {
		text, err := json.Marshal(c)
		require.NoError(t, err)
		return &kafkalog.Record{Key: []byte(key), Value: text}
	}
	change := func(onConflict string, from ...int64) Change {
		m := mine
		m.Shards, m.OnConflict = 2, onConflict
		return Change{Meta: m, From: from}
	}
	var s State
	for _, r := range []*kafkalog.Record{
		record("meta/b/1/x", change("too early", 0, 0)),
		record("meta/b", change("deliver")),
		record("meta/a", change("too late")),
		record("meta/a/1/x", change("of another", 0, 0)),
		record("meta/b/2/x", change("too early", 0, 0)),
		record("meta/b/1/z", change("drop", 10, 20)),
		record("meta/b/1/a", change("too late", 0, 0)),
		record("meta/b/2/y", change("deliver", 15, 20)),
	} {
		require.NoError(t, s.Add(r), string(r.Key))
	}
	require.Equal(t, "meta/b", s.Key)
	require.Len(t, s.Changes, 2)
	require.Equal(t, "deliver", s.Meta.OnConflict)
	var rules []string
	for _, at := range []int64{0, 9, 10, 14, 15} {
		rules = append(rules, s.At(0, at).OnConflict)
	}
	require.Equal(t, []string{"deliver", "deliver", "drop", "drop", "deliver"}, rules)
	require.Equal(t, "deliver", s.At(1, 19).OnConflict)
	require.Equal(t, "deliver", s.At(1, 20).OnConflict)

	require.ErrorContains(t, s.Add(record("meta/b/3/x", change("drop", 1))), "change 3 does not say from where on it holds")
	newer := record("meta/b/3/y", change("drop", 1, 2))
	newer.Value = []byte(`{"format":2,"hash":{"of":"another kind"}}`)
	require.NoError(t, s.Add(newer), "it is not for us to understand")
	require.Equal(t, 2, s.Meta.Format)
	require.ErrorContains(t, new(State).Add(&kafkalog.Record{Key: []byte("meta/1"), Value: []byte("{}")}), "they have no format")
}

// fake starts an in-process cluster.
func fake(t *testing.T) (*kfake.Cluster, *kafkaconn.Cluster) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	c := kafkaconn.New(kafkaconn.Config{Brokers: cluster.ListenAddrs(), ClientID: "test"})
	t.Cleanup(c.Close)
	return cluster, c
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestMissingTopicsAreMadeAsTheyMustBe(t *testing.T) {
	t.Parallel()
	_, c := fake(t)
	found, err := Describe(soon(t), c, "ncs")
	require.NoError(t, err)
	require.Empty(t, found)
	made, err := options.Create(soon(t), c, found)
	require.NoError(t, err)
	require.ElementsMatch(t, NamesOf("ncs").All(), made)
	again, err := options.Create(soon(t), c, found)
	require.NoError(t, err, "another replica was faster")
	require.Empty(t, again)

	found, err = Describe(soon(t), c, "ncs")
	require.NoError(t, err)
	require.Empty(t, found.Missing("ncs"))
	require.Equal(t, 6, found.Shards("ncs"))
	require.Empty(t, options.Check(found))
	require.Len(t, found.IDs("ncs"), 5)
}

func TestTheFirstConstantsCountForAll(t *testing.T) {
	t.Parallel()
	cluster, c := fake(t)
	_, err := options.Create(soon(t), c, nil)
	require.NoError(t, err)
	found, err := Describe(soon(t), c, "ncs")
	require.NoError(t, err)
	first := mine
	first.Topics = found.IDs("ncs")

	// Two that see nothing write at the same time.
	type result struct {
		s     State
		wrote bool
		err   error
	}
	results := make(chan result, 4)
	for i := range 4 {
		go func() {
			own := first
			own.MaxKeys = i
			s, wrote, err := Agree(soon(t), c, "ncs", own)
			results <- result{s, wrote, err}
		}()
	}
	var all []result
	for range 4 {
		r := <-results
		require.NoError(t, r.err)
		require.True(t, strings.HasPrefix(r.s.Key, "meta/"))
		all = append(all, r)
	}
	for _, r := range all {
		require.Equal(t, all[0].s, r.s, "all have the same")
	}
	require.Len(t, slices.DeleteFunc(slices.Clone(all), func(r result) bool { return !r.wrote }), 1)
	own := first
	own.MaxKeys = all[0].s.Meta.MaxKeys
	require.Empty(t, all[0].s.Check("ncs", own, found))

	// A topic that is deleted and made again is noticed, until somebody says that it may be so.
	deleteTopic(t, cluster, "ncs.dead")
	_, err = options.Create(soon(t), c, Found{"ncs.inbox": found["ncs.inbox"], "ncs.events": found["ncs.events"], "ncs.state": found["ncs.state"], "ncs.control": found["ncs.control"]})
	require.NoError(t, err)
	found, err = Describe(soon(t), c, "ncs")
	require.NoError(t, err)
	s, err := ReadState(soon(t), c, "ncs")
	require.NoError(t, err)
	require.Len(t, s.Check("ncs", own, found), 1)
	topics, shards := s.Unknown("ncs", found)
	require.Equal(t, []string{"ncs.dead"}, topics)
	require.Len(t, shards, 6)

	raised, err := Confirm(soon(t), c, "ncs", found, []int32{0, 3}, "test")
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: 1, 3: 1}, raised)
	s, err = ReadState(soon(t), c, "ncs")
	require.NoError(t, err)
	_, shards = s.Unknown("ncs", found)
	require.Equal(t, []int32{1, 2, 4, 5}, shards)
	raised, err = Confirm(soon(t), c, "ncs", found, []int32{0, 1, 2, 4, 5}, "test")
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: 2, 1: 1, 2: 1, 4: 1, 5: 1}, raised)
	s, err = ReadState(soon(t), c, "ncs")
	require.NoError(t, err)
	require.Empty(t, s.Check("ncs", own, found))
	require.Equal(t, "test", s.Epochs[0].By)
}

func TestOfChangesAtTheSameTimeOneCounts(t *testing.T) {
	t.Parallel()
	_, c := fake(t)
	_, err := options.Create(soon(t), c, nil)
	require.NoError(t, err)
	require.NoError(t, write(soon(t), c, "ncs", map[string]any{"meta/a": map[string]any{"cluster": "production", "format": 1, "shards": 6, "later": "kept"}}))
	s, wrote, err := Agree(soon(t), c, "ncs", mine)
	require.NoError(t, err)
	require.False(t, wrote)
	results := make(chan error, 4)
	for i := range 4 {
		go func() {
			to := Change{Meta: mine, From: []int64{1, 2, 3, 4, 5, 6}, By: "test"}
			to.MaxKeys = i
			results <- s.Upgrade(soon(t), c, "ncs", to)
		}()
	}
	won := 0
	for range 4 {
		if err := <-results; err == nil {
			won++
		} else {
			require.ErrorIs(t, err, ErrOvertaken)
		}
	}
	require.Equal(t, 1, won)
	s, err = ReadState(soon(t), c, "ncs")
	require.NoError(t, err)
	require.Len(t, s.Changes, 1)
	chunk, err := kafkalog.Read(soon(t), c, "ncs.control", 0, 0, mib, 0)
	require.NoError(t, err)
	keys := make(map[string]bool)
	for _, r := range chunk.Records {
		keys[string(r.Key)] = true
		require.Contains(t, string(r.Value), `"later":"kept"`, "what this version does not know")
	}
	require.Len(t, keys, 5, "compaction must not let a later one take the place of the one that counts")
}

func deleteTopic(t *testing.T, cluster *kfake.Cluster, name string) {
	t.Helper()
	require.NoError(t, cluster.DeleteTopic(name))
}

// What a broker advises against is said once, for all brokers together.
func TestSlowSessionsOfBrokersAreAdvisedAgainst(t *testing.T) {
	t.Parallel()
	cluster, c := fake(t)
	require.NoError(t, c.Look(soon(t), time.Now()))
	values := make(map[string]map[string]string) // by broker
	for id := range 3 {
		values[fmt.Sprint(id)] = map[string]string{"broker.session.timeout.ms": "6000", "process.roles": "broker"}
	}
	cluster.ControlKey(int16(kmsg.DescribeConfigs), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response := r.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, asked := range r.(*kmsg.DescribeConfigsRequest).Resources {
			found := kmsg.NewDescribeConfigsResponseResource()
			found.ResourceType, found.ResourceName = asked.ResourceType, asked.ResourceName
			for _, name := range asked.ConfigNames {
				entry := kmsg.NewDescribeConfigsResponseResourceConfig()
				value := values[asked.ResourceName][name]
				entry.Name, entry.Value = name, &value
				found.Configs = append(found.Configs, entry)
			}
			response.Resources = append(response.Resources, found)
		}
		return response, nil, true
	})
	values["0"]["broker.session.timeout.ms"], values["2"]["broker.session.timeout.ms"] = "9000", "9000"
	problems := Advice(soon(t), c)
	require.Len(t, problems, 1)
	require.False(t, problems[0].Fatal)
	require.Contains(t, problems[0].String(), "broker.session.timeout.ms is 9000 at broker 0 (127.0.0.1), 2 (127.0.0.1), must be 6000")
	require.NotContains(t, fmt.Sprint(problems), " 1 (")

	values["1"]["process.roles"] = "broker,controller" // it has 6000
	problems = Advice(soon(t), c)
	require.Len(t, problems, 2)
	require.Contains(t, problems[0].String(), "is 6000 at broker 1 (127.0.0.1), must be 4000: when a broker dies that is the active controller")
	values["1"]["broker.session.timeout.ms"] = "4000"
	require.Len(t, Advice(soon(t), c), 1)
}
