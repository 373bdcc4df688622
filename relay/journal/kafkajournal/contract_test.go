package kafkajournal

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

func testOptions(t testing.TB, l logs, shards int) Options {
	return Options{Prefix: "ncs", Shards: shards, Replica: "one", Retention: time.Hour, Dead: journal.DeadConfig{Retention: 24 * time.Hour, MaxSize: 1 << 30},
		MaxRecord: 100_000, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), logs: l}
}

func TestContractInMemory(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) journaltest.Opener {
		m := newMemLogs()
		return func(t testing.TB) journal.Opened {
			j, err := Open(t.Context(), testOptions(t, m, 1))
			require.NoError(t, err)
			return j
		}
	})
}

// topicPrefix is a prefix of topics for one test.
func topicPrefix(t testing.TB) string {
	return fmt.Sprintf("t%x", fnvOf(t.Name()))
}

func fnvOf(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
