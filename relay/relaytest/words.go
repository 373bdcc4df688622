package relaytest

import (
	"crypto/sha256"
	"fmt"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// Identity makes the identity of event number id under key number key.
func Identity(key, id int) ncs.Identity {
	k := sha256.Sum256(fmt.Append(nil, "key", key))
	e := sha256.Sum256(fmt.Append(nil, "key", key, "event", id))
	return ncs.Identity{Key: ncs.Key(k[:16]), ID: ncs.EventID(e[:16])}
}

// At is a position in the disk journal.
func At(n uint64) journal.Position { return journal.Position{Offset: n} }
