package kafkasink_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay"
)

// produced are the produce requests a cluster got, as they were on the wire.
type produced struct {
	mu       sync.Mutex
	requests []kmsg.RecordBatch
	raw      [][]byte
}

func watchProduce(cluster *kfake.Cluster) *produced {
	p := &produced{}
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		p.add(r)
		return nil, nil, false
	})
	return p
}

func (p *produced) add(r kmsg.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	raw := r.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records
	var batch kmsg.RecordBatch
	if batch.ReadFrom(raw) == nil {
		p.requests = append(p.requests, batch)
		p.raw = append(p.raw, bytes.Clone(raw))
	}
}

// identities tells for each request which producer (counted from 0 in the order they came) sent which sequence and how
// many records.
func (p *produced) identities() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	order := make(map[int64]int)
	var all []string
	for _, r := range p.requests {
		if _, known := order[r.ProducerID]; !known {
			order[r.ProducerID] = len(order)
		}
		all = append(all, fmt.Sprintf("producer %d: %d+%d", order[r.ProducerID], r.FirstSequence, r.NumRecords))
	}
	return all
}

// loseAnswers makes the cluster append the next n batches and answer that replicas are missing.
func loseAnswers(cluster *kfake.Cluster, n int) *kfake.FaultHandle {
	return cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: n})
}

func fails(t *testing.T, send func() (int, error)) {
	t.Helper()
	taken, err := send()
	require.Error(t, err)
	require.Zero(t, taken)
	require.False(t, relay.IsPermanent(err), "%v", err)
}

func TestABatchWhoseAnswerIsLostIsNotDoubled(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(10)...)
	lane := learn(t, sink, batch)
	requests := watchProduce(cluster)
	loseAnswers(cluster, 2)

	for range 2 {
		fails(t, func() (int, error) { return sink.Send(t.Context(), lane, batch) })
	}
	send(t, sink, lane, batch)
	send(t, sink, lane, attempts("e", "next"))

	require.Equal(t, append(numbered(10), "next"), values(read(t, cluster, 11)))
	require.Equal(t, []string{"producer 0: 0+10", "producer 0: 0+10", "producer 0: 0+10", "producer 0: 10+1"}, requests.identities())
	require.Equal(t, requests.raw[0], requests.raw[1], "sent again byte for byte")
	require.Equal(t, requests.raw[0], requests.raw[2])
}

// A leader that waits for a replica which is gone answers so. The batch is in its log.
func TestATimeOutOfReplicasIsRepeatedAtOnce(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(10)...)
	lane := learn(t, sink, batch)
	requests := watchProduce(cluster)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 2})

	taken, err := sink.Send(t.Context(), lane, batch)
	require.NoError(t, err)
	require.Equal(t, 10, taken)
	require.Equal(t, []string{"producer 0: 0+10", "producer 0: 0+10", "producer 0: 0+10"}, requests.identities())
	require.Equal(t, requests.raw[0], requests.raw[2], "byte for byte")
	require.Equal(t, numbered(10), values(read(t, cluster, 10)))
}

func TestAConnectionThatBreaksBeforeTheAnswerDoublesNothing(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(10)...)
	lane := learn(t, sink, batch)
	send(t, sink, lane, batch[:5])
	ctx, cancel := context.WithCancel(t.Context())
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cancel() // the sink gives up; the cluster goes on
		return nil, nil, false
	})
	_, err := sink.Send(ctx, lane, batch[5:])
	if err != nil { // else the answer was faster
		send(t, sink, lane, batch[5:])
	}
	require.Equal(t, numbered(10), values(read(t, cluster, 10)))
}

func TestEachLaneHasItsOwnProducer(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 12)
	sink := newSink(t, cluster.ListenAddrs())
	learn(t, sink, attempts("channel-1", "x"))
	requests := watchProduce(cluster)
	for _, entity := range []string{"channel-1", "channel-2", "channel-1"} { // partitions 1, 10, 1
		batch := attempts(entity, "a", "b")
		send(t, sink, sink.Lane(batch[0].Event), batch)
	}
	require.Equal(t, []string{"producer 0: 0+2", "producer 1: 0+2", "producer 0: 2+2"}, requests.identities())
}

func TestOtherEventsThanTheUnansweredTakeANewProducer(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "a", "b", "c")
	lane := learn(t, sink, batch)
	requests := watchProduce(cluster)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas}) // not written
	fails(t, func() (int, error) { return sink.Send(t.Context(), lane, batch) })

	send(t, sink, lane, batch[1:]) // "a" was given up

	require.Equal(t, []string{"producer 0: 0+3", "producer 1: 0+2"}, requests.identities())
	require.Equal(t, []string{"b", "c"}, values(read(t, cluster, 2)))
}

func TestAReplayBetweenTwoTriesDoublesNothing(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "a", "b")
	lane := learn(t, sink, batch)
	loseAnswers(cluster, 1)
	fails(t, func() (int, error) { return sink.Send(t.Context(), lane, batch) })

	for number := range uint32(3) {
		replayed := attempts("e", "again")
		replayed[0].Replay = number + 1
		send(t, sink, lane, replayed)
	}
	send(t, sink, lane, batch)

	require.Equal(t, []string{"a", "b", "again", "again", "again"}, values(read(t, cluster, 5)))
}

func TestALostProducerIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.UnknownProducerID, kerr.InvalidProducerIDMapping} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			var log bytes.Buffer
			sink := newSinkOf(t, configured(cluster.ListenAddrs(), topic), slog.New(slog.NewTextHandler(&log, nil)))
			batch := attempts("e", "a", "b", "c")
			lane := learn(t, sink, batch)
			send(t, sink, lane, batch[:1])
			requests := watchProduce(cluster)
			cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: code})

			taken, err := sink.Send(t.Context(), lane, batch[1:])
			require.NoError(t, err)
			require.Equal(t, 2, taken)
			require.Equal(t, []string{"producer 0: 1+2", "producer 1: 0+2"}, requests.identities())
			require.Equal(t, []string{"a", "b", "c"}, values(read(t, cluster, 3)))
			require.Contains(t, log.String(), "may_be_doubled=0", "the broker did not write it")
		})
	}
}

// The answer to the first request is lost, and then the broker forgets the producer: nobody knows whether it is there.
func TestWhatMayBeDoubledIsSaid(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	var log bytes.Buffer
	sink := newSinkOf(t, configured(cluster.ListenAddrs(), topic), slog.New(slog.NewTextHandler(&log, nil)))
	batch := attempts("e", "a", "b", "c")
	lane := learn(t, sink, batch)
	requests := watchProduce(cluster)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut})
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.UnknownProducerID, When: func(kmsg.Request) bool {
		return len(requests.identities()) == 2
	}})
	taken, err := sink.Send(t.Context(), lane, batch)
	require.NoError(t, err)
	require.Equal(t, 3, taken)
	require.Equal(t, []string{"producer 0: 0+3", "producer 0: 0+3", "producer 1: 0+3"}, requests.identities())
	require.Contains(t, log.String(), "may_be_doubled=3")
}

func TestARepetitionThatTheBrokerCallsDuplicateIsTaken(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "a")
	lane := learn(t, sink, batch)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.DuplicateSequenceNumber})
	taken, err := sink.Send(t.Context(), lane, batch)
	require.NoError(t, err)
	require.Equal(t, 1, taken)
}

// A refused batch is not in the partition, so its sequence is free for what is made of it.
func TestSequencesHaveNoGapsAroundARefusedRecord(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(9)...)
	lane := learn(t, sink, batch)
	refuse(cluster, kerr.InvalidRecord, "body 005")
	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 5, taken)
	require.True(t, relay.IsPermanent(err))
	requests := watchProduce(cluster)
	send(t, sink, lane, batch[6:])
	require.Equal(t, []string{"producer 0: 5+3"}, requests.identities())
	read(t, cluster, 8)
}

func TestAnUnansweredPartOfABatchIsSentAgainAlone(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(8)...)
	lane := learn(t, sink, batch)
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		return refusal(r, kerr.MessageTooLarge, nil), nil, true
	})
	requests := watchProduce(cluster)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, When: func(r kmsg.Request) bool {
		return string(recordsOf(r)[0].Value) == "body 004"
	}})
	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 4, taken)
	require.False(t, relay.IsPermanent(err), "%v", err)
	require.Error(t, err)

	longer := append(batch[4:], attempts("e", "more", "yet more")...)
	send(t, sink, lane, longer)

	require.Equal(t, append(numbered(8), "more", "yet more"), values(read(t, cluster, 10)))
	require.Equal(t, []string{"producer 0: 0+4", "producer 0: 4+4", "producer 0: 4+4", "producer 0: 8+2"}, requests.identities())
}

func TestTheFirstIDIsWaitedFor(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "a")
	lane := learn(t, sink, batch)
	busy := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Err: kerr.CoordinatorLoadInProgress, Count: 2})
	taken, err := sink.Send(t.Context(), lane, batch)
	require.NoError(t, err)
	require.Equal(t, 1, taken)
	require.Equal(t, 2, busy.Hits())
}

func TestNoCoordinatorIsLookedUp(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	lookups := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Observe: true, Count: -1})
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "a")
	send(t, sink, learn(t, sink, batch), batch)
	require.Zero(t, lookups.Hits(), "it would create __transaction_state")
}

func TestWithoutProducerIDsItGoesOnAndSaysSoOnce(t *testing.T) {
	t.Parallel()
	for name, refuseIDs := range map[string]func(*kfake.Cluster){
		"access rules refuse ids": func(c *kfake.Cluster) {
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Err: kerr.ClusterAuthorizationFailed, Count: -1})
		},
		"access rules refuse batches with ids": func(c *kfake.Cluster) {
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.ClusterAuthorizationFailed, Count: -1,
				When: func(r kmsg.Request) bool {
					var batch kmsg.RecordBatch
					return batch.ReadFrom(r.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records) == nil && batch.ProducerID >= 0
				}})
		},
		"the version is not known": func(c *kfake.Cluster) {
			c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Err: kerr.UnsupportedVersion, Count: -1})
		},
		"the request is not known": func(c *kfake.Cluster) {
			c.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				return nil, fmt.Errorf("unknown request"), true // closes the connection
			})
			c.ControlKey(int16(kmsg.ApiVersions), func(r kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				response := r.ResponseKind().(*kmsg.ApiVersionsResponse)
				for _, key := range []kmsg.Key{kmsg.Produce, kmsg.Metadata, kmsg.ApiVersions, kmsg.CreateTopics, kmsg.DescribeConfigs} {
					known := kmsg.NewApiVersionsResponseApiKey()
					known.ApiKey, known.MinVersion, known.MaxVersion = int16(key), 0, 3
					response.ApiKeys = append(response.ApiKeys, known)
				}
				return response, nil, true
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 12)
			refuseIDs(cluster)
			var log bytes.Buffer
			sink := newSinkOf(t, configured(cluster.ListenAddrs(), topic), slog.New(slog.NewTextHandler(&log, nil)))
			learn(t, sink, attempts("channel-1", "x"))
			requests := watchProduce(cluster)
			for _, entity := range []string{"channel-1", "channel-2"} { // partitions 1 and 10
				batch := attempts(entity, "a", "b")
				taken, err := sink.Send(t.Context(), sink.Lane(batch[0].Event), batch)
				require.NoError(t, err)
				require.Equal(t, 2, taken)
			}
			require.Equal(t, 1, strings.Count(log.String(), "gives no producer ids"), log.String())
			require.EqualValues(t, -1, requests.requests[len(requests.requests)-1].ProducerID)
		})
	}
}

func TestIdempotenceCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	cfg := configured(cluster.ListenAddrs(), topic)
	cfg.Idempotence = false
	sink := newSinkOf(t, cfg, discard)
	asked := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Observe: true, Count: -1})
	batch := attempts("e", "a")
	send(t, sink, learn(t, sink, batch), batch)
	require.Zero(t, asked.Hits())
	require.Empty(t, cmp.Diff([]string{"a"}, values(read(t, cluster, 1))))
}
