package topics

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkalog"
	"ncs-relay/relay/ncs"
)

const (
	// Format is that of all records of the journal which this version writes, and the newest it reads.
	Format = 1

	// Hash is how an event's shard is found: FNV-1a of 64 bits.
	Hash = "fnv1a64"
)

// Keys of records in the control topic that are about the topics themselves.
const (
	metaPrefix  = "meta/"  // and a random id: of those that several replicas write at first, the one with the lowest offset counts
	epochPrefix = "epoch/" // and a shard
)

// Meta are the constants of a journal. They are written once, by whoever comes first, and all replicas must have the same.
type Meta struct {
	Cluster  string `json:"cluster"`
	Format   int    `json:"format"`
	Shards   int    `json:"shards"`
	Hash     string `json:"hash"`
	Identity int    `json:"identity"` // the version of what makes an event's id
	Entity   int    `json:"entity"`   // and of what makes its entity

	OnConflict string `json:"on_conflict"`
	MaxKeys    int    `json:"max_keys"`
	Window     string `json:"window"`

	Topics map[string]string `json:"topics"` // ids by name, in hex
}

// Epoch says that an operator has found the topics of a shard to be right, though they are not those that were known. What was
// said in an earlier epoch is about other records then.
type Epoch struct {
	Number int64             `json:"epoch"` // from 1
	Topics map[string]string `json:"topics"`
	At     time.Time         `json:"at"`
	By     string            `json:"by,omitempty"`
}

// MetaOf are the constants that this version of the program has, for a cluster and the way its copies are recognized.
func MetaOf(cluster, onConflict string, maxKeys int, window time.Duration) Meta {
	return Meta{Cluster: cluster, Format: Format, Hash: Hash, Identity: ncs.IdentityVersion, Entity: ncs.EntityVersion,
		OnConflict: onConflict, MaxKeys: maxKeys, Window: window.String()}
}

// State is what the control topic says of the journal as a whole.
type State struct {
	Key    string // of the record that counts; "" = there is none yet
	Meta   Meta
	Epochs map[int32]Epoch // of the shards that have one
}

// ReadState reads the control topic.
func ReadState(ctx context.Context, c *kafkaconn.Cluster, prefix string) (State, error) {
	topic := NamesOf(prefix).Control
	s := State{Epochs: make(map[int32]Epoch)}
	starts, err := kafkalog.Starts(ctx, c, topic, []int32{0})
	if err != nil {
		return s, kafkaconn.Explain(err)
	}
	ends, err := kafkalog.Ends(ctx, c, topic, []int32{0})
	if err != nil {
		return s, kafkaconn.Explain(err)
	}
	for next := starts[0]; next < ends[0]; {
		chunk, err := kafkalog.Read(ctx, c, topic, 0, next, mib, time.Second)
		if err != nil {
			return s, kafkaconn.Explain(err)
		}
		for i := range chunk.Records {
			if err := s.add(&chunk.Records[i]); err != nil {
				return s, fmt.Errorf("topic %s, offset %d: %w", topic, chunk.Records[i].Offset, err)
			}
		}
		next = chunk.Next
	}
	return s, nil
}

// add takes over a record. Of most it is not for us to know.
func (s *State) add(r *kafkalog.Record) error {
	key := string(r.Key)
	switch {
	case r.Value == nil:
		return nil
	case strings.HasPrefix(key, metaPrefix):
		if s.Key != "" { // one that was faster has a lower offset
			return nil
		}
		s.Key = key
		if err := json.Unmarshal(r.Value, &s.Meta); err != nil {
			return fmt.Errorf("the constants of the journal cannot be read: %w", err)
		}
	case strings.HasPrefix(key, epochPrefix):
		shard, err := strconv.ParseInt(strings.TrimPrefix(key, epochPrefix), 10, 32)
		var epoch Epoch
		if err == nil {
			err = json.Unmarshal(r.Value, &epoch)
		}
		if err != nil {
			return fmt.Errorf("the epoch of a shard cannot be read: %w", err)
		}
		if epoch.Number > s.Epochs[int32(shard)].Number {
			s.Epochs[int32(shard)] = epoch
		}
	}
	return nil
}

// Agree returns what counts, which is mine if nothing was there. Whether it is what this replica has, Check says.
func Agree(ctx context.Context, c *kafkaconn.Cluster, prefix string, mine Meta) (s State, wrote bool, err error) {
	if s, err = ReadState(ctx, c, prefix); err != nil || s.Key != "" {
		return s, false, err
	}
	var id [16]byte
	_, _ = rand.Read(id[:])
	key := metaPrefix + hex.EncodeToString(id[:])
	if err = write(ctx, c, prefix, key, mine); err != nil {
		return s, false, err
	}
	s, err = ReadState(ctx, c, prefix)
	return s, s.Key == key, err
}

func write(ctx context.Context, c *kafkaconn.Cluster, prefix, key string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	w := kafkalog.NewWriter(c, NamesOf(prefix).Control, 0, kafkalog.WriterOptions{})
	_, err = w.Append(ctx, []kafkalog.Record{{Key: []byte(key), Value: text}})
	return kafkaconn.Explain(err)
}

// IDs are those of the topics, as Meta and Epoch keep them.
func (f Found) IDs(prefix string) map[string]string {
	ids := make(map[string]string)
	for _, name := range NamesOf(prefix).All() {
		if topic := f[name]; topic.Partitions > 0 {
			ids[name] = hex.EncodeToString(topic.ID[:])
		}
	}
	return ids
}

// Check compares what counts with what this replica has, and with the topics that were found.
func (s State) Check(prefix string, mine Meta, found Found) (problems []Problem) {
	if s.Key == "" {
		return nil
	}
	control := NamesOf(prefix).Control
	fatal := func(what, wanted, hint string, values ...any) {
		problems = append(problems, Problem{Topic: control, Found: fmt.Sprintf(what, values...), Wanted: wanted, Hint: hint, Fatal: true})
	}
	theirs := s.Meta
	if theirs.Cluster != mine.Cluster {
		fatal("belongs to the cluster %q, and this replica to %q", "", fmt.Sprintf("journal.kafka.cluster: %s if it is the same relay, another journal.kafka.prefix if not", theirs.Cluster), theirs.Cluster, mine.Cluster)
	}
	switch {
	case theirs.Format > mine.Format:
		fatal("has format %d, and this version of ncs-relay knows %d", "", "install the version that the other replicas have", theirs.Format, mine.Format)
		return problems // the rest may mean something else
	case theirs.Format < mine.Format:
		fatal("has format %d, and this version of ncs-relay writes %d", "", "install the version that made it, drain it, and begin with another journal.kafka.prefix", theirs.Format, mine.Format)
		return problems
	}
	if shards := found.Shards(prefix); shards != 0 && theirs.Shards != shards {
		fatal("says that there are %d shards, and the topics have %d partitions", "", "the number never changes: drain the journal, and begin with another journal.kafka.prefix", theirs.Shards, shards)
	}
	for _, c := range []struct {
		what         string
		theirs, mine any
	}{
		{"the hash function of shards", theirs.Hash, mine.Hash},
		{"the version of what makes an event's id", theirs.Identity, mine.Identity},
		{"the version of what makes an event's entity", theirs.Entity, mine.Entity},
	} {
		if c.theirs != c.mine {
			fatal("says that %s is %v, and this version of ncs-relay has %v", "", "install the version that the other replicas have", c.what, c.theirs, c.mine)
		}
	}
	if theirs.OnConflict != mine.OnConflict {
		fatal("says that dedup.on_conflict is %s, and this replica has %s", "", "dedup.on_conflict: "+theirs.OnConflict, theirs.OnConflict, mine.OnConflict)
	}
	if theirs.MaxKeys != mine.MaxKeys || theirs.Window != mine.Window {
		problems = append(problems, Problem{Topic: control, Found: fmt.Sprintf("says that dedup.max_keys is %d and dedup.window %s, and this replica has %d and %s", theirs.MaxKeys, theirs.Window, mine.MaxKeys, mine.Window),
			Why: "it depends on the replica how late a copy is still known", Hint: fmt.Sprintf("dedup: {max_keys: %d, window: %s}", theirs.MaxKeys, theirs.Window)})
	}
	return append(problems, s.checkIDs(prefix, found)...)
}

// Known returns the ids of topics that are known of a shard.
func (s State) Known(shard int32) map[string]string {
	if epoch, has := s.Epochs[shard]; has {
		return epoch.Topics
	}
	return s.Meta.Topics
}

// Unknown returns the shards of which a topic is not the one that is known.
func (s State) Unknown(prefix string, found Found) (topics []string, shards []int32) {
	ids := found.IDs(prefix)
	for shard := range int32(s.Meta.Shards) {
		known := s.Known(shard)
		for _, name := range NamesOf(prefix).All() {
			if ids[name] == "" || known[name] == "" || known[name] == ids[name] {
				continue
			}
			if !slices.Contains(topics, name) {
				topics = append(topics, name)
			}
			if !slices.Contains(shards, shard) {
				shards = append(shards, shard)
			}
		}
	}
	return topics, shards
}

func (s State) checkIDs(prefix string, found Found) (problems []Problem) {
	topics, shards := s.Unknown(prefix, found)
	for _, name := range topics {
		problems = append(problems, Problem{Topic: name, Found: fmt.Sprintf("is not the one that was known, in %d shards", len(shards)), Fatal: true,
			Why:  "it was deleted and made again, and what was in it is gone",
			Hint: "restore it if you can; else ncs-relay cluster confirm goes on with what is there"})
	}
	return problems
}

// Confirm raises the epoch of shards: what their topics are now is what they are meant to be. by says who does it.
func Confirm(ctx context.Context, c *kafkaconn.Cluster, prefix string, found Found, shards []int32, by string) (map[int32]int64, error) {
	s, err := ReadState(ctx, c, prefix)
	if err != nil {
		return nil, err
	}
	raised := make(map[int32]int64, len(shards))
	for _, shard := range shards {
		epoch := Epoch{Number: s.Epochs[shard].Number + 1, Topics: found.IDs(prefix), At: time.Now().UTC().Truncate(time.Second), By: by}
		if err := write(ctx, c, prefix, epochPrefix+strconv.Itoa(int(shard)), epoch); err != nil {
			return raised, err
		}
		raised[shard] = epoch.Number
	}
	return raised, nil
}
