// Package sinks has the kinds of sinks, and what they have in common. A new kind is a folder of its own and a line in Kinds:
// its settings are a struct with yaml tags, SetDefaults and Check as package config reads them, and they are a Kind. Nothing
// else knows which kinds there are; abilities that not all have are interfaces that the settings may implement besides.
package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"ncs-relay/relay"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
	"ncs-relay/relay/route"
	"ncs-relay/sinks/filesink"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/kafkasink"
)

// Kinds are those of the relay. A configuration is read with copies; these stay as they are.
var Kinds = []Kind{new(kafkasink.Config), new(httpsink.Config), new(filesink.Config)}

// Kind is a pointer to the settings of one kind of sink.
type Kind interface {
	// Key is where they stand in a sink's configuration.
	Key() string

	// Traits are those of the sink with that name. Build may be called when Check found nothing wrong.
	Traits(name, userAgent string, log *slog.Logger) relay.Traits
}

// Looker is a Kind that can say, without changing anything, what Build would find wrong at the start with the setting at path. It
// is a note if the sink could be built all the same.
type Looker interface {
	Look() (path string, note bool, err error)
}

// Owner is a Kind with a setting, at a path, whose value no other sink of the kind may have.
type Owner interface {
	Owns() (path, value string)
}

// Local is a Kind that writes to the machine that the relay runs on.
type Local interface {
	// ForReplica puts the name of a replica in place of {replica} in the setting at path. If it was there, template is what the
	// setting was.
	ForReplica(name string) (path, template string)
}

// Clustered is a Kind that writes to topics of a cluster.
type Clustered interface {
	// Topics are those that events of the given kinds go to.
	Topics(infos []ncs.Info) []string

	// Connect tries what the sink would connect to and says what would fail for topics, without sending anything.
	Connect(ctx context.Context, topics []string) []error
}

// Documented is a Kind that says for documents where it sends to, without secrets, and what AsyncAPI calls the bindings.
type Documented interface {
	Document() (protocol string, hosts []string, address string, operation, message map[string]any)
}

// Wrapper is a Kind that sends bodies inside something else, whose schema holds that of the body.
type Wrapper interface {
	Wrap(body map[string]any) map[string]any
}

// Config is one entry of sinks: common settings and exactly one kind.
type Config struct {
	Name           string                `yaml:"name"`
	Owner          string                `yaml:"owner"`
	Order          string                `yaml:"order"`
	Retry          deliver.RetryConfig   `yaml:"retry"`
	Backlog        deliver.BacklogConfig `yaml:"backlog"`
	PropagateTrace *bool                 `yaml:"propagate_trace"`

	Kind Kind
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() { c.Order = "entity" }

// Check reports what is wrong with the common settings.
func (c *Config) Check(report problem.Report) {
	switch {
	case c.Name == "":
		report("name", "no name given", relay.NameRule)
	case c.Name == relay.Unroutable:
		report("name", "name %q is reserved", "it holds signed calls that could not be understood", c.Name)
	case !relay.ValidName(c.Name):
		report("name", "name %q is not allowed", relay.NameRule, c.Name)
	}
	switch {
	case c.Order != "entity" && c.Order != "none":
		report("order", "unknown order %q", "use entity or none", c.Order)
	case c.Order == "none" && c.Kind != nil && c.Kind.Traits("", "", nil).Ordered:
		report("order", "%q is not for "+c.Kind.Key()+" sinks", "remove it: "+c.Kind.Key()+" keeps order at no cost", c.Order)
	}
}

// Spec describes the sink to the relay. c must have a kind, and pass Check before it is built.
func (c *Config) Spec(userAgent string, log *slog.Logger) deliver.SinkSpec {
	t := c.Kind.Traits(c.Name, userAgent, log)
	return deliver.SinkSpec{
		Name:           c.Name,
		Owner:          c.Owner,
		Config:         *c,
		Build:          t.Build,
		Concurrency:    t.Concurrency,
		Breaks:         t.Breaks,
		Unordered:      c.Order == "none",
		Retry:          c.Retry,
		Backlog:        c.Backlog.MaxSize,
		PropagateTrace: c.PropagateTrace == nil || *c.PropagateTrace,
		SpanKind:       t.SpanKind,
		SpanAttrs:      t.SpanAttrs,
	}
}

// trier is a sink that can show what it exchanges with its far side.
type trier interface {
	Try(ctx context.Context, a relay.Attempt, w io.Writer) error
}

// Try sends one event once, whatever the kind of sink, and writes to w what there is to see of the exchange, secrets
// masked. The error carries the verdict.
func Try(ctx context.Context, sink relay.Sink, a relay.Attempt, w io.Writer) error {
	if t, ok := sink.(trier); ok {
		return t.Try(ctx, a, w)
	}
	fmt.Fprintf(w, "> %s\n", a.Body)
	for {
		lane := sink.Lane(a.Event)
		_, err := sink.Send(ctx, lane, []relay.Attempt{a})
		r, ok := sink.(relay.Relaner)
		if ok && err == nil {
			fmt.Fprintf(w, "< topic %s, partition %s\n", lane.Group, lane.Key)
		}
		if !ok || !errors.Is(err, relay.ErrRelane) || ctx.Err() != nil {
			return err
		}
		r.Relane(lane.Group) // the first Send found out what partitions there are
	}
}

// Topics are those of a cluster that the events of reach go to.
func Topics(kind Clustered, reach route.Reach) []string {
	infos := slices.Clone(reach.Known)
	for _, product := range reach.Unknown {
		infos = append(infos, ncs.Info{Product: product}) // a type without a name is "unknown" in a topic: any of them stands for all
	}
	return kind.Topics(infos)
}
