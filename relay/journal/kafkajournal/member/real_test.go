package member

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn/kafkatest"
)

var churn = flag.Duration("member.churn", 0, "how long TestRealKafka kills, freezes and restarts replicas and brokers at random; also tries each failure of a coordinator")

const offsets = "__consumer_offsets" // of one partition: all groups have the same coordinator

func TestRealKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three brokers")
	}
	t.Parallel()
	kafka := kafkatest.Start(t, kafkatest.Options{Brokers: 3, Config: map[string]string{
		"broker.session.timeout.ms":    "6000", // as `check --connect` advises
		"group.min.session.timeout.ms": "1000",
	}})
	kafka.CreateTopic(t, topic, 24, nil)
	t.Run("contract", func(t *testing.T) { contract(t, kafka.Addresses(), true) })
	t.Run("coordinator killed", func(t *testing.T) { coordinatorFails(t, kafka, kafka.Kill, kafka.Run) })
	if *churn == 0 {
		return
	}
	t.Run("coordinator stopped", func(t *testing.T) { coordinatorFails(t, kafka, kafka.Stop, kafka.Run) })
	t.Run("coordinator paused", func(t *testing.T) { coordinatorFails(t, kafka, kafka.Pause, kafka.Resume) })
	t.Run("churn", func(t *testing.T) { anyLife(t, kafka) })
}

// No shard moves; and no lease ends, unless brokers that have too much to do need as long as one lasts.
func coordinatorFails(t *testing.T, kafka *kafkatest.Cluster, fail, mend func(testing.TB, int)) {
	f := newFleet(t, kafka.Addresses(), t.Name(), 10*time.Second)
	replicas := []*relayReplica{f.start("a"), f.start("b"), f.start("c")}
	f.awaitShares(t, replicas...)
	had := make(map[string][]int32)
	for _, r := range replicas {
		had[r.Name] = owned(r.Member)
	}
	coordinator := kafka.Leader(t, offsets, 0)
	began := time.Now()
	fail(t, coordinator)
	kafka.AwaitLeaderOtherThan(t, offsets, coordinator)
	elected := time.Since(began)
	for _, r := range replicas {
		await(t, "the next one answers heartbeats", func() bool { return r.Lease() > 9*time.Second })
	}
	t.Log("elected after", elected, "leases renewed after", time.Since(began))
	for _, r := range replicas {
		require.Equal(t, had[r.Name], owned(r.Member))
		if elected < f.session-time.Second {
			require.Zero(t, f.books.gap(t, r.Start, began), "%s had no lease for a while", r.Name)
		}
	}
	mend(t, coordinator)
	kafka.AwaitAll(t)
	kafka.AwaitInSync(t, offsets)
}

// anyLife does to replicas and brokers whatever happens to them, at random, and then leaves them alone. The books say whether two
// might ever act on one shard.
func anyLife(t *testing.T, kafka *kafkatest.Cluster) {
	f := newFleet(t, kafka.Addresses(), t.Name(), 10*time.Second)
	living := make(map[string]*child)
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names[:3] {
		living[name] = f.spawn(name)
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	done := make(map[string]int)
	for deadline := time.Now().Add(*churn); time.Now().Before(deadline); {
		name := names[random.IntN(len(names))]
		c, wait := living[name], time.Duration(random.Int64N(int64(2*f.session)))
		what := []string{"killed", "killed and started", "frozen", "stopped", "broker killed", "broker paused", "two"}[random.IntN(7)]
		switch {
		case what == "broker killed" || what == "broker paused":
			id := random.IntN(3) + 1
			if what == "broker killed" {
				kafka.Kill(t, id)
				pass(wait)
				kafka.Run(t, id)
			} else {
				kafka.Pause(t, id)
				pass(wait)
				kafka.Resume(t, id)
			}
			kafka.AwaitAll(t)
			kafka.AwaitInSync(t, offsets)
		case c == nil:
			what = "started"
			living[name] = f.spawn(name)
		case what == "killed":
			c.kill()
			delete(living, name)
		case what == "killed and started":
			c.kill()
			living[name] = f.spawnAt(name, c.Admin)
		case what == "frozen":
			c.signal(syscall.SIGSTOP)
			pass(wait)
			c.signal(syscall.SIGCONT)
		case what == "stopped":
			c.signal(syscall.SIGTERM)
			require.Zero(t, c.wait(), "%s", c.errors.String())
			delete(living, name)
		case what == "two": // of one name, of which the first is frozen for a while
			c.signal(syscall.SIGSTOP)
			second := f.spawn(name)
			pass(wait)
			c.signal(syscall.SIGCONT)
			select {
			case <-c.noted: // it was fenced
				require.Equal(t, 1, c.wait())
				living[name] = second
			case <-second.noted: // it found the first one alive
				require.Equal(t, 1, second.wait())
			case <-time.After(patience):
				t.Fatal("two replicas of one name live on")
			}
		}
		done[what]++
		pass(time.Duration(random.Int64N(int64(f.session / 2))))
		for name, c := range living { // one that was thawed beside a newcomer of its name that has fenced it
			if c.ended() {
				t.Log(name, "ended:", c.errors.String())
				delete(living, name)
			}
		}
	}
	for _, name := range names[:3] {
		if living[name] == nil {
			living[name] = f.spawn(name)
		}
	}
	var all []*child
	for _, c := range living {
		all = append(all, c)
	}
	t.Log("all is well again after", f.awaitFair(t, all...), fmt.Sprint(done))
}

// pass lets time pass in a test whose subject is time.
func pass(d time.Duration) { <-time.After(d) }

func (c *child) ended() bool {
	select {
	case <-c.noted:
		return true
	default:
		return false
	}
}
