package topics

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
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

// Keys of records in the control topic that are about the topics themselves. Those of constants end in a random id: the topic is
// compacted, and no record may take another's place. Of those that are written at the same time, the one with the lowest offset counts.
//
//	meta/<id>               the constants
//	meta/<id>/<n>/<random>  their change number n, from 1
//	epoch/<shard>
const (
	metaPrefix  = "meta/"
	epochPrefix = "epoch/"
)

// Meta are the constants of a journal. They are written by whoever comes first, and all replicas must have the same.
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

// Change are constants that hold in place of earlier ones.
type Change struct {
	Meta
	From []int64   `json:"from"` // by shard: for records of the inbox from this offset on
	At   time.Time `json:"at"`
	By   string    `json:"by,omitempty"`
}

// Epoch says that an operator has found the topics of a shard to be right, though they are not those that were known. The
// state of the shard was made to fit them before.
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
	Key     string // of the record of the constants; "" = there is none yet
	Meta    Meta   // that hold now
	Changes []Change
	Epochs  map[int32]Epoch // of the shards that have one

	first Meta
	text  []byte // of Meta, with what this version does not know
}

// ReadState reads the control topic.
func ReadState(ctx context.Context, c *kafkaconn.Cluster, prefix string) (State, error) {
	topic := NamesOf(prefix).Control
	var s State
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
			if err := s.Add(&chunk.Records[i]); err != nil {
				return s, fmt.Errorf("topic %s, offset %d: %w", topic, chunk.Records[i].Offset, err)
			}
		}
		next = chunk.Next
	}
	return s, nil
}

// Add takes over a record of the control topic; they come in order. Of most it is not for us to know.
func (s *State) Add(r *kafkalog.Record) error {
	key := string(r.Key)
	switch {
	case r.Value == nil:
		return nil
	case strings.HasPrefix(key, metaPrefix):
		if err := s.addMeta(key, r.Value); err != nil {
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
			if s.Epochs == nil {
				s.Epochs = make(map[int32]Epoch)
			}
			s.Epochs[int32(shard)] = epoch
		}
	}
	return nil
}

// addMeta takes over constants, or a change of those that count. Others were too late.
func (s *State) addMeta(key string, value []byte) error {
	of, number, isChange := key, "", false
	if i := strings.IndexByte(key[len(metaPrefix):], '/'); i >= 0 {
		of, number, isChange = key[:len(metaPrefix)+i], key[len(metaPrefix)+i+1:], true
	}
	number, _, _ = strings.Cut(number, "/")
	if isChange != (s.Key != "") || isChange && (of != s.Key || number != strconv.Itoa(len(s.Changes)+1)) {
		return nil
	}
	var c Change
	err := json.Unmarshal(value, &c)
	switch {
	case c.Format > Format: // the rest may mean something else
	case err != nil:
		return err
	case c.Format < 1:
		return errors.New("they have no format")
	case isChange && len(c.From) != c.Shards:
		return fmt.Errorf("change %s does not say from where on it holds", number)
	}
	s.Meta, s.text = c.Meta, slices.Clone(value)
	if isChange {
		s.Changes = append(s.Changes, c)
	} else {
		s.Key, s.first = key, c.Meta
	}
	return nil
}

// At returns the constants that hold for a record of the inbox.
func (s *State) At(shard int32, offset int64) *Meta {
	for i := len(s.Changes) - 1; i >= 0; i-- {
		if c := &s.Changes[i]; int(shard) < len(c.From) && offset >= c.From[shard] {
			return &c.Meta
		}
	}
	return &s.first
}

// Agree returns what counts, which is mine if nothing was there. Whether it is what this replica has, Check says.
func Agree(ctx context.Context, c *kafkaconn.Cluster, prefix string, mine Meta) (s State, wrote bool, err error) {
	if s, err = ReadState(ctx, c, prefix); err != nil || s.Key != "" {
		return s, false, err
	}
	key := metaPrefix + randomID()
	if err = write(ctx, c, prefix, map[string]any{key: mine}); err != nil {
		return s, false, err
	}
	s, err = ReadState(ctx, c, prefix)
	return s, s.Key == key, err
}

// ErrOvertaken is the error of Upgrade where another change came first.
var ErrOvertaken = errors.New("what all replicas share was changed by somebody else at the same time: run it again")

// Upgrade makes other constants hold, from offsets of the inbox on, one for each shard. What this version does not know of is kept.
func (s State) Upgrade(ctx context.Context, c *kafkaconn.Cluster, prefix string, to Change) error {
	number := len(s.Changes) + 1
	to.At = time.Now().UTC().Truncate(time.Second)
	text, err := json.Marshal(to)
	fields := make(map[string]json.RawMessage)
	if err := errors.Join(err, json.Unmarshal(s.text, &fields), json.Unmarshal(text, &fields)); err != nil {
		return err
	}
	if err := write(ctx, c, prefix, map[string]any{fmt.Sprintf("%s/%d/%s", s.Key, number, randomID()): fields}); err != nil {
		return err
	}
	now, err := ReadState(ctx, c, prefix)
	if err == nil && (len(now.Changes) < number || !reflect.DeepEqual(now.Changes[number-1], to)) {
		err = ErrOvertaken
	}
	return err
}

func randomID() string {
	var id [16]byte
	_, _ = rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// write writes all values, by their keys, or none.
func write(ctx context.Context, c *kafkaconn.Cluster, prefix string, values map[string]any) error {
	var recs []kafkalog.Record
	for key, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		recs = append(recs, kafkalog.Record{Key: []byte(key), Value: text})
	}
	_, err := kafkalog.NewWriter(c, NamesOf(prefix).Control, 0, kafkalog.WriterOptions{}).Append(ctx, recs)
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

// Difference is a constant that counts and is not what this replica has.
type Difference struct {
	What         string
	Theirs, Mine any

	Fatal bool   // replicas differ in what they do, so one that has mine does not start
	Never string // it cannot be changed: what to do instead
	Alone bool   // it can be changed only while no replica runs
	Note  string // what comes of a change
}

// Differences lists what another program or another configuration has differently.
func (m Meta) Differences(mine Meta) (list []Difference) {
	const drain = "it never changes: drain the journal, and begin with another journal.kafka.prefix"
	for _, d := range []Difference{
		{What: "the cluster", Theirs: strconv.Quote(m.Cluster), Mine: strconv.Quote(mine.Cluster), Fatal: true,
			Never: fmt.Sprintf("journal.kafka.cluster: %s if it is the same relay, another journal.kafka.prefix if not", m.Cluster)},
		{What: "the format", Theirs: m.Format, Mine: mine.Format, Note: "older versions of ncs-relay cannot read the journal then"},
		{What: "the number of shards", Theirs: m.Shards, Mine: mine.Shards, Fatal: true, Never: drain},
		{What: "the hash function of shards", Theirs: m.Hash, Mine: mine.Hash, Fatal: true, Never: drain},
		versioned("the version of what makes an event's id", m.Identity, mine.Identity, "copies of events from before are not recognised then"),
		versioned("the version of what makes an event's entity", m.Entity, mine.Entity, "events of one entity are in another shard than those from before then, and may overtake these"),
		{What: "dedup.on_conflict", Theirs: m.OnConflict, Mine: mine.OnConflict, Fatal: true},
		{What: "dedup.max_keys", Theirs: m.MaxKeys, Mine: mine.MaxKeys},
		{What: "dedup.window", Theirs: m.Window, Mine: mine.Window},
	} {
		if d.Theirs != d.Mine {
			list = append(list, d)
		}
	}
	return list
}

// versioned is the difference of what a program brings with it.
func versioned(what string, theirs, mine int, note string) Difference {
	d := Difference{What: what, Theirs: theirs, Mine: mine, Fatal: true, Alone: true, Note: note}
	if mine < theirs {
		d.Never = installNewer
	}
	return d
}

const installNewer = "install the version that the other replicas have"

func (d Difference) String() string {
	text := fmt.Sprintf("%s is %v, and becomes %v", d.What, d.Theirs, d.Mine)
	if d.Note != "" {
		text += ": " + d.Note
	}
	return text
}

func (d Difference) problem(control string) Problem {
	p := Problem{Topic: control, Found: fmt.Sprintf("says that %s is %v, and this replica has %v", d.What, d.Theirs, d.Mine), Hint: d.Never, Fatal: d.Fatal}
	switch {
	case d.Never != "":
		return p
	case d.Alone:
		p.Hint = "ncs-relay cluster upgrade, with all relays stopped"
	case strings.HasPrefix(d.What, "dedup."):
		p.Hint = fmt.Sprintf("%s: %v here, or ncs-relay cluster upgrade to have %v everywhere", d.What, d.Theirs, d.Mine)
	default:
		p.Hint = "ncs-relay cluster upgrade, when all replicas have this version"
	}
	p.Upgradable = true
	return p
}

// Check compares what counts with what this replica has, and with the topics that were found.
func (s State) Check(prefix string, mine Meta, found Found) (problems []Problem) {
	if s.Key == "" {
		return nil
	}
	control := NamesOf(prefix).Control
	if s.Meta.Format > mine.Format { // the rest may mean something else
		return []Problem{{Topic: control, Found: fmt.Sprintf("has format %d, and this version of ncs-relay knows %d", s.Meta.Format, mine.Format), Hint: installNewer, Fatal: true}}
	}
	if mine = mine.Of(prefix, found); mine.Shards == 0 { // which is said
		mine.Shards = s.Meta.Shards
	}
	for _, d := range s.Meta.Differences(mine) {
		problems = append(problems, d.problem(control))
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

// Same returns why the topics are not those that are known, as far as the cluster tells.
func (s State) Same(ctx context.Context, c *kafkaconn.Cluster, prefix string) error {
	found, err := describe(ctx, c, prefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range s.checkIDs(prefix, found) {
		errs = append(errs, errors.New(p.String()))
	}
	return errors.Join(errs...)
}

func (s State) checkIDs(prefix string, found Found) (problems []Problem) {
	topics, shards := s.Unknown(prefix, found)
	for _, name := range topics {
		hint := "restore it if you can; else ncs-relay cluster confirm goes on with what is there"
		if name == NamesOf(prefix).Inbox {
			hint = "restore it if you can; else begin with another journal.kafka.prefix, since its positions would be given a second time"
		}
		problems = append(problems, Problem{Topic: name, Found: fmt.Sprintf("is not the one that was known, in %d shards", len(shards)), Fatal: true,
			Why: "it was deleted and made again, and what was in it is gone", Hint: hint})
	}
	return problems
}

// Confirm raises the epoch of shards, of all or of none: what their topics are now is what they are meant to be. by says who does it.
func Confirm(ctx context.Context, c *kafkaconn.Cluster, prefix string, found Found, shards []int32, by string) (map[int32]int64, error) {
	s, err := ReadState(ctx, c, prefix)
	if err != nil {
		return nil, err
	}
	raised := make(map[int32]int64, len(shards))
	epochs := make(map[string]any, len(shards))
	ids, at := found.IDs(prefix), time.Now().UTC().Truncate(time.Second)
	for _, shard := range shards {
		raised[shard] = s.Epochs[shard].Number + 1
		epochs[epochPrefix+strconv.Itoa(int(shard))] = Epoch{Number: raised[shard], Topics: ids, At: at, By: by}
	}
	if err := write(ctx, c, prefix, epochs); err != nil {
		return nil, err
	}
	return raised, nil
}
