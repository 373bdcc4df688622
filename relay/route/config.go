package route

// RuleConfig is one entry of routes. Compile checks it, since most of its mistakes show only beside the catalogue, the
// sinks and the other rules.
type RuleConfig struct {
	Match MatchConfig `yaml:"match"`
	When  string      `yaml:"when"`
	To    []string    `yaml:"to"`
}

// MatchConfig are the conditions of a rule; all must hold, each for one of its values. None = everything.
type MatchConfig struct {
	Product     []string `yaml:"product,scalar"`
	Event       []string `yaml:"event,scalar"`
	Category    []string `yaml:"category,scalar"`
	ServiceType []string `yaml:"service_type,scalar"`
	Source      []string `yaml:"source,scalar"`
	Channel     []string `yaml:"channel,scalar"`
	Entity      []string `yaml:"entity,scalar"`
}
