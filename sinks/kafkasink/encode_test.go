package kafkasink

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/ncs"
)

func encodeBatch(n int) []relay.Attempt {
	batch := make([]relay.Attempt, n)
	for i := range batch {
		batch[i] = relay.Attempt{Number: 1, Event: &relay.Event{ID: ncs.EventID{byte(i)}, Info: ncs.Builtin().Lookup(3, 31), Source: "recording",
			Entity: "d12fdce9024d37862a8f3a88e387c817", ReceivedAt: time.UnixMilli(1767323045678), ContentType: "application/json",
			SignatureV2: fmt.Sprintf("%064d", i), Body: bytes.Repeat([]byte("x"), 700)}}
	}
	return batch
}

// TestARecordIsEncodedWithTwoAllocations: the buffers are used again. The two are the texts of event id and time.
func TestARecordIsEncodedWithTwoAllocations(t *testing.T) {
	var b batchBuilder
	p, batch := &producer{id: 1}, encodeBatch(50)
	build := func() {
		if _, err := b.build(p, batch, compress.None, false); err != nil {
			panic(err)
		}
	}
	build()
	require.LessOrEqual(t, testing.AllocsPerRun(100, build), float64(2*len(batch)))
}

// BenchmarkEncode makes the record batches of requests.
func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			var builder batchBuilder
			p, batch := &producer{id: 1}, encodeBatch(n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := builder.build(p, batch, compress.None, false); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}
