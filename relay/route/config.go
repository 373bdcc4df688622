package route

// RuleConfig is one entry of routes. Compile checks it, since most of its mistakes show only beside the catalogue, the
// sinks and the other rules.
type RuleConfig struct {
	Match MatchConfig `yaml:"match"` // conditions that must all hold; none = every event
	When  string      `yaml:"when"`  // condition over the payload in the Expr language
	To    []string    `yaml:"to"`    // sinks
}

// MatchConfig are the conditions of a rule; all must hold, each for one of its values. None = everything.
type MatchConfig struct {
	Product     []string `yaml:"product,scalar"`      // name of the product
	Event       []string `yaml:"event,scalar"`        // name, product.name, or number together with one product
	Category    []string `yaml:"category,scalar"`     // category of the event's type
	ServiceType []string `yaml:"service_type,scalar"` // payload.serviceType
	Source      []string `yaml:"source,scalar"`       // name of the source
	Channel     []string `yaml:"channel,scalar"`      // channel; * stands for any characters
	Entity      []string `yaml:"entity,scalar"`       // recording, channel, task or agent
}
