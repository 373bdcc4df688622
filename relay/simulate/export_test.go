package simulate

import "iter"

// Plan generates what Run plays, recordings first. Equal Configs with equal, set Start give equal plans, and rates
// other than FailoverRate change the steps only, not the events.
func Plan(c Config) iter.Seq[Entity] {
	c.setDefaults()
	return func(yield func(Entity) bool) {
		for i := range c.Recordings + c.Channels {
			if !yield(c.entity(i)) {
				return
			}
		}
	}
}
