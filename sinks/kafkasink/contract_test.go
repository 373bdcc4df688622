package kafkasink_test

import (
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/sinks/kafkasink"
	"ncs-relay/sinks/sinktest"
)

func TestContract(t *testing.T) {
	sinktest.Run(t, sinktest.Harness{CarriesTraceparent: true, New: newFixture})
}

func newFixture(t *testing.T, logger *slog.Logger) sinktest.Fixture {
	cluster := fake(t, 0)
	require.NoError(t, cluster.CreateTopic(topic, 7, map[string]string{"max.message.bytes": "4000000"}))
	sink, err := kafkasink.New(configured(cluster.ListenAddrs(), topic), "contract", logger)
	require.NoError(t, err)
	learn(t, sink, attempts("e", "x"))
	faults := &faults{byID: make(map[string]fault)}
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		what := faults.of(recordsOf(r))
		if what != none && len(r.(*kmsg.ProduceRequest).Topics[0].Partitions) > 1 {
			what = hanging // of batches that share a request each is soon sent by itself
		}
		switch what {
		case failing:
			return refusal(r, kerr.NotEnoughReplicas, nil), nil, true
		case refusing:
			return refusal(r, kerr.InvalidRecord, nil), nil, true
		case hanging:
			return nil, nil, true // never answered
		}
		return nil, nil, false
	})
	return sinktest.Fixture{
		Sink:     sink,
		Received: func(t *testing.T) []sinktest.Received { return received(t, cluster) },
		Fail:     faults.set(failing),
		Refuse:   faults.set(refusing),
		Hang:     faults.set(hanging),
		Heal:     faults.clear,
	}
}

type fault int

const (
	none fault = iota
	failing
	refusing
	hanging
)

// faults are what a broker does with batches that hold certain events.
type faults struct {
	mu   sync.Mutex
	byID map[string]fault
}

func (f *faults) set(what fault) func(id string) {
	return func(id string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.byID[id] = what
	}
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.byID)
}

func (f *faults) of(records []kmsg.Record) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, record := range records {
		for _, header := range record.Headers {
			if what := f.byID[string(header.Value)]; header.Key == "ncs-event-id" && what != none {
				return what
			}
		}
	}
	return none
}

func received(t *testing.T, cluster *kfake.Cluster) []sinktest.Received {
	total := 0
	for _, partition := range cluster.PartitionInfos(topic) {
		total += int(partition.HighWatermark)
	}
	var all []sinktest.Received
	for _, record := range read(t, cluster, total) {
		header := headersOf(record)
		all = append(all, sinktest.Received{
			ID: header["ncs-event-id"], Product: header["ncs-product"], Event: header["ncs-event"],
			EventType: header["ncs-event-type"], Category: header["ncs-category"], Source: header["ncs-source"],
			ReceivedAt: header["ncs-received-at"], Replay: header["ncs-replay"], Test: header["ncs-test"], Traceparent: header["traceparent"],
			ContentType: header["content-type"], SignatureV1: header["agora-signature"], SignatureV2: header["agora-signature-v2"],
			Entity: string(record.Key), Body: record.Value,
		})
	}
	return all
}

func headersOf(record *kgo.Record) map[string]string {
	headers := make(map[string]string)
	for _, h := range record.Headers {
		headers[h.Key] = string(h.Value)
	}
	return headers
}
