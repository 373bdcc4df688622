package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// TestOrderHoldsWithinATopic runs the example with a topic per category and one per product: in the latter each recording is
// in one partition and in order; in the former it is in several topics, in order within each.
func TestOrderHoldsWithinATopic(t *testing.T) {
	t.Parallel()
	types := map[string][]int{"recorder": {40, 41}, "uploader": {30, 31}, "service": {1, 11}}
	const recordings, sequences, whole, perCategory = 21, 12, "ncs.cloud_recording", "ncs.cloud_recording."
	topics := []string{whole}
	for category := range types {
		topics = append(topics, perCategory+category)
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(6, topics...))
	require.NoError(t, err)
	defer cluster.Close()
	broker := cluster.ListenAddrs()[0]

	example, err := os.ReadFile("../../examples/kafka-per-category.yaml")
	require.NoError(t, err)
	_, settings, found := strings.Cut(string(example), "\nsources:")
	require.True(t, found)
	text := strings.ReplaceAll(settings, `"kafka-1.internal:9092", "kafka-2.internal:9092", "kafka-3.internal:9092"`, `"`+broker+`"`)
	text = strings.Replace(text, "${NCS_SECRET:?copy it from the Console, Notifications}", serveSecret, 1)
	r := newRelay(t, relayBase+"sources:"+text)
	r.start()
	accepted := map[string][]string{} // bodies of a recording, in the order of their acceptance
	for sequence := range sequences {
		for n := range recordings {
			sid := fmt.Sprintf("recording-%d", n)
			kinds := types[[]string{"service", "recorder", "uploader"}[sequence%3]]
			body := strings.Replace(string(recording(sid, sequence, 1)), `"eventType":31`, fmt.Sprintf(`"eventType":%d`, kinds[sequence/3%2]), 1)
			require.Equal(t, "accepted", r.post([]byte(body)))
			accepted[sid] = append(accepted[sid], body)
		}
	}

	partitions, bodies := map[string]map[int32]bool{}, map[string][]string{}
	for _, record := range consumeRecords(t, broker, whole, recordings*sequences) {
		sid := string(record.Key)
		if partitions[sid] == nil {
			partitions[sid] = map[int32]bool{}
		}
		partitions[sid][record.Partition] = true
		bodies[sid] = append(bodies[sid], string(record.Value))
	}
	require.Equal(t, accepted, bodies, "the whole order")
	for sid := range accepted {
		require.Len(t, partitions[sid], 1, sid)
	}

	spread := map[string]int{} // topics of a recording
	for category := range types {
		within := map[string][]string{}
		for _, record := range consumeRecords(t, broker, perCategory+category, recordings*sequences/len(types)) {
			within[string(record.Key)] = append(within[string(record.Key)], string(record.Value))
		}
		for sid, got := range within {
			spread[sid]++
			var want []string
			for _, body := range accepted[sid] {
				for _, kind := range types[category] {
					if strings.Contains(body, fmt.Sprintf(`"eventType":%d,`, kind)) {
						want = append(want, body)
					}
				}
			}
			require.Equal(t, want, got, "%s in %s", sid, category)
		}
	}
	three := 0
	for _, n := range spread {
		if n == len(types) {
			three++
		}
	}
	require.Equal(t, recordings, three, "recordings that are in three topics")
	r.terminate()
}
