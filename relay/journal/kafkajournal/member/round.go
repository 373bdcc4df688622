package member

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
)

// join makes one round: it joins the next generation of the group, and learns what it has in it.
func (m *Member) join(ctx context.Context) error {
	request, err := m.joinRequest()
	if err != nil {
		return err
	}
	response, err := m.group.join(ctx, m.Session*3/2, request) // others may take a session to join
	if errors.Is(err, kafka.MemberIDRequired) {
		m.mu.Lock()
		m.id = response.MemberID
		m.mu.Unlock()
	}
	if err != nil {
		return err
	}
	m.attended(response)
	sync := &syncgroup.Request{GroupID: m.Group, GenerationID: response.GenerationID, MemberID: response.MemberID, GroupInstanceID: m.Name,
		ProtocolType: protocolType, ProtocolName: protocolName}
	if response.LeaderID == response.MemberID && len(response.Members) > 0 {
		if sync.Assignments, err = m.lead(response); err != nil {
			return err
		}
	}
	sent := m.Clock.now()
	assignment, err := m.group.sync(ctx, m.Session*3/2, sync)
	if err != nil {
		return err
	}
	given, err := decodeTable(assignment)
	if err != nil {
		return err
	}
	m.adopt(given, sent, request.MemberID == "")
	return nil
}

func (m *Member) joinRequest() (*joingroup.Request, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rejoin = time.Time{}
	m.joined = time.Now()
	metadata, err := encodeHello(m.Topic, hello{Admin: m.Admin, Start: m.Start, Version: m.Version, Format: m.Format, claim: claim{
		Attended: m.generation, Table: m.table, Owned: m.claimed(), Leaving: m.leaving, Guarding: m.guards(),
		Refused: slices.Sorted(maps.Keys(m.holdings.refused))}})
	session := int32(m.Session.Milliseconds())
	return &joingroup.Request{GroupID: m.Group, MemberID: m.id, GroupInstanceID: m.Name, ProtocolType: protocolType,
		// The coordinator throws out who does not sync within the rebalance time-out. A shorter one would be shorter than the lease.
		SessionTimeoutMS: session, RebalanceTimeoutMS: session,
		Protocols: []joingroup.RequestProtocol{{Name: protocolName, Metadata: metadata}}}, err
}

// claimed are the shards that nobody else may have.
func (m *Member) claimed() []int32 {
	claimed := m.holdings.claimed()
	if m.guards() {
		claimed = slices.AppendSeq(claimed, maps.Keys(m.inherited))
	}
	slices.Sort(claimed)
	return slices.Compact(claimed)
}

func (m *Member) attended(response *joingroup.Response) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == "" && m.guards() { // from now on the other one's heartbeats are refused
		m.guardedAt = m.Clock.now()
	}
	m.id, m.generation = response.MemberID, response.GenerationID
}

// lead assigns the shards for all members of a generation.
func (m *Member) lead(joined *joingroup.Response) ([]syncgroup.RequestAssignment, error) {
	claims := make([]claim, len(joined.Members))
	for i, member := range joined.Members {
		said, err := decodeHello(member.GroupInstanceID, member.Metadata)
		if err != nil {
			m.Logger.Warn("it keeps what it had", "replica", member.GroupInstanceID, "error", err)
		}
		claims[i] = said.claim
	}
	made := assign(joined.GenerationID, m.Shards, claims)
	assignments := make([]syncgroup.RequestAssignment, len(joined.Members))
	for i, member := range joined.Members {
		encoded, err := encodeTable(m.Topic, member.GroupInstanceID, made)
		if err != nil {
			return nil, err
		}
		assignments[i] = syncgroup.RequestAssignment{MemberID: member.MemberID, Assignment: encoded}
	}
	return assignments, nil
}

// adopt takes over what the replica was given. Whatever it is thought to have and has not, another waits for: then it says so in
// another round. fresh: it was no member before this round.
func (m *Member) adopt(given table, sent instant, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table, m.counts, m.counted = given, true, sent
	m.admitted, m.trouble = true, nil
	if m.leaving {
		m.holdings.assign(nil)
	} else {
		m.holdings.assign(given.Owners[m.Name])
	}
	again := given.Generation == 0 || fresh && given.unowned(m.Shards)
	if before := given.before(m.Name, m.Start); fresh && !m.guarded && before != "" && before != m.dead {
		m.guard("it has joined at the same time")
		again = true // the others must know
	}
	for _, shard := range slices.Concat(given.Owners[m.Name], given.Giving[m.Name]) {
		if m.guards() {
			m.inherited[shard] = struct{}{}
			continue
		}
		if _, assigned := m.holdings.assigned[shard]; !assigned && !m.holdings.closing[shard] {
			again = true
		}
	}
	if again {
		m.joinWithin(0)
	}
	m.Logger.Info("shards are shared out", "generation", given.Generation, "owned", given.Owners[m.Name], "giving up", given.Giving[m.Name],
		"owners", len(given.Owners))
}

// unowned reports whether there is a shard that nobody has or is giving up: those who were asked refused it.
func (t table) unowned(shards int32) bool {
	known := make(map[int32]struct{})
	for _, by := range []map[string][]int32{t.Owners, t.Giving} {
		for _, some := range by {
			for _, shard := range some {
				known[shard] = struct{}{}
			}
		}
	}
	return len(known) < int(shards)
}
