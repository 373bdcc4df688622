// Package member shares out the shards of a Kafka journal among the replicas of a relay, as members of one consumer group.
//
// It promises that no two replicas may act on one shard at the same instant, whoever of them is killed, frozen, cut off or
// started twice, as long as the clocks of machines run at the same speed; and that a shard is only ever without an owner while its
// last one may still act on it or has not released it. Shards stay where they are while the numbers of shards of the replicas differ by one at most.
// A replica that crashes and is back within the session has its shards again at once; nobody else notices.
//
// Left to others: what is done with a shard, when that is over (Released), and to ask the lease before each thing that must not
// be done by two.
package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/telemetry"
)

const (
	retryPause  = 100 * time.Millisecond // after a request that failed, and at least between two rounds
	gatherPause = 200 * time.Millisecond // what is released within it is handed on in one round

	commitInterval = time.Minute
)

// ErrTwice is in the chain of Run's error when another replica of the same name is alive.
var ErrTwice = errors.New("another replica has this name")

// Options of a Member.
type Options struct {
	Brokers Brokers
	Group   string // the consumer group of all replicas
	Topic   string // its partitions are the shards; Kafka's tools name them so
	Shards  int32

	Name    string // of this replica: no other has it at the same time
	Start   string // identifies this start of the process
	Admin   string // the address of this replica's admin API, for the others; may be empty
	Version string // of the program, for operators
	Format  int    // of the journal, the newest that it reads; for the others

	// Session is how long a silent replica keeps its shards; default 10 s. Brokers want at least their
	// group.min.session.timeout.ms. Heartbeats are sent ten times as often.
	Session time.Duration

	// LeaveWithin is how long Run waits at its end for shards to be released; default: Session.
	LeaveWithin time.Duration

	// AskStart asks the admin API at an address for the id of its start. Without it a replica that has this name and may be
	// alive is waited for.
	AskStart func(ctx context.Context, admin string) (start string, err error)

	// Progress returns what to commit for an owned shard, for Kafka's own tools; it also keeps the group from being forgotten. It is
	// called about once a minute. Default: nothing is committed.
	Progress func(shard int32) (offset int64, known bool)

	Clock  Clock        // default: the machine's
	Logger *slog.Logger // default: none
}

// Member is one replica's part in the group. Its methods may be called concurrently.
type Member struct {
	Options
	group   *group
	wake    chan struct{} // holds one value: there is something to do before the next heartbeat
	drained chan struct{} // closed when Run is to end and nothing is left to be released
	failed  telemetry.Repetition

	mu         sync.Mutex // guards what follows
	holdings   *holdings
	id         string  // given by the coordinator; "" = not a member
	generation int32   // the last one that it took part in
	table      table   // the last one that it was given
	counts     bool    // the lease runs from counted
	counted    instant // when the last request was sent by which the coordinator has renewed the session
	guarded    bool    // a replica of this name may be alive: there is no lease for a session from guardedAt
	guardedAt  instant
	inherited  map[int32]struct{} // what the other one may have
	dead       string             // an earlier start of this replica that is known to have ended
	rejoin     time.Time          // when another round is to be made; zero = none is needed
	joined     time.Time          // when the last round was made
	committed  time.Time          // when progress was committed last
	leaving    bool               // Run is to end
	admitted   bool               // it has had a part in the group
	trouble    error              // why the group does not answer
}

// New makes a member that has joined nothing yet; Run does.
func New(o Options) *Member {
	if o.Session == 0 {
		o.Session = 10 * time.Second
	}
	if o.LeaveWithin == 0 {
		o.LeaveWithin = o.Session
	}
	if o.Clock == nil {
		o.Clock = systemClock()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Member{Options: o, group: &group{brokers: o.Brokers, name: o.Group}, wake: make(chan struct{}, 1),
		drained: make(chan struct{}), holdings: newHoldings(), inherited: make(map[int32]struct{})}
}

// Owned returns the shards that are assigned to this replica, sorted, and a channel that is closed when they change. It is for whoever
// acts on them, since each shard that it has returned and does not return any more must be Released. A shard that was taken away
// does not come back before that.
func (m *Member) Owned() (shards []int32, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holdings.show(), m.holdings.changed
}

// Lease returns how much longer what is owned may be acted on; 0 = not now.
func (m *Member) Lease() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.counts || m.guards() {
		return 0
	}
	return max(0, m.Session-m.Clock.since(m.counted))
}

// guards reports whether another replica of this name may still have a lease.
func (m *Member) guards() bool { return m.guarded && m.Clock.passed(m.guardedAt) < m.Session }

// Released says that nothing of a shard that is not among the owned ones any more is in flight, and that its state is acknowledged:
// another replica may have it.
func (m *Member) Released(shard int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holdings.released(shard) && !m.guards() {
		wait := gatherPause
		if !m.holdings.settling() {
			wait = 0
		}
		m.joinWithin(wait)
	}
	m.endIfDrained()
}

// Refuse gives up an owned shard until Accept, because this replica can do nothing with it: another may be able to. It must be
// Released like any other.
func (m *Member) Refuse(shard int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holdings.refuse(shard)
	if _, closing := m.holdings.closing[shard]; !closing {
		m.joinWithin(0)
	}
}

// Accept says that a shard that was refused can be had again.
func (m *Member) Accept(shard int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.holdings.refused, shard)
	m.joinWithin(gatherPause)
}

// Elsewhere reports whether another replica was given the shard, as far as is known here.
func (m *Member) Elsewhere(shard int32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, shards := range m.table.Owners {
		if name != m.Name && slices.Contains(shards, shard) {
			return true
		}
	}
	return false
}

// Admitted returns why this replica has had no part in the group yet. It may be unable to; one that had will be back when it is
// thrown out or its coordinator is away.
func (m *Member) Admitted() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.admitted:
		return nil
	case m.trouble != nil:
		return fmt.Errorf("this replica has no part in consumer group %s yet: %w", m.Group, m.trouble)
	}
	return fmt.Errorf("this replica has no part in consumer group %s yet", m.Group)
}

// drop takes away what is owned, at once.
func (m *Member) drop() {
	m.counts = false
	m.holdings.expel()
	m.endIfDrained()
}

func (m *Member) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// joinWithin makes another round be made soon, if none is to be made earlier.
func (m *Member) joinWithin(wait time.Duration) {
	at := time.Now().Add(wait)
	if earliest := m.joined.Add(retryPause); at.Before(earliest) {
		at = earliest
	}
	if m.rejoin.IsZero() || at.Before(m.rejoin) {
		m.rejoin = at
		m.nudge()
	}
}

func (m *Member) endIfDrained() {
	if !m.leaving || m.holdings.settling() {
		return
	}
	select {
	case <-m.drained:
	default:
		close(m.drained)
	}
}

// Run takes part in the group until ctx ends; then it gives up its shards, waits until they are released, or for LeaveWithin, and
// leaves the group. It returns an error when it cannot take part: another replica has its name (ErrTwice), or the cluster refuses it.
// It is called once.
func (m *Member) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var ending sync.WaitGroup
	defer ending.Wait()
	defer stop()
	ending.Go(func() {
		defer stop()
		if !over(ctx, work.Done()) {
			return
		}
		m.beginToLeave()
		select {
		case <-m.drained:
		case <-time.After(m.LeaveWithin):
		case <-work.Done():
		}
	})
	err := m.takePart(work)
	m.mu.Lock()
	m.drop()
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("replica %s: %w", m.Name, err)
	}
	m.depart(context.WithoutCancel(ctx))
	return nil
}

// over reports whether ctx ended before done was closed.
func over(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return true
	case <-done:
		return false
	}
}

func (m *Member) beginToLeave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaving = true
	m.holdings.assign(nil)
	m.endIfDrained()
}

// takePart makes rounds and sends heartbeats until ctx ends.
func (m *Member) takePart(ctx context.Context) error {
	if err := m.admit(ctx); err != nil {
		return err
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-next.C:
		}
		wait, err := m.turn(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		next.Reset(wait)
	}
}

// turn does what is due, and returns how long nothing else is.
func (m *Member) turn(ctx context.Context) (wait time.Duration, err error) {
	m.mu.Lock()
	m.endGuard()
	now := time.Now()
	id, rejoin := m.id, m.rejoin
	m.mu.Unlock()
	switch {
	case id == "" && now.Before(rejoin):
		return rejoin.Sub(now), nil
	case id == "", !rejoin.IsZero() && !now.Before(rejoin):
		if err = m.join(ctx); err != nil {
			m.mu.Lock()
			m.joinWithin(0)
			m.mu.Unlock()
		}
	default:
		err = m.beat(ctx)
	}
	if err != nil {
		return m.judge(ctx, err)
	}
	m.commit(ctx)
	return m.untilNext(), nil
}

// endGuard says that the other one's session is over.
func (m *Member) endGuard() {
	if m.guarded && !m.guards() {
		m.guarded = false
		clear(m.inherited)
		m.joinWithin(0)
	}
}

// untilNext returns the time to the next heartbeat or round, whichever comes first.
func (m *Member) untilNext() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rejoin.IsZero() {
		return m.interval()
	}
	return min(m.interval(), max(0, time.Until(m.rejoin)))
}

// interval is how often a heartbeat is sent. Its answer is also how a member hears of a round, which waits for all: what one has given
// up for another is delivered by nobody until the last has heard of it.
func (m *Member) interval() time.Duration { return m.Session / 50 }

// requestTimeout is how long one answer is waited for that comes at once where all is well.
func (m *Member) requestTimeout() time.Duration { return m.Session / 5 }

// beat renews the session.
func (m *Member) beat(ctx context.Context) error {
	m.mu.Lock()
	request := &heartbeat.Request{GroupID: m.Group, GenerationID: m.generation, MemberID: m.id, GroupInstanceID: m.Name}
	m.mu.Unlock()
	sent := m.Clock.now()
	if err := m.group.heartbeat(ctx, m.requestTimeout(), request); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// Only what was assigned in this generation is renewed by it: who has joined and not synced is thrown out whatever its heartbeats.
	if m.id == request.MemberID && m.table.Generation == request.GenerationID {
		m.counts, m.counted = true, sent
	}
	return nil
}

// judge says what follows from an error of the group: another try after a while, or the end.
func (m *Member) judge(ctx context.Context, err error) (wait time.Duration, _ error) {
	var code kafka.Error
	errors.As(err, &code)
	switch code {
	case kafka.RebalanceInProgress, kafka.IllegalGeneration:
		m.mu.Lock()
		m.joinWithin(0)
		m.mu.Unlock()
		return m.untilNext(), nil
	case kafka.MemberIDRequired:
		return 0, nil
	case kafka.UnknownMemberId:
		m.expelled()
		return 0, nil
	case kafka.FencedInstanceID:
		return 0, m.fenced(ctx)
	}
	if hint := hints[code]; hint != "" {
		return 0, fmt.Errorf("%s: %w", hint, kafkaconn.Explain(err))
	}
	m.mu.Lock()
	m.trouble = err
	m.mu.Unlock()
	if suppressed, ok := m.failed.Allow(time.Now()); ok && ctx.Err() == nil {
		m.Logger.Warn("the group that shares out shards does not answer; what is owned is kept while the lease lasts",
			"lease", m.Lease(), "error", err, "suppressed", suppressed)
	}
	return retryPause, nil
}

// hints say what to do about errors that do not pass by themselves.
var hints = map[kafka.Error]string{
	kafka.InconsistentGroupProtocol: "something else than relays of this version uses the consumer group; choose another prefix for the journal, or end the others first",
	kafka.InvalidSessionTimeout:     "the brokers refuse the session's length; see group.min.session.timeout.ms and group.max.session.timeout.ms there",
	kafka.GroupMaxSizeReached:       "the brokers allow no more replicas; raise group.max.size there",
	kafka.GroupAuthorizationFailed:  "allow this user Read on the consumer group",
	kafka.InvalidGroupId:            "the brokers do not take the consumer group's name; choose another prefix for the journal",
}

// expelled notes that the coordinator does not know this member: others may have its shards.
func (m *Member) expelled() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.holdings.open) > 0 {
		m.Logger.Warn("this replica was silent for too long, others have its shards", "session", m.Session)
	}
	m.forget()
}

// forget makes it nobody's member, so that it joins as a new one.
func (m *Member) forget() {
	m.drop()
	m.id, m.generation, m.table, m.rejoin = "", 0, table{}, time.Time{}
	clear(m.inherited)
}

// commit says how far the owned shards are.
func (m *Member) commit(ctx context.Context) {
	m.mu.Lock()
	request := &offsetcommit.Request{GroupID: m.Group, GenerationID: m.generation, MemberID: m.id, GroupInstanceID: m.Name}
	open := m.holdings.shards()
	due := m.Progress != nil && len(open) > 0 && time.Since(m.committed) >= commitInterval
	m.mu.Unlock()
	if !due {
		return
	}
	topic := offsetcommit.RequestTopic{Name: m.Topic}
	for _, shard := range open {
		if offset, known := m.Progress(shard); known {
			topic.Partitions = append(topic.Partitions, offsetcommit.RequestPartition{PartitionIndex: shard, CommittedOffset: offset, CommittedLeaderEpoch: -1})
		}
	}
	if len(topic.Partitions) == 0 {
		return
	}
	request.Topics = []offsetcommit.RequestTopic{topic}
	if err := m.group.commit(ctx, m.requestTimeout(), request); err != nil {
		m.Logger.Debug("progress is not committed; it is for Kafka's own tools only", "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committed = time.Now()
}

// depart leaves the group. Who cannot is missed when its session ends.
func (m *Member) depart(ctx context.Context) {
	m.mu.Lock()
	id := m.id
	if m.guards() {
		id = "" // what it has, another may have for as long as its session lasts
	}
	m.forget()
	m.mu.Unlock()
	if id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, m.requestTimeout())
	defer cancel()
	request := &leavegroup.Request{GroupID: m.Group, Members: []leavegroup.RequestMember{{MemberID: id, GroupInstanceID: m.Name}}}
	for {
		err := m.group.leave(ctx, m.requestTimeout(), request)
		if err == nil || errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.FencedInstanceID) {
			return
		}
		if !kafkaconn.Pause(ctx, retryPause) {
			m.Logger.Warn("cannot leave the group; others get the shards when the session ends", "session", m.Session, "error", err)
			return
		}
	}
}
