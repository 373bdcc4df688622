package kafkajournal

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/journal/kafkajournal/topics"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// constants is a record of ncs.control for one shard.
func constants(t testing.TB, key string, c topics.Change) kafkalog.Record {
	if c.Format == 0 {
		c.Format = topics.Format
	}
	c.Shards = 1
	text, err := json.Marshal(c)
	require.NoError(t, err)
	return kafkalog.Record{Key: []byte(key), Value: text}
}

func ruled(t testing.TB, onConflict string, from ...int64) topics.Change {
	return topics.Change{Meta: topics.Meta{OnConflict: onConflict}, From: from}
}

// conflicting is a record whose key others may have.
func conflicting(key, id byte) *journal.Record {
	return &journal.Record{ID: [16]byte{1, id}, Key: [16]byte{2, key}, Time: time.UnixMilli(1_750_000_000_000), Source: "s", Sinks: []string{"a"}, Body: []byte{key, id}}
}

// Whoever takes a shard over judges what follows as its owner before would have.
func TestOwnersJudgeAlikeWhereTheRuleChanges(t *testing.T) {
	t.Parallel()
	differ := 0
	for seed := range int64(200) {
		r := rand.New(rand.NewSource(seed))
		var s topics.State
		changes := []kafkalog.Record{constants(t, "meta/a", ruled(t, "deliver")), constants(t, "meta/a/1/x", ruled(t, "drop", 20)), constants(t, "meta/a/2/x", ruled(t, "deliver", 40))}
		for i := range changes {
			require.NoError(t, s.Add(&changes[i]))
		}
		byKey := func(shard uint32, pos offset) bool { return s.At(int32(shard), int64(pos)-1).OnConflict == "drop" }
		var inbox []kafkalog.Record
		for n := range int64(60) {
			key := byte(r.Intn(4))
			rec := encodeRecord(conflicting(key, 4*byte(r.Intn(4))+key))
			rec.Offset = n
			inbox = append(inbox, rec)
		}
		first := &judge{ids: newIDs(byKey)}
		rows, err := first.pick(inbox)
		require.NoError(t, err)
		begin := offset(r.Intn(60))
		second := &judge{ids: newIDs(byKey), picked: begin}
		var left []item
		for _, i := range rows {
			if i.pos <= begin {
				second.ids.add(0, &i.entry)
			} else {
				left = append(left, i)
			}
		}
		again, err := second.pick(inbox)
		require.NoError(t, err)
		require.Equal(t, positionsOf(left), positionsOf(again), "seed %d, from %d", seed, begin)
		by := make(map[bool]int)
		for _, i := range rows {
			by[byKey(0, i.pos)]++
		}
		if by[true] < by[false] {
			differ++
		}
	}
	require.Greater(t, differ, 150, "the rules make a difference")
}

func positionsOf(row []item) (list []offset) {
	for _, i := range row {
		list = append(list, i.pos)
	}
	return list
}

func TestARunningOwnerFollowsTheRule(t *testing.T) {
	alone(t, nil, func(j *Journal, l *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		put := func(key, id byte) {
			done := make(chan error, 1)
			require.NoError(t, j.Append(t.Context(), conflicting(key, id), func(_ journal.Position, err error) { done <- err }))
			require.NoError(t, <-done)
		}
		owed := func() string {
			time.Sleep(2 * time.Second) // what was given is followed
			var bodies []byte
			for _, r := range journaltest.Drain(t, a, 1<<20) {
				bodies = append(bodies, r.Body...)
			}
			return fmt.Sprint(bodies)
		}
		m.append("ncs.control", 0, []kafkalog.Record{constants(t, "meta/a", ruled(t, "deliver"))})
		put(1, 1)
		put(1, 2)
		require.Equal(t, "[1 1 1 2]", owed())
		m.append("ncs.control", 0, []kafkalog.Record{constants(t, "meta/a/1/x", ruled(t, "drop", 3))})
		time.Sleep(2 * time.Second)
		put(1, 3)
		put(1, 4)
		put(2, 1)
		require.Equal(t, "[1 3 2 1]", owed(), "the third was stored before the offset")
		m.append("ncs.control", 0, []kafkalog.Record{constants(t, "meta/a/2/x", ruled(t, "deliver", 5))})
		time.Sleep(2 * time.Second)
		put(1, 4)
		put(1, 3)
		require.Equal(t, "[1 4]", owed())
	})
}

func TestAReplicaGivesUpWhatANewerVersionHasWritten(t *testing.T) {
	newer := encodeRecord(journaltest.Record(1))
	newer.Headers[0].Value = []byte("2")
	for name, test := range map[string]struct {
		topic string
		rec   kafkalog.Record
		ready string // why not
	}{
		"the constants": {"ncs.control", constants(t, "meta/a", topics.Change{Meta: topics.Meta{Format: topics.Format + 1}}), "install the version that the other replicas have"},
		"a record":      {"ncs.inbox", newer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var own *tenure
			alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, l *link, m *memLogs) {
				journaltest.Fill(t, j, 0, 3)
				m.append(test.topic, 0, []kafkalog.Record{test.rec})
				time.Sleep(5 * time.Second)
				owned, _ := own.Owned()
				require.Empty(t, owned, "another replica may be newer")
				require.Len(t, own.released, 1)
				held, _ := j.Shards()
				require.Empty(t, held)
				if test.ready == "" {
					require.NoError(t, j.Ready(), "others can deliver the shard, and it takes events for it")
				} else {
					require.ErrorContains(t, j.Ready(), test.ready)
				}
				require.NoError(t, j.Flush())
			})
		})
	}
}

// Shards that were out of reach are accepted when they are reached again, but not by a replica that is too old by then.
func TestAReplicaThatIsTooOldAcceptsNothingAgain(t *testing.T) {
	var own choosy
	alone(t, func(o *Options) { own = choosy{newTenure(0), make(chan int32, 10)}; o.Ownership = own }, func(j *Journal, l *link, m *memLogs) {
		journaltest.Fill(t, j, 0, 1)
		l.setCut(errors.New("no route"))
		time.Sleep(time.Minute)
		require.Len(t, own.released, 1)
		m.append("ncs.control", 0, []kafkalog.Record{constants(t, "meta/a", topics.Change{Meta: topics.Meta{Format: topics.Format + 1}})})
		j.outdated(errNewer) // as control says when it is reached, a moment before the shard is
		l.setCut(nil)
		time.Sleep(time.Minute)
		require.Empty(t, own.accepted)
		require.ErrorIs(t, j.Ready(), errNewer)
	})
}
