package journal

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Position is where a record is. It is opaque to all but the journal, and positions are ordered within their shard only: they
// grow there and are never used twice, but need not be consecutive. The zero Position is before everything.
type Position struct {
	Shard  uint32
	Offset uint64 // from 1 on
}

// IsZero reports whether p is before everything.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders positions of one shard. Those of different shards are told apart, and their order means nothing.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Shard, q.Shard), cmp.Compare(p.Offset, q.Offset))
}

// String is the offset, after the shard and a hyphen where that is not 0.
func (p Position) String() string {
	offset := strconv.FormatUint(p.Offset, 10)
	if p.Shard == 0 {
		return offset
	}
	return strconv.FormatUint(uint64(p.Shard), 10) + "-" + offset
}

// ParsePosition reads a position of a record as text.
func ParsePosition(text string) (Position, error) {
	p, err := parsePosition(text)
	if err == nil && p.Offset == 0 {
		err = fmt.Errorf("%q is not a position", text)
	}
	return p, err
}

func parsePosition(text string) (p Position, err error) {
	shard, offset, sharded := strings.Cut(text, "-")
	if !sharded {
		shard, offset = "0", text
	}
	n, err1 := strconv.ParseUint(shard, 10, 32)
	p.Shard = uint32(n)
	p.Offset, err = strconv.ParseUint(offset, 10, 64)
	if err != nil || err1 != nil || sharded && n == 0 {
		return Position{}, fmt.Errorf("%q is not a position", text)
	}
	return p, nil
}

// MarshalText is String.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what String wrote.
func (p *Position) UnmarshalText(text []byte) (err error) {
	*p, err = parsePosition(string(text))
	return err
}

// Cut is a point of the whole journal: a position in each of its shards, of which those before and at it lie before the point.
type Cut []Position

// In is the position in a shard; zero when the cut does not reach there.
func (c Cut) In(shard uint32) Position {
	for _, p := range c {
		if p.Shard == shard {
			return p
		}
	}
	return Position{Shard: shard}
}

// String joins the positions.
func (c Cut) String() string {
	texts := make([]string, len(c))
	for i, p := range c {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

// MarshalText is String.
func (c Cut) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what String wrote.
func (c *Cut) UnmarshalText(text []byte) error {
	*c = nil
	if len(text) == 0 { // what MarshalText makes of none
		return nil
	}
	for part := range strings.SplitSeq(string(text), ",") {
		p, err := parsePosition(part)
		if err != nil {
			return err
		}
		*c = append(*c, p)
	}
	return nil
}
