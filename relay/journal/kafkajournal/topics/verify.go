package topics

import (
	"context"

	"ncs-relay/relay/kafkaconn"
)

// Checked is what there is of a journal, and all that is wrong with it.
type Checked struct {
	Found    Found
	State    State
	Problems []Problem
}

// Missing reports whether topics do not exist.
func (c *Checked) Missing(prefix string) bool { return len(c.Found.Missing(prefix)) > 0 }

// Verify looks at the topics and at what they say, and compares it with what must be: o, and mine, whose Shards and Topics
// are those that are found. It changes nothing. An error says that it cannot look.
func (o Options) Verify(ctx context.Context, c *kafkaconn.Cluster, mine Meta) (checked Checked, err error) {
	checked.Found, err = Describe(ctx, c, o.Prefix)
	if err != nil {
		return checked, err
	}
	checked.Problems = o.Check(checked.Found)
	control := checked.Found[NamesOf(o.Prefix).Control]
	if control.Partitions != 1 || control.Leaderless > 0 {
		return checked, nil // which is said
	}
	if checked.State, err = ReadState(ctx, c, o.Prefix); err != nil {
		return checked, err
	}
	checked.Problems = append(checked.Problems, checked.State.Check(o.Prefix, mine, checked.Found)...)
	return checked, nil
}

// Of returns the constants for topics that were found.
func (m Meta) Of(prefix string, found Found) Meta {
	m.Shards, m.Topics = found.Shards(prefix), found.IDs(prefix)
	return m
}
