package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/simulate"
)

func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program, and waits for leases to end")
	}
	require.NoError(t, run(t.Context(), 3*time.Second, 13*time.Second, 60))
}

// ids of three events of one recording.
var ids = []string{"00000000000000000000000000000001", "00000000000000000000000000000002", "00000000000000000000000000000003"}

func TestBooksFindEachFault(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		arrive []int
		why    string // what happened to all shards
		fault  string
	}{
		"all is well":            {arrive: []int{0, 1, 2}},
		"repeated, with a cause": {arrive: []int{0, 1, 0, 1, 2}, why: "x was killed"},
		"repeated, without one":  {arrive: []int{0, 1, 0, 2}, fault: "nothing had happened to its owner"},
		"lost":                   {arrive: []int{0, 2}, fault: "was answered 200 and is lost"},
		"out of order":           {arrive: []int{0, 2, 1}, fault: "event 2 of recording r first arrived after event 3"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBooks()
			for _, id := range ids {
				b.answered(simulate.Sent{Entity: "r", EventID: id, Outcome: simulate.Accepted})
			}
			b.answered(simulate.Sent{Entity: "r", EventID: ids[0], Outcome: simulate.Duplicate})
			b.answered(simulate.Sent{Entity: "r", EventID: ids[0], Outcome: simulate.Accepted})
			for s := range uint32(shards) {
				b.trouble([]uint32{s}, tt.why)
			}
			for _, i := range tt.arrive {
				b.arrived(ids[i])
			}
			r := b.check()
			require.Equal(t, [2]int{1, 1}, [2]int{b.duplicates, b.copies})
			if tt.fault == "" {
				require.Empty(t, r.faults)
				return
			}
			require.Len(t, r.faults, 1)
			require.Contains(t, r.faults[0], tt.fault)
		})
	}
}
