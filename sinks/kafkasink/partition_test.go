package kafkasink

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
)

var java = partitioner(javaPartition)

// What org.apache.kafka.common.utils.Utils.murmur2 and BuiltInPartitioner.partitionForKey of kafka-clients 4.3.1 give.
var javaPartitions = []struct {
	key             string
	hash            uint32
	of3, of12, of1k int
}{
	{"a", 2731586172, 1, 4, 524},
	{"ab", 316155434, 2, 2, 434},
	{"abc", 479470107, 0, 3, 107},
	{"abcd", 2971317748, 2, 8, 100},
	{"abcde", 461995741, 1, 1, 741},
	{"0", 971027396, 2, 8, 396},
	{"00000000000000000000000000000000", 3973821969, 1, 1, 321},
	{"f81d4fae-7dec-11d0-a765-00a0c91e6bf6", 2998981804, 2, 8, 156},
	{"00d8f1b1c2a34e5f8a9b0c1d2e3f4a5b", 1706182595, 2, 11, 595},
	{"channel-1", 2347547757, 1, 1, 109},
	{"channel-2", 3451954230, 1, 10, 582},
	{"lobby/über", 2425873567, 2, 11, 919},
	{"会议室", 3867160303, 2, 11, 655},
	{"😀", 131881617, 0, 9, 617},
	{"the quick brown fox jumps over the lazy dog", 3404900616, 1, 4, 968},
	{"\u0000\u0001\u00ff", 3807679592, 0, 0, 944},
}

func TestEntitiesGoWhereTheJavaClientPutsThem(t *testing.T) {
	t.Parallel()
	for _, want := range javaPartitions {
		require.Equal(t, want.hash, murmur2(want.key), "%q", want.key)
		ev := &relay.Event{Entity: want.key}
		require.Equal(t, []int{want.of3, want.of12, want.of1k, 0},
			[]int{java.place(ev, 3), java.place(ev, 12), java.place(ev, 1000), java.place(ev, 1)}, "%q", want.key)
	}
}

func TestEventsWithoutEntityAreSpread(t *testing.T) {
	t.Parallel()
	const count, events = 7, 7000
	perPartition := make([]int, count)
	for i := range uint32(events) {
		ev := &relay.Event{}
		binary.BigEndian.PutUint32(ev.ID[:], i*2654435761) // ids are a hash
		p := java.place(ev, count)
		require.Equal(t, p, java.place(ev, count), "the same event goes to the same partition")
		perPartition[p]++
	}
	for p, n := range perPartition {
		require.InDelta(t, events/count, n, 100, "partition %d", p)
	}
}
