package journal

// Account counts the calls of one source. Received = Rejected + Unavailable + Tests + Duplicates + Quarantined +
// Accepted + what is in flight, at every instant.
type Account struct {
	Received    uint64
	Rejected    uint64 // refused: signature, size, method ...
	Unavailable uint64 // not stored
	Tests       uint64
	Duplicates  uint64
	Quarantined uint64 // stored, but not understood
	Accepted    uint64 // stored
}

// InFlight are the calls without an outcome so far.
func (a Account) InFlight() uint64 {
	return a.Received - (a.Rejected + a.Unavailable + a.Tests + a.Duplicates + a.Quarantined + a.Accepted)
}
