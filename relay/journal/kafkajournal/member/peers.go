package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go/protocol/describegroups"

	"ncs-relay/relay/kafkaconn"
)

// Peer is a replica as the group knows it.
type Peer struct {
	Name    string
	Admin   string // the address of its admin API; "" = not told
	Start   string // identifies the start of its process
	Version string // of its program
	Format  int    // the newest of the journal's formats that it reads
	Shards  []int32

	guarding bool // an earlier one of its name may be alive
}

// errRebalancing says that the coordinator tells nothing of members because it is waiting for some of them.
var errRebalancing = errors.New("the shards are being shared out")

// askTimeout is how long a replica of the same name is waited for that may be alive.
const askTimeout = 2 * time.Second

// Peers returns all replicas that are members of the group, this one among them, sorted by name. While shards are being shared out it
// waits, as long as ctx lasts.
func (m *Member) Peers(ctx context.Context) ([]Peer, error) {
	var last error // that is not the end of ctx
	for {
		peers, _, err := m.look(ctx)
		if err == nil {
			return peers, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if !kafkaconn.Pause(ctx, retryPause) {
			return nil, last
		}
	}
}

// look asks the coordinator for the members once. While shards are being shared out it knows the names only.
func (m *Member) look(ctx context.Context) (peers []Peer, names []string, err error) {
	described, err := m.group.describe(ctx, m.requestTimeout())
	if err != nil {
		return nil, nil, err
	}
	for _, member := range described.Members {
		names = append(names, member.GroupInstanceID)
	}
	switch described.GroupState {
	case "Empty", "Dead":
		return nil, nil, nil
	case "Stable":
	default:
		return nil, names, errRebalancing
	}
	for _, member := range described.Members {
		p, err := peer(member)
		if err != nil {
			return nil, names, err
		}
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return peers, names, nil
}

func peer(member describegroups.ResponseGroupMember) (Peer, error) {
	said, err := decodeHello(member.GroupInstanceID, member.MemberMetadata)
	if err != nil {
		return Peer{}, err
	}
	given, err := decodeTable(member.MemberAssignment)
	if err != nil {
		return Peer{}, err
	}
	return Peer{said.name, said.Admin, said.Start, said.Version, said.Format, given.Owners[said.name], said.Guarding}, nil
}

// admit looks whether a replica of this name is alive, before this one takes its place: Kafka fences the first of the two. If that
// cannot be known, this one joins, but has no lease until the other's would have ended.
//
// While shards are being shared out, perhaps because an earlier start of this replica has just left, it waits a little even if nobody
// has its name: in that round the others still have a table by which the earlier start is the owner.
func (m *Member) admit(ctx context.Context) error {
	began := time.Now()
	for {
		found, named, err := m.namesake(ctx)
		switch {
		case ctx.Err() != nil, err == nil && found == nil:
			return nil
		case err == nil:
			return m.meet(ctx, *found)
		case errors.Is(err, errRebalancing) && !named && time.Since(began) > m.Session*3/10: // by then they all know, on slow machines too
			return nil
		case errors.Is(err, errRebalancing) && time.Since(began) > m.Session:
			m.beginToGuard("the group does not say what else has this name")
			return nil
		}
		if !errors.Is(err, errRebalancing) {
			wait, err := m.judge(ctx, err)
			if err != nil {
				return err
			}
			kafkaconn.Pause(ctx, wait)
			continue
		}
		kafkaconn.Pause(ctx, retryPause)
	}
}

// namesake returns the member that has this replica's name, nil if there is none. While shards are being shared out only the names are
// known.
func (m *Member) namesake(ctx context.Context) (found *Peer, named bool, err error) {
	peers, names, err := m.look(ctx)
	if err != nil {
		return nil, slices.Contains(names, m.Name), err
	}
	for _, p := range peers {
		if p.Name == m.Name {
			return &p, true, nil
		}
	}
	return nil, false, nil
}

// meet judges whether a member of the same name is alive.
func (m *Member) meet(ctx context.Context, other Peer) error {
	if other.Start == m.Start {
		return nil
	}
	if m.AskStart == nil || other.Admin == "" {
		m.beginToGuard("it has not told its admin address")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	start, err := m.AskStart(ctx, other.Admin)
	switch {
	case err == nil && start == other.Start:
		return m.twice(other)
	case err == nil && start == m.Start, errors.Is(err, syscall.ECONNREFUSED): // nothing but this process is at its address
		m.mu.Lock()
		m.dead = other.Start
		m.mu.Unlock()
		if other.guarding {
			m.beginToGuard("one before the last may be")
		}
	case err == nil:
		m.beginToGuard("something else answers at its admin address " + other.Admin)
	default:
		m.beginToGuard("its admin address " + other.Admin + " does not answer: " + err.Error())
	}
	return nil
}

func (m *Member) twice(other Peer) error {
	where := "its admin address is not known"
	if other.Admin != "" {
		where = "its admin address is " + other.Admin
	}
	return fmt.Errorf("%w: %s; give each replica a name of its own (replica: in the configuration, default: the host name), or end the other one first", ErrTwice, where)
}

func (m *Member) beginToGuard(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.guard(reason)
}

// guard makes the replica act on nothing for a session, and hand nothing on: what it has, another of its name may have.
func (m *Member) guard(reason string) {
	m.guarded, m.guardedAt = true, m.Clock.now()
	m.Logger.Warn("a replica of this name may be alive: nothing is delivered here until its session is over", "reason", reason, "session", m.Session)
}

// fenced looks who has this replica's name now. It may be this one itself: a request to join that the brokers took up late counts as
// another member.
func (m *Member) fenced(ctx context.Context) error {
	m.mu.Lock()
	m.forget()
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, m.requestTimeout())
	defer cancel()
	peers, err := m.Peers(ctx)
	for _, p := range peers {
		switch {
		case p.Name != m.Name:
		case p.Start == m.Start:
			return nil
		default:
			return m.twice(p)
		}
	}
	return errors.Join(m.twice(Peer{}), err)
}
