package ncs

// Versions of what is derived from a notification. Replicas of one relay must have the same: with different ids one event
// would be two, with different entities its order would be lost. Whoever changes what Identify or the entity gives for a
// notification that was understood before raises the number (TestGolden notices).
const (
	IdentityVersion = 1
	EntityVersion   = 1
)
