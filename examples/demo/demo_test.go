package main

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/simulate"
)

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	require.NoError(t, run(t.Context(), 60, false))
}

func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.EqualError(t, run(ctx, 60, false), "interrupted")
}

// accounts are books of two recordings, and what arrives when all is well.
func accounts(t *testing.T) (*books, arrivals) {
	t.Helper()
	b, all := newBooks(), arrivals{}
	for _, s := range []simulate.Sent{
		{Entity: "one", EventID: "1", Body: []byte(`{"payload":{"details":{"msgName":"recorder_started"}}}`)},
		{Entity: "two", EventID: "2", Body: []byte(`{"payload":{"details":{"msgName":"uploading_progress"}}}`)},
		{Entity: "one", EventID: "3", Body: []byte(`{"payload":{"details":{"msgName":"session_exit"}}}`)},
	} {
		b.accepted(s)
		for _, sink := range []string{"events", "billing", "archive"} {
			if wants(sink, b.events[s.EventID].event) {
				all[sink] = append(all[sink], arrival{id: s.EventID, body: string(s.Body)})
			}
		}
	}
	require.Empty(t, b.check(all))
	return b, all
}

func TestBooksFindEachFault(t *testing.T) {
	t.Parallel()
	for fault, change := range map[string]func(arrivals){
		"archive got event 2 (uploading_progress) 0 times instead of 1": func(all arrivals) { all["archive"] = slices.Delete(all["archive"], 1, 2) },
		"events got event 3 (session_exit) 2 times instead of 1":        func(all arrivals) { all["events"] = append(all["events"], all["events"][2]) },
		"billing got event 2 (uploading_progress) 1 times instead of 0": func(all arrivals) { all["billing"] = append(all["billing"], all["events"][1]) },
		"archive got event 1 of recording one after event 2":            func(all arrivals) { slices.Reverse(all["archive"]) },
		"billing got other bytes of event 1 than were accepted":         func(all arrivals) { all["billing"][0].body += " " },
		`events got event "4", which was not accepted`:                  func(all arrivals) { all["events"] = append(all["events"], arrival{id: "4"}) },
	} {
		b, all := accounts(t)
		change(all)
		require.Contains(t, b.check(all), fault)
	}
}

func TestTallyFaults(t *testing.T) {
	t.Parallel()
	b, _ := accounts(t)
	good := simulate.Tally{Events: 3, Copies: 1, Resends: 1, Forged: 1, Statuses: map[int]int{401: 1}, Outcomes: map[string]int{simulate.Accepted: 3}}
	require.Empty(t, tallyFaults(good, b))
	for fault, change := range map[string]func(*simulate.Tally){
		"2 times " + simulate.WrongForgedTaken:                             func(t *simulate.Tally) { t.Wrong = map[string]int{simulate.WrongForgedTaken: 2} },
		"1 events were never acknowledged":                                 func(t *simulate.Tally) { t.Unacknowledged = 1 },
		"4 events sent, 3 accepted":                                        func(t *simulate.Tally) { t.Events = 4 },
		"2 forged calls, 1 refused":                                        func(t *simulate.Tally) { t.Forged = 2 },
		"the run was too small to show copies, resends and bad signatures": func(t *simulate.Tally) { t.Resends = 0 },
	} {
		bad := good
		bad.Statuses, bad.Outcomes = maps.Clone(good.Statuses), maps.Clone(good.Outcomes)
		change(&bad)
		require.Equal(t, []string{fault}, tallyFaults(bad, b))
	}
}
