package member

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/stretchr/testify/require"
)

// commits are brokers that take offsets, or refuse them.
type commits struct {
	mu     sync.Mutex // guards what follows
	refuse kafka.Error
	taken  []map[int32]int64 // of each request
	asked  int
}

func (c *commits) Ask(context.Context, protocol.Message) (protocol.Message, error) {
	return &findcoordinator.Response{Host: "k1", Port: 9092}, nil
}

func (c *commits) Reconnect() {}

func (c *commits) To(_ context.Context, _ string, request protocol.Message) (protocol.Message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	offsets := make(map[int32]int64)
	for _, p := range request.(*offsetcommit.Request).Topics[0].Partitions {
		offsets[p.PartitionIndex] = p.CommittedOffset
	}
	if c.refuse == 0 {
		c.taken = append(c.taken, offsets)
	}
	return &offsetcommit.Response{Topics: []offsetcommit.ResponseTopic{{Partitions: []offsetcommit.ResponsePartition{{ErrorCode: int16(c.refuse)}}}}}, nil
}

// What is owed is committed as a lag when it has moved, with one request for all shards; without the right to that there is one warning.
func TestWhatIsOwedIsTheLagOfAGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		brokers := &commits{refuse: kafka.GroupAuthorizationFailed}
		owed := []Backlog{{"a", 0, 100, 7}, {"a", 1, 50, 0}}
		l := &Lags{Brokers: brokers, Prefix: "ncs.sink.", Topic: "ncs.events", Logger: slog.New(slog.NewTextHandler(&log, nil))}
		l.Owed = func() []Backlog {
			brokers.mu.Lock()
			defer brokers.mu.Unlock()
			return owed
		}
		brokers.mu.Lock()
		after := func(d time.Duration) {
			brokers.mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			brokers.mu.Lock()
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { l.Run(ctx); close(ended) }()
		after(10*time.Minute + time.Second)
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "ncs.sink.a")
		require.Contains(t, log.String(), "allow this user Read on the consumer group")
		require.InDelta(t, 10, brokers.asked, 1, "not again and again")

		brokers.refuse = 0
		after(10 * time.Minute)
		require.Equal(t, []map[int32]int64{{0: 93, 1: 50}}, brokers.taken, "nothing has moved since")
		owed = []Backlog{{"a", 0, 110, 17}, {"a", 1, 51, 0}}
		after(time.Minute)
		require.Equal(t, map[int32]int64{1: 51}, brokers.taken[1])
		owed = owed[1:] // another has shard 0
		after(time.Minute)
		owed = []Backlog{{"a", 0, 110, 17}, {"a", 1, 51, 0}}
		after(time.Minute)
		require.Equal(t, []map[int32]int64{{0: 93}}, brokers.taken[2:], "what the other has committed is not known")
		after(time.Hour)
		require.Equal(t, []map[int32]int64{{0: 93, 1: 51}}, brokers.taken[3:], "brokers forget what is not committed again")
		brokers.mu.Unlock()
		cancel()
		<-ended
	})
}
