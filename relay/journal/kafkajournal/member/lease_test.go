package member

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/describegroups"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn"
)

// stage stands in for the brokers, in fake time: the group's only member leads it, and all goes well unless a test says
// otherwise.
type stage struct {
	mu          sync.Mutex
	coordinator int32 // its port
	generation  int32
	assignment  []byte
	metadata    []byte
	asked       map[protocol.ApiKey]int
	codes       map[protocol.ApiKey]kafka.Error   // instead of success
	delays      map[protocol.ApiKey]time.Duration // of answers
	hang        map[string]bool                   // addresses that do not answer
	last        map[protocol.ApiKey]protocol.Message
	described   []describegroups.ResponseGroupMember
	askStart    func(context.Context, string) (string, error)
	stable      *table // of the group before the replica came back: it is given that, and no round is made
}

func (s *stage) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *stage) count(key protocol.ApiKey) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[key]
}

// request is the last one of a kind.
func (s *stage) request(key protocol.ApiKey) protocol.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[key]
}

func (s *stage) Reconnect() {}

func (s *stage) Ask(ctx context.Context, request protocol.Message) (protocol.Message, error) {
	return s.To(ctx, "any", request)
}

func (s *stage) To(ctx context.Context, address string, request protocol.Message) (protocol.Message, error) {
	s.mu.Lock()
	key := request.ApiKey()
	s.asked[key]++
	s.last[key] = request
	delay, hang := s.delays[key], s.hang[address]
	answer := s.answer(request, int16(s.codes[key]))
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if !kafkaconn.Pause(ctx, delay) {
		return nil, context.Cause(ctx)
	}
	return answer, nil
}

func (s *stage) answer(request protocol.Message, code int16) protocol.Message {
	switch r := request.(type) {
	case *findcoordinator.Request:
		return &findcoordinator.Response{ErrorCode: code, Host: "c", Port: s.coordinator}
	case *describegroups.Request:
		state := "Empty"
		if s.described != nil {
			state = "Stable"
		}
		return &describegroups.Response{Groups: []describegroups.ResponseGroup{{ErrorCode: code, GroupState: state, Members: s.described}}}
	case *joingroup.Request:
		if s.stable != nil {
			s.generation = s.stable.Generation
			return &joingroup.Response{MemberID: "m", LeaderID: "another", GenerationID: s.generation}
		}
		if code == 0 {
			s.generation++
			s.metadata = r.Protocols[0].Metadata
		}
		return &joingroup.Response{ErrorCode: code, MemberID: "m", LeaderID: "m", GenerationID: s.generation,
			Members: []joingroup.ResponseMember{{MemberID: "m", GroupInstanceID: r.GroupInstanceID, Metadata: s.metadata}}}
	case *syncgroup.Request:
		if s.stable != nil {
			s.assignment, _ = encodeTable(topic, "a", *s.stable)
			s.stable = nil
		} else if code == 0 {
			s.assignment = r.Assignments[0].Assignment
		}
		return &syncgroup.Response{ErrorCode: code, Assignments: s.assignment}
	case *heartbeat.Request:
		return &kafkaconn.HeartbeatResponse{ErrorCode: code}
	case *leavegroup.Request:
		return &leavegroup.Response{ErrorCode: code}
	}
	panic("not expected: " + request.ApiKey().String())
}

// clocks are a machine's, of which the wall clock can be set and the monotonic one stopped.
type clocks struct {
	Clock
	mu              sync.Mutex
	monotonic, wall time.Duration // added
}

func (c *clocks) step(monotonic, wall time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.monotonic += monotonic
	c.wall += wall
}

func (c *clocks) read() (time.Duration, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	monotonic, wall := c.Clock()
	return monotonic + c.monotonic, wall.Add(c.wall)
}

// perform runs a member with three shards on the stage until test ends.
func perform(t *testing.T, test func(t *testing.T, s *stage, m *Member, c *clocks, end func() error), prepare ...func(*stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{coordinator: 1, asked: make(map[protocol.ApiKey]int), codes: make(map[protocol.ApiKey]kafka.Error),
			delays: make(map[protocol.ApiKey]time.Duration), hang: make(map[string]bool), last: make(map[protocol.ApiKey]protocol.Message)}
		for _, p := range prepare {
			p(s)
		}
		c := &clocks{Clock: systemClock()}
		m := New(Options{Brokers: s, Group: "g", Topic: topic, Shards: 3, Name: "a", Start: "a1", AskStart: s.askStart, Clock: c.read})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		synctest.Wait()
		m.Owned() // the journal has it
		err, done := error(nil), false
		end := func() error {
			if cancel(); !done {
				err, done = <-ended, true
			}
			return err
		}
		defer end()
		test(t, s, m, c, end)
	})
}

// after lets time go by.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestALeaseCountsFromWhenTheHeartbeatWasSent(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
		require.Equal(t, []int32{0, 1, 2}, owned(m))
		require.Equal(t, 10*time.Second, m.Lease())
		s.set(func() { s.delays[protocol.Heartbeat] = 1500 * time.Millisecond })
		after(1400*time.Millisecond + m.interval()) // the heartbeat is under way for 1.4 s
		require.Equal(t, 8400*time.Millisecond, m.Lease(), "it is not answered yet")
		after(100 * time.Millisecond)
		require.Equal(t, 8500*time.Millisecond, m.Lease())
		sync := s.request(protocol.JoinGroup).(*joingroup.Request)
		require.Equal(t, "a", sync.GroupInstanceID)
		require.EqualValues(t, 10_000, sync.SessionTimeoutMS)
		require.EqualValues(t, 10_000, sync.RebalanceTimeoutMS, "shorter would be shorter than the lease")
	})
}

func TestOnlyAGoodAnswerRenewsALease(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]kafka.Error{"rebalance": kafka.RebalanceInProgress, "another generation": kafka.IllegalGeneration,
		"not the coordinator": kafka.NotCoordinatorForGroup, "loading": kafka.GroupLoadInProgress, "unknown": kafka.Unknown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
				_, changed := m.Owned()
				s.set(func() {
					s.codes[protocol.Heartbeat] = code
					s.delays[protocol.JoinGroup] = time.Minute // another is waited for
				})
				after(9 * time.Second)
				require.Equal(t, time.Second, m.Lease())
				after(time.Second)
				require.Zero(t, m.Lease())
				require.Len(t, owned(m), 3, "nobody else has got them")
				s.set(func() { clear(s.codes); clear(s.delays) })
				after(15 * time.Second)
				require.Greater(t, m.Lease(), 8*time.Second)
				select {
				case <-changed:
					t.Fatal("shards were taken away")
				default:
				}
			})
		})
	}
}

// Who joins and does not sync is thrown out after the rebalance time-out, whatever its heartbeats.
func TestAHeartbeatBeforeTheAssignmentRenewsNothing(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
		s.set(func() {
			s.codes[protocol.SyncGroup] = kafka.Unknown
			s.codes[protocol.Heartbeat] = kafka.RebalanceInProgress
		})
		after(2 * time.Second)
		s.set(func() { delete(s.codes, protocol.Heartbeat) })
		after(9 * time.Second)
		require.Zero(t, m.Lease())
		require.Len(t, owned(m), 3)
		s.set(func() { clear(s.codes) })
		after(time.Second)
		require.Greater(t, m.Lease(), 8*time.Second)
	})
}

func TestALeaseEndsByTheClockThatSaysMore(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, c *clocks, _ func() error) {
		c.step(0, 4*time.Second) // the machine was suspended
		require.Equal(t, 6*time.Second, m.Lease())
		c.step(0, time.Hour)
		require.Zero(t, m.Lease())
		after(time.Second) // a heartbeat
		require.Equal(t, 10*time.Second, m.Lease())
		c.step(0, -time.Hour) // somebody sets the clock back
		require.Equal(t, 10*time.Second, m.Lease())
		c.step(3*time.Second, 0)
		require.Equal(t, 7*time.Second, m.Lease())
	})
}

func TestWhoWasThrownOutHasNothingAtOnceAndJoinsAnew(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
		s.set(func() {
			s.codes[protocol.Heartbeat] = kafka.UnknownMemberId
			s.delays[protocol.JoinGroup] = time.Second
		})
		after(time.Second)
		require.Zero(t, m.Lease())
		require.Empty(t, owned(m))
		require.Empty(t, s.request(protocol.JoinGroup).(*joingroup.Request).MemberID)
		said, err := decodeHello("a", s.request(protocol.JoinGroup).(*joingroup.Request).Protocols[0].Metadata)
		require.NoError(t, err)
		require.Empty(t, said.Owned)
		require.Zero(t, said.Table.Generation)

		s.set(func() { clear(s.codes); clear(s.delays) })
		after(2 * time.Second)
		require.Positive(t, m.Lease())
		require.Empty(t, owned(m), "the journal has released nothing of its earlier ownership")
		m.Released(1)
		require.Equal(t, []int32{1}, owned(m))
	})
}

// Kafka gives a replica that comes back what it had, without a round; so nobody would notice that it takes now what it refused before,
// or that it has not got what it is to give up.
func TestWhoComesBackMakesARoundWhereThatChangesSomething(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before table
		rounds int
	}{
		"it has its shards":                 {table{Generation: 7, Owners: map[string][]int32{"a": {1, 2}, "b": {0}}}, 1},
		"nobody took one":                   {table{Generation: 7, Owners: map[string][]int32{"a": {1, 2}}}, 2},
		"it was giving one up":              {table{Generation: 7, Owners: map[string][]int32{"a": {1, 2}}, Giving: map[string][]int32{"a": {0}}}, 2},
		"another is giving one up":          {table{Generation: 7, Owners: map[string][]int32{"a": {1, 2}}, Giving: map[string][]int32{"b": {0}}}, 1},
		"the leader did not know of it yet": {table{}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
				after(500 * time.Millisecond)
				require.Equal(t, test.rounds, s.count(protocol.JoinGroup))
				if test.rounds == 1 {
					require.Equal(t, []int32{1, 2}, owned(m))
				} else {
					require.Equal(t, []int32{0, 1, 2}, owned(m))
				}
			}, func(s *stage) { s.stable = &test.before })
		})
	}
}

func TestTheCoordinatorIsFollowed(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*stage){
		"it hangs":     func(s *stage) { s.hang["c:1"] = true },
		"it says so":   func(s *stage) { s.codes[protocol.Heartbeat] = kafka.NotCoordinatorForGroup },
		"it is loaded": func(s *stage) { s.codes[protocol.Heartbeat] = kafka.GroupLoadInProgress },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
				s.set(func() { leave(s) })
				after(5 * time.Second)
				require.Equal(t, 5*time.Second, m.Lease())
				s.set(func() { s.coordinator = 2; clear(s.codes) })
				after(lookAgain + retryPause)
				require.GreaterOrEqual(t, m.Lease(), 9*time.Second, "not found within the next look")
				require.Len(t, owned(m), 3)
			})
		})
	}
}

// Others may be waited for as long as a session, so its silence says nothing.
func TestTheCoordinatorIsFollowedWhileARoundIsMade(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
		s.set(func() {
			s.codes[protocol.Heartbeat] = kafka.RebalanceInProgress
			s.delays[protocol.JoinGroup] = time.Minute
		})
		after(3 * time.Second)
		require.Equal(t, 2, s.count(protocol.JoinGroup))
		s.set(func() { s.coordinator = 2; clear(s.delays); clear(s.codes) })
		after(lookAgain + retryPause)
		require.Equal(t, 3, s.count(protocol.JoinGroup))
		require.Greater(t, m.Lease(), 9*time.Second)
	})
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for code, hint := range map[kafka.Error]string{
		kafka.InconsistentGroupProtocol: "choose another prefix for the journal",
		kafka.InvalidSessionTimeout:     "group.min.session.timeout.ms",
		kafka.GroupMaxSizeReached:       "group.max.size",
		kafka.GroupAuthorizationFailed:  "allow this user Read on the consumer group",
		kafka.InvalidGroupId:            "choose another prefix for the journal",
	} {
		perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, end func() error) {
			s.set(func() { s.codes[protocol.Heartbeat] = kafka.RebalanceInProgress; s.codes[protocol.JoinGroup] = code })
			after(time.Second)
			require.Zero(t, m.Lease())
			require.Empty(t, owned(m))
			err := end()
			require.ErrorContains(t, err, "replica a: ")
			require.ErrorContains(t, err, hint)
			require.ErrorIs(t, err, code)
		})
	}
}

func TestAFencedReplicaEndsWithoutLeaving(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, end func() error) {
		metadata, err := encodeHello(topic, hello{Start: "a2", Admin: "10.0.0.7:9464"})
		require.NoError(t, err)
		s.set(func() {
			s.codes[protocol.Heartbeat] = kafka.FencedInstanceID
			s.described = []describegroups.ResponseGroupMember{{GroupInstanceID: "a", MemberMetadata: metadata}}
			s.delays[protocol.DescribeGroups] = time.Second
		})
		after(time.Second)
		require.Zero(t, m.Lease(), "at once, not when it is known who the other is")
		require.Empty(t, owned(m))
		after(time.Second)
		err = end()
		require.ErrorIs(t, err, ErrTwice)
		require.ErrorContains(t, err, "10.0.0.7:9464")
		require.Zero(t, s.count(protocol.LeaveGroup))
	})
}

// Another replica of this name may be frozen. From when this one was let in, its heartbeats are refused; what it was granted
// before runs for a session.
func TestThereIsNoLeaseWhileAnotherOfThisNameMayHaveOne(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, c *clocks, _ func() error) {
		require.Zero(t, s.count(protocol.SyncGroup))
		after(5 * time.Second) // it is let in
		require.Len(t, owned(m), 3)
		c.step(0, time.Hour) // proves nothing
		after(10*time.Second - time.Millisecond)
		require.Zero(t, m.Lease())
		after(time.Millisecond)
		require.Greater(t, m.Lease(), 8*time.Second)
	}, func(s *stage) {
		metadata, err := encodeHello(topic, hello{Start: "a0"})
		require.NoError(t, err)
		s.described = []describegroups.ResponseGroupMember{{GroupInstanceID: "a", MemberMetadata: metadata}}
		s.delays[protocol.JoinGroup] = 5 * time.Second
	})
}

// What it is to give up meanwhile, and what it had when it ends, the other may still act on.
func TestNothingIsHandedOnWhileAnotherOfThisNameMayHaveIt(t *testing.T) {
	t.Parallel()
	for name, proof := range map[string]bool{"the last may be alive": false, "the one before the last may be": true} {
		for _, ends := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, end func() error) {
					require.Len(t, owned(m), 3)
					m.Refuse(2)
					m.Released(2)
					s.set(func() { s.codes[protocol.Heartbeat] = kafka.RebalanceInProgress }) // somebody wants a round
					after(time.Second)
					s.set(func() { clear(s.codes) })
					after(time.Second)
					if ends {
						ended := make(chan error, 1)
						go func() { ended <- end() }()
						synctest.Wait()
						for shard := range int32(2) {
							m.Released(shard)
						}
						require.NoError(t, <-ended)
						require.Zero(t, s.count(protocol.LeaveGroup))
						return
					}
					said := lastSaid(t, s)
					require.Equal(t, []int32{0, 1, 2}, said.Owned)
					require.True(t, said.Guarding)
					require.Zero(t, m.Lease())
					after(9 * time.Second)
					require.Positive(t, m.Lease())
					said = lastSaid(t, s)
					require.Equal(t, []int32{0, 1}, said.Owned)
					require.False(t, said.Guarding)
				}, func(s *stage) {
					metadata, err := encodeHello(topic, hello{Start: "a0", Admin: "a0:1", claim: claim{Guarding: proof}})
					require.NoError(t, err)
					s.described = []describegroups.ResponseGroupMember{{GroupInstanceID: "a", MemberMetadata: metadata}}
					if proof {
						s.askStart = func(context.Context, string) (string, error) { return "", syscall.ECONNREFUSED }
					}
				})
			})
		}
	}
}

func lastSaid(t *testing.T, s *stage) hello {
	said, err := decodeHello("a", s.request(protocol.JoinGroup).(*joingroup.Request).Protocols[0].Metadata)
	require.NoError(t, err)
	return said
}

// It was not there yet when this one looked: the table says that its shards were another start's.
func TestWhoTookAnothersPlaceUnawaresActsOnNothingForASession(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]table{
		"without a round":  {Generation: 7, Owners: map[string][]int32{"a": {0, 1, 2}}, Starts: map[string]string{"a": "a0"}},
		"within one":       {Generation: 7, Owners: map[string][]int32{"a": {0, 1, 2}}, Starts: map[string]string{"a": "a1"}, Heirs: map[string]string{"a": "a0"}},
		"it knows of none": {Generation: 7, Owners: map[string][]int32{"a": {0, 1, 2}}, Starts: map[string]string{"a": "a1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
				after(9 * time.Second)
				require.Equal(t, name == "it knows of none", m.Lease() > 0)
				require.Equal(t, name != "it knows of none", s.count(protocol.JoinGroup) > 1, "the others must know")
				after(2 * time.Second)
				require.Positive(t, m.Lease())
			}, func(s *stage) { s.stable = &before })
		})
	}
}

// The brokers took up a late copy of the request to join: what fences this process is this process.
func TestWhoFencedItselfJoinsAgain(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
		metadata, err := encodeHello(topic, hello{Start: "a1"})
		require.NoError(t, err)
		s.set(func() {
			s.codes[protocol.Heartbeat] = kafka.FencedInstanceID
			s.described = []describegroups.ResponseGroupMember{{GroupInstanceID: "a", MemberMetadata: metadata}}
		})
		after(time.Second)
		require.Empty(t, s.request(protocol.JoinGroup).(*joingroup.Request).MemberID)
		s.set(func() { clear(s.codes) })
		after(time.Second)
		require.Positive(t, m.Lease())
	})
}

func TestTheEndWaitsForWhatIsInFlight(t *testing.T) {
	t.Parallel()
	for name, released := range map[string]int32{"released": 3, "not released": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, end func() error) {
				began := time.Now()
				ended := make(chan error, 1)
				go func() { ended <- end() }()
				after(4 * time.Second)
				require.Empty(t, owned(m))
				require.Positive(t, m.Lease(), "what is in flight may end")
				require.Zero(t, s.count(protocol.LeaveGroup))
				for shard := range released {
					m.Released(shard)
				}
				require.NoError(t, <-ended)
				want := 4 * time.Second
				if released < 3 {
					want = 10 * time.Second
				}
				require.Equal(t, want, time.Since(began))
				require.Equal(t, leavegroup.RequestMember{MemberID: "m", GroupInstanceID: "a"}, s.request(protocol.LeaveGroup).(*leavegroup.Request).Members[0])
				require.Zero(t, m.Lease())
			})
		})
	}
}

// A shard may come and go between two looks of the journal, which cannot release what it never saw.
func TestWhatTheJournalNeverSawIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHoldings()
	h.assign([]int32{1, 2})
	require.Equal(t, []int32{1, 2}, h.show())
	h.assign([]int32{1, 2, 3})
	h.assign([]int32{1})
	require.Equal(t, []int32{1, 2}, h.claimed())
	require.True(t, h.settling())
	require.True(t, h.released(2))
	require.Equal(t, []int32{1}, h.claimed())
	require.False(t, h.settling())
}

// Whoever has never joined may be unable to; who has joined once is thought to be back soon, and takes notifications meanwhile.
func TestAReplicaIsAdmittedWhenItHasJoinedOnce(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
		require.ErrorContains(t, m.Admitted(), "no part in consumer group g yet: ")
		require.ErrorContains(t, m.Admitted(), "Coordinator")
		after(time.Minute)
		require.Error(t, m.Admitted())
		s.set(func() { clear(s.codes) })
		after(time.Second)
		require.NoError(t, m.Admitted())
		s.set(func() {
			s.codes[protocol.Heartbeat] = kafka.UnknownMemberId
			s.codes[protocol.JoinGroup] = kafka.GroupCoordinatorNotAvailable
		})
		after(time.Minute)
		require.Empty(t, owned(m))
		require.NoError(t, m.Admitted())
	}, func(s *stage) { s.codes[protocol.JoinGroup] = kafka.GroupCoordinatorNotAvailable })
}

// Nobody is told anything while others are waited for.
func TestPeersAreAskedForUntilTheyAreKnown(t *testing.T) {
	t.Parallel()
	perform(t, func(t *testing.T, s *stage, m *Member, _ *clocks, _ func() error) {
		s.set(func() { s.codes[protocol.DescribeGroups] = kafka.GroupLoadInProgress })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := m.Peers(ctx)
		require.ErrorIs(t, err, kafka.GroupLoadInProgress)
		metadata, err := encodeHello(topic, hello{Start: "b1", Admin: "b:1", Version: "2", Format: 3})
		require.NoError(t, err)
		assignment, err := encodeTable(topic, "b", table{Generation: 1, Owners: map[string][]int32{"b": {1, 2}}})
		require.NoError(t, err)
		s.set(func() {
			clear(s.codes)
			s.described = []describegroups.ResponseGroupMember{{GroupInstanceID: "b", MemberMetadata: metadata, MemberAssignment: assignment}}
		})
		peers, err := m.Peers(t.Context())
		require.NoError(t, err)
		require.Equal(t, []Peer{{Name: "b", Admin: "b:1", Start: "b1", Version: "2", Format: 3, Shards: []int32{1, 2}}}, peers)
		s.set(func() { s.described[0].MemberMetadata = []byte("something else's") })
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = m.Peers(ctx)
		require.ErrorContains(t, err, "what replica b says of itself cannot be read")
	})
}
