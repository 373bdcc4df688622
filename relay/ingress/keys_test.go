package ingress

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/relaytest"
)

func TestKeysComeAndGoWithTheirShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := relaytest.NewAssigned()
		a.Add(1, "e")
		a.Add(2, "e")
		d, err := newDedup(DedupConfig{MaxKeys: 100, Window: time.Hour}, time.Now)
		require.NoError(t, err)
		g := &Ingress{journal: a, dedup: d, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { g.followShards(ctx, nil) })
		known := func() (keys []int) {
			synctest.Wait()
			for n := 1; n <= 2; n++ {
				if c, standing := d.claim(relaytest.Identity(n, 1)); standing == isKnown {
					keys = append(keys, n)
				} else {
					d.settle(c, errors.New("not stored"))
				}
			}
			return keys
		}
		require.Empty(t, known())
		one := &journal.Shard{Number: 1, Of: 2}
		a.Assign(one)
		require.Equal(t, []int{1}, known())
		a.Assign(one, &journal.Shard{Number: 2, Of: 2})
		require.Equal(t, []int{1, 2}, known())
		a.Assign(one)
		require.Equal(t, []int{1}, known())
		cancel()
		wg.Wait()
	})
}
