package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal/kafkajournal/topics"
)

// cutOffFrom cuts a replica off from the brokers that are named, or all of them, while clients still reach it. The others must
// deliver for it within a time.
func cutOffFrom(most time.Duration, brokers func(f *fleet) []int) func(f *fleet) []uint32 {
	return func(f *fleet) []uint32 {
		r := f.named(cutOff)
		shards := r.trouble("replica cut off")
		mend := f.kafka.Cut(f.t, cutListener, brokers(f)...)
		defer mend()
		began := time.Now()
		refused := 0
		for i := range 4 * fleetShards { // of some of them the leader is away
			entity := fmt.Sprint("cut-", began.UnixNano(), "-", i)
			status, took := f.one(r, recording(entity, 1, 1), eventRef{entity, 0})
			require.Less(f.t, took, 8*time.Second)
			if status == http.StatusServiceUnavailable {
				refused++
				break
			}
			require.Equal(f.t, http.StatusOK, status)
		}
		require.NotZero(f.t, refused, "each call is answered 200")
		f.until(15*time.Second, "a replica is ready that cannot store", func() bool { return !r.look() })
		f.t.Logf("not ready %.1f s after the cut", time.Since(began).Seconds())
		f.until(most+time.Minute, "the others do not have its shards", func() bool {
			return f.books.missing("service", time.Now().Add(-time.Second)) == 0
		})
		f.t.Logf("everything arrives %.1f s after the cut", time.Since(began).Seconds())
		require.Less(f.t, time.Since(began), most)
		for range 20 {
			require.False(f.t, r.look(), "a replica is ready that cannot store")
			time.Sleep(100 * time.Millisecond)
		}
		mend()
		r.untilReady()
		r.over()
		f.shared(3)
		return shards
	}
}

func everyBroker(*fleet) []int { return nil }

func coordinator(f *fleet) []int { return []int{f.kafka.Leader(f.t, "__consumer_offsets", 0)} }

// noCoordinator is the one of the others that leads more.
func noCoordinator(f *fleet) []int {
	other := slices.DeleteFunc([]int{1, 2, 3}, func(id int) bool { return id == coordinator(f)[0] })
	leads := func(id int) int { return f.kafka.Leads(f.t, topics.NamesOf(f.prefix).Inbox, id) }
	return []int{slices.MaxFunc(other, func(a, b int) int { return leads(a) - leads(b) })}
}

// one makes a call to a replica, and books it.
func (f *fleet) one(r *replica, body []byte, event eventRef) (status int, took time.Duration) {
	f.books.begin(body)
	f.books.goesTo(body, r.name)
	began := time.Now()
	status, answer, err := f.post(f.t.Context(), r, body, signedBy(body))
	if err != nil {
		f.t.Errorf("%s: %v", r.name, err)
	}
	sent := sentOf(event.entity, body, answer)
	sent.Status = status
	f.books.end(sent)
	return status, time.Since(began)
}

// killedAt kills a replica at the instant when it has asked for something to be written to a topic: before it is there, or, with
// answers, before the replica knows. What is under way then arrives when others have its shards.
func killedAt(topic func(topics.Names) string, answers bool) func(f *fleet) []uint32 {
	return func(f *fleet) []uint32 {
		r := f.named(cutOff)
		hold := f.kafka.HoldWrites
		if answers {
			hold = f.kafka.HoldAnswers
		}
		held, mend := hold(f.t, cutListener, topic(topics.NamesOf(f.prefix)))
		defer mend()
		select {
		case <-held:
		case <-time.After(time.Minute):
			require.FailNow(f.t, "nothing is written")
		}
		shards := r.kill()
		f.shared(2)
		f.caughtUp()
		mend()
		time.Sleep(time.Second) // for what arrives late
		r.again()
		f.shared(3)
		return shards
	}
}

// clockSet runs a replica whose clock is wrong: while a sink fails, when others take over from it, and when it takes over from them. Nothing
// may be given up, and what the books say of the rest must hold as ever.
func clockSet(by time.Duration) func(f *fleet) []uint32 {
	return func(f *fleet) []uint32 {
		program, r := f.clocked(), f.named("relay-2")
		dead := f.dead()
		r.stop()
		r.program, r.env = program, []string{fmt.Sprint(clockVariable, "=", by.Seconds())}
		r.launch()
		r.untilReady()
		f.shared(3)
		f.refusing.Store(true)
		time.Sleep(40 * time.Second) // old records are looked for every 30 s
		shards := r.kill()           // while deliveries wait for a retry
		f.shared(2)
		f.refusing.Store(false)
		f.caughtUp()
		r.again()
		f.shared(3)
		f.refusing.Store(true)
		time.Sleep(5 * time.Second)
		r.stop()
		f.refusing.Store(false)
		r.program, r.env = "", nil
		r.launch()
		r.untilReady()
		f.shared(3)
		require.Equal(f.t, dead, f.dead(), "deliveries were given up")
		return shards
	}
}

// dead is how many deliveries were given up, by sink.
func (f *fleet) dead() map[string]uint64 {
	f.t.Helper()
	dead := map[string]uint64{}
	f.until(10*time.Second, "no replica answers for all", func() bool {
		s, ok := f.status()
		for _, sink := range s.Sinks {
			dead[sink.Name] = sink.Dead
		}
		return ok && len(s.Unanswered) == 0
	})
	return dead
}

// clockVariable is how many seconds the clock of a program made by clocked is ahead.
const clockVariable = "NCS_RELAY_TEST_CLOCK"

// clocked makes a relay whose clock can be wrong. The monotonic one stays as it is, as it does when somebody sets a machine's clock.
func (f *fleet) clocked() (program string) {
	dir := f.t.TempDir()
	root, err := exec.CommandContext(f.t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(f.t, err)
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	clock := filepath.Join(library, "time.go")
	text, err := os.ReadFile(clock)
	require.NoError(f.t, err)
	const reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	require.Contains(f.t, string(text), reads, "time.Now of another version of Go")
	overlay := map[string]string{}
	replace := func(name, text string) {
		path := filepath.Join(dir, filepath.Base(name))
		require.NoError(f.t, os.WriteFile(path, []byte(text), 0o600))
		overlay[name] = path
	}
	replace(clock, strings.Replace(string(text), reads, reads+"\tsec += ahead\n", 1))
	replace(filepath.Join(library, "ahead.go"), `package time

import "syscall"

var ahead = func() int64 {
	text, _ := syscall.Getenv("`+clockVariable+`")
	seconds, _ := atoi(text)
	return int64(seconds)
}()
`)
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	require.NoError(f.t, err)
	require.NoError(f.t, os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600))
	program = filepath.Join(dir, "ncs-relay")
	out, err := exec.CommandContext(f.t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".").CombinedOutput()
	require.NoError(f.t, err, "%s", out)
	return program
}

// besides is a replica that lives, another one than r.
func (f *fleet) besides(r *replica) *replica {
	all := f.all()
	return all[slices.IndexFunc(all, func(other *replica) bool { return other != r && other.alive() })]
}
