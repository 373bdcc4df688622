package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"

	"ncs-relay/relay/kafkaconn"
)

const (
	lagInterval = 3 * time.Second

	// lagRefresh is how often an offset is committed that has not moved: brokers forget those of a group without members.
	lagRefresh = time.Hour

	// lagPause is how long nothing is committed after a failure: it is for people who look at lags, and for nothing else.
	lagPause   = time.Minute
	lagTimeout = 5 * time.Second
)

// Lags commits what sinks are owed as the lag of consumer groups, one for each sink, for Kafka's own tools. An offset is the end of the
// topic less the number of deliveries owed, whichever these are. Nobody reads it back.
type Lags struct {
	Brokers Brokers
	Prefix  string // of the groups' names
	Topic   string
	Owed    func() []Backlog // in the shards that this replica has
	Logger  *slog.Logger

	groups map[string]*lagGroup // by sink
	failed bool
	after  time.Time // not before
}

// Backlog is what a sink is owed in a shard.
type Backlog struct {
	Sink  string
	Shard int32
	End   int64 // of the topic
	Owed  int64 // deliveries
}

type lagGroup struct {
	group
	committed map[int32]int64 // by shard
	at        time.Time       // when all of it was committed last
}

// Run commits what has moved, every few seconds, until ctx ends.
func (l *Lags) Run(ctx context.Context) {
	l.groups = make(map[string]*lagGroup)
	for kafkaconn.Pause(ctx, lagInterval) {
		if now := time.Now(); now.After(l.after) {
			l.note(l.commitAll(ctx, now), now)
		}
	}
}

// note says once that offsets cannot be committed.
func (l *Lags) note(err error, now time.Time) {
	level := slog.LevelDebug
	if err != nil {
		l.after = now.Add(lagPause)
		if !l.failed {
			level = slog.LevelWarn
		}
		hint := hints[kafka.GroupAuthorizationFailed]
		if !errors.Is(err, kafka.GroupAuthorizationFailed) {
			hint = "nothing else needs them"
		}
		l.Logger.Log(context.Background(), level, "what sinks are owed is not shown as the lag of consumer groups", "error", err, "hint", hint)
	}
	l.failed = err != nil
}

func (l *Lags) commitAll(ctx context.Context, now time.Time) error {
	bySink := make(map[string][]Backlog)
	for sink := range l.groups { // also those of which nothing is here any more
		bySink[sink] = nil
	}
	for _, b := range l.Owed() {
		bySink[b.Sink] = append(bySink[b.Sink], b)
	}
	for _, sink := range slices.Sorted(maps.Keys(bySink)) {
		if err := l.commit(ctx, now, sink, bySink[sink]); err != nil {
			return err
		}
	}
	return nil
}

// commit commits what has moved of a sink, with one request.
func (l *Lags) commit(ctx context.Context, now time.Time, sink string, owed []Backlog) error {
	g := l.groups[sink]
	if g == nil {
		g = &lagGroup{group: group{brokers: l.Brokers, name: l.Prefix + sink}}
		l.groups[sink] = g
	}
	if now.Sub(g.at) >= lagRefresh {
		g.at, g.committed = now, make(map[int32]int64)
	}
	maps.DeleteFunc(g.committed, func(shard int32, _ int64) bool { // whoever has it now commits for it
		return !slices.ContainsFunc(owed, func(b Backlog) bool { return b.Shard == shard })
	})
	topic := offsetcommit.RequestTopic{Name: l.Topic}
	moved := make(map[int32]int64)
	for _, b := range owed {
		offset := max(0, b.End-b.Owed)
		if known, ok := g.committed[b.Shard]; !ok || known != offset {
			moved[b.Shard] = offset
			topic.Partitions = append(topic.Partitions, offsetcommit.RequestPartition{PartitionIndex: b.Shard, CommittedOffset: offset, CommittedLeaderEpoch: -1})
		}
	}
	if len(moved) == 0 {
		return nil
	}
	request := &offsetcommit.Request{GroupID: g.name, GenerationID: -1, RetentionTimeMs: -1, Topics: []offsetcommit.RequestTopic{topic}}
	if err := g.group.commit(ctx, lagTimeout, request); err != nil {
		return fmt.Errorf("sink %s: %w", sink, err)
	}
	maps.Copy(g.committed, moved)
	return nil
}
