package kafkajournal

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// choosy is a tenure that gives up what is refused.
type choosy struct {
	*tenure
	accepted chan int32
}

func (c choosy) Refuse(shard int32) {
	shards, _ := c.Owned()
	c.set(true, slices.DeleteFunc(shards, func(s int32) bool { return s == shard })...)
}

func (c choosy) Accept(shard int32) { c.accepted <- shard }

func (c choosy) Elsewhere(shard int32) bool {
	shards, _ := c.Owned()
	return !slices.Contains(shards, shard)
}

// A replica may lack the way to one broker, while the cluster, and its group, are well.
func TestAShardOutOfReachIsLeftToOthersUntilItIsReached(t *testing.T) {
	var own choosy
	alone(t, func(o *Options) { own = choosy{newTenure(0), make(chan int32, 10)}; o.Ownership = own }, func(j *Journal, l *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 1, "a")
		journaltest.Drain(t, a, 1)
		l.setCut(kafka.LeaderNotAvailable)
		a.Settle(recs[0].Position, journal.Delivered)
		time.Sleep(time.Minute)
		require.Empty(t, own.released, "others would fare no better")
		l.setCut(nil)
		time.Sleep(2 * time.Second)
		l.setCut(errors.New("no route"))
		time.Sleep(30 * time.Second)
		shards, _ := own.Owned()
		require.Empty(t, shards)
		a.End()
		time.Sleep(15 * time.Second)
		require.Len(t, own.released, 1, "though its state cannot be stored")
		require.ErrorIs(t, j.Ready(), errOutOfReach)
		require.Empty(t, own.accepted)
		l.setCut(nil)
		time.Sleep(10 * time.Second)
		require.Len(t, own.accepted, 1)
		require.NoError(t, j.Ready())
	})
}

// A shard is taken over when control was followed to its end, which one broker leads.
func TestWithoutTheWayToControlAllShardsAreLeftToOthers(t *testing.T) {
	var own choosy
	alone(t, func(o *Options) { o.Shards = 2; own = choosy{newTenure(0), make(chan int32, 10)}; o.Ownership = own }, func(j *Journal, _ *link, m *memLogs) {
		m.hide("ncs.control")
		own.set(true, 0, 1)
		time.Sleep(stuckAfter + 2*watchInterval + 2*reachWithin)
		shards, _ := own.Owned()
		require.Empty(t, shards)
		m.hide("")
		time.Sleep(2 * watchInterval)
		require.Len(t, own.accepted, 2)
	})
}

func (l *link) setCut(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = err
}

// Whatever the reason is, and if there is none that the process knows of, nobody is delivered what is in the shard.
func TestItIsToldForHowLongAShardWasNotJudged(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 1, "a")
		journaltest.Drain(t, a, 1)
		time.Sleep(time.Minute)
		require.LessOrEqual(t, j.SharedStats().Unread, time.Second)
		m.refuse("ncs.events", func([]kafkalog.Record) error { return kafka.TopicAuthorizationFailed })
		_, err := journaltest.Append(j, journaltest.Record(1, "a"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, time.Minute, j.SharedStats().Unread.Round(time.Second))
		m.setBefore(nil)
		time.Sleep(2 * time.Second)
		require.LessOrEqual(t, j.SharedStats().Unread, time.Second)
		journaltest.Drain(t, a, 1)
	})
}

// What is being stored there is broken off: until it has failed by itself others would wait for the shard.
func TestAShardOutOfReachIsLetGoSoon(t *testing.T) {
	for later := range 8 {
		t.Run(fmt.Sprint(later), func(t *testing.T) {
			var own choosy
			alone(t, func(o *Options) { own = choosy{newTenure(0), make(chan int32, 10)}; o.Ownership = own }, func(j *Journal, l *link, _ *memLogs) {
				a := journaltest.Sink(t, j, "a")
				recs := journaltest.Fill(t, j, 0, 1, "a")
				journaltest.Drain(t, a, 1)
				hear := l.deafen()
				defer hear()
				time.Sleep(time.Duration(later) * time.Second)
				a.Settle(recs[0].Position, journal.Delivered)
				for shards, _ := own.Owned(); len(shards) > 0; shards, _ = own.Owned() {
					time.Sleep(10 * time.Millisecond)
				}
				refused := time.Now()
				a.End()
				<-own.released
				require.LessOrEqual(t, time.Since(refused), reachWithin+100*time.Millisecond)
			})
		})
	}
}
