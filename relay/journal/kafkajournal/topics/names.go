// Package topics knows the topics of a journal on Kafka: their names, the settings without which the journal would lose
// something, what to type where one is wrong, and the constants that all replicas agree on.
//
// It never alters a topic: who may do that is not for a relay to say.
package topics

// Names are what a journal has in a cluster.
type Names struct {
	Inbox   string // every record that was appended, copies too
	Events  string // each event once
	State   string // what each sink and replay has settled
	Dead    string // dead letters
	Control string // what all replicas share
	Group   string // no topic, but the consumer group of the replicas

	SinkGroups string // begins the name of a sink's consumer group, whose lag is what the sink is owed
}

// NamesOf returns the names with a prefix.
func NamesOf(prefix string) Names {
	return Names{
		Inbox: prefix + ".inbox", Events: prefix + ".events", State: prefix + ".state", Dead: prefix + ".dead", Control: prefix + ".control", Group: prefix + ".relay", SinkGroups: prefix + ".sink.",
	}
}

// All returns the names of the topics in the order of the way of an event, control last.
func (n Names) All() []string { return []string{n.Inbox, n.Events, n.State, n.Dead, n.Control} }
