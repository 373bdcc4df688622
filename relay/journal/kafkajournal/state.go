package kafkajournal

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"ncs-relay/relay/journal/ledger"
)

// ncs.state holds, by shard, for each ownership:
//
//	judge/<life>           how far the inbox was judged
//	sink/<name>/<life>     what a sink has settled
//	replay/<number>/<life> what a replay has
//
// Each record is complete in itself. A life is one ownership of one shard: 8 random bytes, so that the late record of an owner that
// is none any more is never taken for that of its successor, whose records stand beside it until they are merged.
const (
	kindJudge  = "judge"
	kindSink   = "sink"
	kindReplay = "replay"
)

// stateVersion begins each value. Values of a larger version are not understood.
const stateVersion = 1

type life [8]byte

func newLife() (l life) {
	_, _ = rand.Read(l[:]) // never fails
	return l
}

// stateKey is the key of a record of ncs.state.
type stateKey struct {
	kind, name string // no name: of the judge
	life       life
}

func (k stateKey) encode() []byte {
	parts := []string{k.kind, k.name, hex.EncodeToString(k.life[:])}
	if k.name == "" {
		parts = []string{k.kind, parts[2]}
	}
	return []byte(strings.Join(parts, "/"))
}

func decodeStateKey(b []byte) (k stateKey, err error) {
	parts := strings.Split(string(b), "/")
	switch {
	case len(parts) == 3 && (parts[0] == kindSink || parts[0] == kindReplay) && parts[1] != "":
		k.name = parts[1]
	case len(parts) == 2 && parts[0] == kindJudge:
	default:
		return k, fmt.Errorf("ncs.state: key %q is not known", b)
	}
	k.kind = parts[0]
	if err := decodeHex(k.life[:], parts[len(parts)-1]); err != nil {
		return k, fmt.Errorf("ncs.state: key %q: %w", b, err)
	}
	return k, nil
}

// place is a point of ncs.events: an offset, and the largest position before it, without which nobody may begin to read there.
type place struct {
	next int64
	top  offset
}

func (p place) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(p.next)), uint64(p.top))
}

// further returns the one of two places that is further on.
func (p place) further(q place) place {
	if cmp.Or(cmp.Compare(p.next, q.next), cmp.Compare(p.top, q.top)) < 0 {
		return q
	}
	return p
}

func takePlace(d *ledger.Decoder) place { return place{int64(d.Uvarint()), offset(d.Uvarint())} }

// judgeState is how far an owner was.
type judgeState struct {
	judged offset // of the inbox: its events are in ncs.events
	known  place  // all sinks named before it have a state
	events uint64 // accepted before known; the other records of the inbox up to there were copies
}

func (s *judgeState) encode() []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, uint64(s.judged))
	b = s.known.append(b)
	return binary.AppendUvarint(b, s.events)
}

var errState = errors.New("ncs.state cannot be read")

func decoderOf(b []byte) (*ledger.Decoder, error) {
	if len(b) == 0 {
		return nil, errState
	}
	if b[0] > stateVersion {
		return nil, errNewer
	}
	return &ledger.Decoder{B: b[1:]}, nil
}

func decodeJudgeState(b []byte) (*judgeState, error) {
	d, err := decoderOf(b)
	if err != nil {
		return nil, err
	}
	s := &judgeState{judged: offset(d.Uvarint()), known: takePlace(d), events: d.Uvarint()}
	return s, d.Err
}

// sinkState is what a sink has settled, as an owner knew it: what it was owed up to read and is not pending.
type sinkState struct {
	read    place // read.top was the last event read, owed to the sink or not
	counted place // what the tally accounts for
	tally   ledger.Tally
	unread  int64 // when the oldest event owed and not read was received, ms; 0 = not known
	pending []ledger.Delivery
}

func (s *sinkState) encode() []byte {
	b := append(make([]byte, 0, 96+6*len(s.pending)), stateVersion)
	b = s.counted.append(s.read.append(b))
	b = ledger.AppendTally(b, &s.tally)
	b = binary.AppendVarint(b, s.unread)
	return ledger.AppendPending(b, s.pending)
}

func decodeSinkState(b []byte) (*sinkState, error) {
	d, err := decoderOf(b)
	if err != nil {
		return nil, err
	}
	s := &sinkState{read: takePlace(d), counted: takePlace(d), tally: d.Tally(), unread: d.Varint(), pending: d.Pending()}
	return s, d.Err
}

// settles reports whether an owner knew a delivery as settled, provided that the sink was owed it.
func (s *sinkState) settles(pos offset) bool {
	u := ledger.NewUnsettled(s.pending)
	return pos <= s.read.top && u.Get(pos) == nil
}

// merge makes one of what several owners knew: it goes on where the one who had read most was, and with its tally, as the sum of
// two would count twice what both have counted. Of what was pending there, that is settled which any other owner knew
// as settled. So what an owner that is none any more has still written does no harm, and no settlement is forgotten.
func merge(states []*sinkState) *sinkState {
	best := states[0]
	for _, s := range states[1:] {
		if s.read.top > best.read.top || s.read.top == best.read.top && len(s.pending) < len(best.pending) {
			best = s
		}
	}
	merged := *best
	merged.pending = nil
	for _, d := range best.pending {
		settled := false
		for _, s := range states {
			settled = settled || s.settles(d.At)
		}
		if !settled {
			merged.pending = append(merged.pending, d)
			continue
		}
		merged.tally.Delivered++ // as most are
		merged.tally.SettledBytes += uint64(d.Size)
	}
	return &merged
}
