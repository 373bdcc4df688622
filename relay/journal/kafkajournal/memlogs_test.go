package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ncs-relay/relay/kafkaconn/kafkalog"
)

// memLogs are logs in memory, which several journals may share.
type memLogs struct {
	mu      sync.Mutex
	logs    map[string]*memLog
	changed chan struct{}
	hidden  string
	ahead   time.Duration // of ours is the brokers' clock

	// before is asked before records are appended; an error is that of the append.
	before func(topic string, recs []kafkalog.Record) error
}

type memLog struct {
	start int64
	recs  []kafkalog.Record // from start on
}

// removed is the Offset of a record that compaction has removed.
const removed = -1

func (l *memLog) end() int64 { return l.start + int64(len(l.recs)) }

func newMemLogs() *memLogs {
	return &memLogs{logs: make(map[string]*memLog), changed: make(chan struct{})}
}

func (m *memLogs) log(topic string, partition int32) *memLog { // m.mu is held
	name := fmt.Sprint(topic, "/", partition)
	if m.logs[name] == nil {
		m.logs[name] = new(memLog)
	}
	return m.logs[name]
}

func (m *memLogs) append(topic string, partition int32, recs []kafkalog.Record) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topic, partition)
	base := l.end()
	for i, r := range recs {
		r.Offset, r.Time = base+int64(i), time.Now().Add(m.ahead)
		l.recs = append(l.recs, r)
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return base
}

func (m *memLogs) setBefore(fn func(topic string, recs []kafkalog.Record) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = fn
}

// records are those of the first partition of a topic.
func (m *memLogs) records(topic string) []kafkalog.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.log(topic, 0).recs)
}

// compact removes all records but the newest of each key.
func (m *memLogs) compact(topic string, partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := make(map[string]bool)
	for i := range slices.Backward(m.log(topic, partition).recs) {
		r := &m.log(topic, partition).recs[i]
		if seen[string(r.Key)] {
			r.Offset = removed
		}
		seen[string(r.Key)] = true
	}
}

// cut removes what is before an offset.
func (m *memLogs) cut(topic string, partition int32, start int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topic, partition)
	l.recs, l.start = l.recs[start-l.start:], start
}

func (m *memLogs) read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (kafkalog.Chunk, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for last := false; ; {
		m.mu.Lock()
		l, changed := m.log(topic, partition), m.changed
		c := kafkalog.Chunk{Next: offset, Start: l.start, End: l.end()}
		if offset < c.Start || offset > c.End {
			m.mu.Unlock()
			return c, &kafkalog.OutOfRange{Offset: offset, Start: c.Start, End: c.End}
		}
		for size := 0; c.Next < c.End && (size == 0 || size < maxBytes); c.Next++ {
			if r := l.recs[c.Next-l.start]; r.Offset != removed {
				c.Records = append(c.Records, r)
				size += len(r.Value) + 200
			}
		}
		m.mu.Unlock()
		if len(c.Records) > 0 || last {
			return c, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			last = true
		case <-ctx.Done():
			return c, ctx.Err()
		}
	}
}

// hide lets a topic's leaders not say where its partitions end.
func (m *memLogs) hide(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hidden = topic
}

func (m *memLogs) ends(_ context.Context, topic string, partitions ...int32) (map[int32]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if topic == m.hidden {
		return nil, errors.New("no leader")
	}
	ends := make(map[int32]int64)
	for _, p := range partitions {
		ends[p] = m.log(topic, p).end()
	}
	return ends, nil
}

func (m *memLogs) starts(_ context.Context, topic string, partitions ...int32) (map[int32]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	starts := make(map[int32]int64)
	for _, p := range partitions {
		starts[p] = m.log(topic, p).start
	}
	return starts, nil
}

func (m *memLogs) since(_ context.Context, topic string, partition int32, t time.Time) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log(topic, partition)
	i := slices.IndexFunc(l.recs, func(r kafkalog.Record) bool { return !r.Time.Before(t) })
	if i < 0 {
		return l.end(), nil
	}
	return l.start + int64(i), nil
}

func (m *memLogs) writer(topic string, partition int32) writer { return memWriter{m, topic, partition} }

type memWriter struct {
	m         *memLogs
	topic     string
	partition int32
}

func (w memWriter) Append(ctx context.Context, recs []kafkalog.Record) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	w.m.mu.Lock()
	before := w.m.before
	w.m.mu.Unlock()
	if before != nil {
		if err := before(w.topic, recs); err != nil {
			return 0, err
		}
	}
	return w.m.append(w.topic, w.partition, recs), nil
}
