package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/admin"
)

// twoConfigurations runs three replicas with three configurations: with a sink more, with that and another rule, and without it. What
// is owed to a sink that an owner does not know is carried and counted until one comes that does.
func twoConfigurations(f *fleet) []uint32 {
	sink := "sinks:\n  - name: extra\n    http: {url: \"http://" + f.receiver + "/extra\", concurrency: 48}\n    retry: {initial: 50ms, max_interval: 1s}\n"
	more := []string{"sinks:\n", sink, "to: [service", "to: [extra, service"}
	rule := []string{"sinks:\n", sink, "routes:\n", "routes:\n  - {to: [extra], match: {event: uploaded}}\n"}
	restart := func(r *replica, replaced ...string) {
		r.stop()
		r.configure(replaced...)
		r.launch()
		r.untilReady()
		f.shared(3)
	}
	one, two, three := f.named("relay-1"), f.named("relay-2"), f.named("relay-3")
	restart(one, more...)
	restart(two, rule...)
	began := time.Now()
	time.Sleep(5 * time.Second)
	hashes := map[string]bool{}
	answer, err := f.call("GET", three, "/api/v1/status", "")
	require.NoError(f.t, err)
	var said struct {
		Replicas []struct {
			Status struct{ Config struct{ Hash string } }
		}
	}
	require.NoError(f.t, json.Unmarshal(answer, &said))
	for _, r := range said.Replicas {
		hashes[r.Status.Config.Hash] = true
	}
	require.Len(f.t, hashes, 3, "%s", answer)
	out, err := exec.CommandContext(f.t.Context(), "ncs-relay", "status", "--admin", three.admin).CombinedOutput()
	require.NoError(f.t, err, "%s", out)
	require.Contains(f.t, string(out), "THE CONFIGURATIONS DIFFER")
	f.refusing.Store(true)
	time.Sleep(3 * time.Second)
	one.stop()
	two.stop()
	f.shared(1)
	var pending uint64
	f.until(10*time.Second, "nobody carries what is owed to the sink that one replica knows", func() bool {
		s, _ := f.status()
		for _, sink := range s.Sinks {
			if sink.Name == "extra" {
				pending = sink.Pending
			}
		}
		return pending > 0
	})
	f.t.Logf("owed to a sink that no replica knows: %d", pending)
	f.refusing.Store(false)
	one.launch()
	one.untilReady()
	two.configure(more...)
	two.launch()
	two.untilReady()
	f.shared(3)
	restart(three, more...)
	f.until(90*time.Second, "what was owed to the sink that one replica knew does not arrive", func() bool {
		return f.books.missingOf("extra", one.name, began) == 0
	})
	f.t.Logf("%d events arrived at the sink that not all replicas knew", f.books.count("extra"))
	return nil
}

// commandsDuringTakeOver gives commands while nobody has some of the shards, and again when somebody has.
func commandsDuringTakeOver(f *fleet) []uint32 {
	f.refusing.Store(true)
	began := time.Now().Add(-5 * time.Second)
	time.Sleep(3 * time.Second)
	killed := f.richest()
	other := f.besides(killed)
	shards := killed.kill()
	replay := fmt.Sprintf(`{"sink": "service", "since": %q, "until": %q}`, began.Format(time.RFC3339Nano), time.Now().Format(time.RFC3339Nano))
	answer, err := f.call("POST", other, "/api/v1/replays", replay)
	require.Error(f.t, err, "it covers less than it says: %s", answer)
	f.t.Logf("a replay during a take-over: %v", err)
	skipped := f.skip(other) // goes on until all shards have an owner
	f.shared(2)
	skipped += f.skip(other)
	at := time.Now()
	f.refusing.Store(false)
	f.until(90*time.Second, "what was not skipped does not arrive", func() bool {
		return f.books.missing("service", time.Now()) == 0 && f.books.missing("shaky", time.Now()) <= skipped
	})
	require.Equal(f.t, skipped, f.books.missing("shaky", at), "skipped, and did not arrive")
	f.books.exceptMissing("shaky", at)
	for range 2 {
		answer, err := f.call("POST", other, "/api/v1/replays", replay)
		require.NoError(f.t, err)
		var made struct {
			Matched map[string]int
			Replays []struct{ Replay uint32 }
		}
		require.NoError(f.t, json.Unmarshal(answer, &made))
		require.Len(f.t, made.Replays, 1)
		require.NotZero(f.t, made.Matched["service"])
		again := fmt.Sprint("service, replay ", made.Replays[0].Replay)
		for deadline := time.Now().Add(30 * time.Second); f.books.count(again) < made.Matched["service"]; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				list, err := f.call("GET", other, "/api/v1/replays", "")
				require.FailNow(f.t, "a replay does not end", "%d arrived; %s, %v", f.books.count(again), list, err)
			}
		}
		time.Sleep(time.Second)
		require.Equal(f.t, made.Matched["service"], f.books.count(again))
		f.t.Logf("%s: %d events", again, made.Matched["service"])
	}
	killed.again()
	f.shared(3)
	return shards
}

// skip settles what waits for the sink that refuses, as far as there are owners, and returns how much.
func (f *fleet) skip(r *replica) int {
	answer, err := f.call("POST", r, "/api/v1/pending/skip", `{"sink": "shaky", "all": true}`)
	require.NoError(f.t, err)
	var said struct {
		Skipped    int
		Unanswered []admin.Unanswered
	}
	require.NoError(f.t, json.Unmarshal(answer, &said))
	require.Empty(f.t, said.Unanswered, "%s", answer)
	f.t.Logf("skipped: %.300s", answer)
	return said.Skipped
}

// TestClusterWindow sends copies over a take-over, while a sink is down: those within the window are copies for the new owner too,
// and those beyond are delivered again, with the same id. It is in the long form.
func TestClusterWindow(t *testing.T) {
	if !*clusterFaults {
		t.Skip("with -cluster.faults")
	}
	const window = 40 * time.Second
	f := newFleet(t, startFleetKafka(t), "window")
	f.replaced = []string{"journal:\n", fmt.Sprintf("dedup: {window: %s}\njournal:\n", window)}
	f.add("a")
	f.add("b")
	f.watch(t.Context())
	f.shared(2)
	f.refusing.Store(true)
	send := func(round int) {
		for i := range 3 * fleetShards {
			entity := fmt.Sprint("copied-", i)
			status, _ := f.one(f.named("b"), recording(entity, 1, int64(1000+round)), eventRef{entity, 0})
			require.Equal(t, http.StatusOK, status)
		}
	}
	send(0)
	began := time.Now()
	a := f.named("a")
	a.kill()
	send(1)
	f.shared(1)
	a.again()
	f.shared(2)
	a.stop() // what b had goes to nobody else, what it gets is read back
	send(2)
	require.Less(t, time.Since(began), window, "the machine is too slow for this test")
	f.refusing.Store(false)
	f.caughtUp()
	time.Sleep(2 * time.Second)
	require.Equal(t, 3*fleetShards, f.books.count("shaky"), "each once")
	time.Sleep(window + 2*time.Second) // whoever takes a shard knows what it reads back for as long again
	send(3)
	f.until(time.Minute, "copies beyond the window are not delivered", func() bool { return f.books.count("shaky") == 6*fleetShards })
	v := f.books.judge("shaky")
	t.Log(v)
	require.Empty(t, v.Lost)
	require.Empty(t, v.OutOfOrder)
	require.Zero(t, v.OtherID+v.Foreign)
}
