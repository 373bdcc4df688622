package kafkasink

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestLanesShareARefresh(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.SeedTopics(1, "t"))
	require.NoError(t, err)
	defer cluster.Close()
	var refreshes atomic.Int32
	cluster.ControlKey(int16(kmsg.CreateTopics), func(kmsg.Request) (kmsg.Response, error, bool) {
		refreshes.Add(1)
		return nil, nil, false
	})
	s, err := New(Config{Brokers: cluster.ListenAddrs(), Topic: "t"}, "events", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer s.Close()

	failed := time.Now()
	s.refresh(t.Context(), failed)
	s.refresh(t.Context(), failed)
	require.EqualValues(t, 1, refreshes.Load(), "two lanes failed before the refresh began")
	s.refresh(t.Context(), time.Now())
	require.EqualValues(t, 2, refreshes.Load(), "one failed since")
}
