// Package sinks builds sinks from their configuration. A new kind of sink is a folder of its own, a field of Config, a
// case in New and one in Concurrency.
package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"

	"ncs-relay/relay"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
	"ncs-relay/relay/route"
	"ncs-relay/sinks/filesink"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/kafkasink"
)

// Config is one entry of sinks: common settings and exactly one kind.
type Config struct {
	Name           string                `yaml:"name"`
	Owner          string                `yaml:"owner"`
	Order          string                `yaml:"order"`
	Retry          gateway.RetryConfig   `yaml:"retry"`
	Backlog        gateway.BacklogConfig `yaml:"backlog"`
	PropagateTrace *bool                 `yaml:"propagate_trace"`

	Kafka *kafkasink.Config `yaml:"kafka"`
	HTTP  *httpsink.Config  `yaml:"http"`
	File  *filesink.Config  `yaml:"file"`
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
	c.checkOrder(report)
	switch kinds := c.kinds(); len(kinds) {
	case 0:
		report("", "the sink has no destination", "give one of kafka, http, file")
	case 1:
	default:
		report("", "the sink has more than one destination: "+strings.Join(kinds, ", "), "make each a sink of its own")
	}
}

// checkOrder refuses order: none where it would only take the batches away: a file and a partition have one order.
func (c *Config) checkOrder(report problem.Report) {
	switch {
	case c.Order != "entity" && c.Order != "none":
		report("order", "unknown order %q", "use entity or none", c.Order)
	case c.Order == "none" && c.HTTP == nil && len(c.kinds()) == 1:
		report("order", "%q is for http sinks only", "remove it: "+c.kinds()[0]+" keeps order at no cost", c.Order)
	}
}

// Kind is kafka, http or file. c must pass Check.
func (c *Config) Kind() string { return c.kinds()[0] }

func (c *Config) kinds() []string {
	var kinds []string
	if c.Kafka != nil {
		kinds = append(kinds, "kafka")
	}
	if c.HTTP != nil {
		kinds = append(kinds, "http")
	}
	if c.File != nil {
		kinds = append(kinds, "file")
	}
	return kinds
}

// Options are what sinks share. The zero value will do.
type Options struct {
	UserAgent string       // of HTTP calls; default ncs-relay
	Logger    *slog.Logger // default: none
}

// New builds the sink of c, which must pass Check. It touches no network; a file is tried out. The sink must be closed.
func New(c Config, opts Options) (relay.Sink, error) {
	if opts.UserAgent == "" {
		opts.UserAgent = "ncs-relay"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Kafka != nil:
		return built(kafkasink.New(*c.Kafka, c.Name, opts.Logger))
	case c.HTTP != nil:
		return built(httpsink.New(*c.HTTP, opts.UserAgent, opts.Logger.With("sink", c.Name)))
	case c.File != nil:
		return built(filesink.New(*c.File, c.Name, opts.Logger))
	}
	return nil, errors.New("the sink has no destination")
}

// built keeps a nil pointer that comes with an error from becoming a Sink that is not nil.
func built[S relay.Sink](sink S, err error) (relay.Sink, error) {
	if err != nil {
		return nil, err
	}
	return sink, nil
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

// Connect tries what the sink would connect to and says what would fail for the topics it writes, without sending anything.
// Only clusters of Kafka are tried: to an HTTP service a connection says nothing (see Try), and a file is tried by New.
func Connect(ctx context.Context, c Config, topics []string) []error {
	if c.Kafka == nil {
		return nil
	}
	sink, err := kafkasink.New(*c.Kafka, c.Name, slog.New(slog.DiscardHandler))
	if err != nil {
		return []error{err}
	}
	defer sink.Close()
	return sink.Connect(ctx, topics)
}

// kafkaConcurrency is the number of partitions produced to at a time. Each waits for its own replicas, and while a broker is
// away all that it leads wait for their next leader, so it is set well above what one broker's round trip needs. It bounds
// the memory of batches in flight.
const kafkaConcurrency = 64

// Concurrency is how many Sends at a time the sink is worth.
func (c *Config) Concurrency() int {
	switch {
	case c.Kafka != nil:
		return kafkaConcurrency
	case c.HTTP != nil:
		return c.HTTP.Concurrency
	}
	return 1 // a file has one lane
}

// Topics are the Kafka topics that the events of reach go to; none for other kinds of sinks.
func (c *Config) Topics(reach route.Reach) []string {
	if c.Kafka == nil {
		return nil
	}
	infos := slices.Clone(reach.Known)
	for _, product := range reach.Unknown {
		// A product without a name, and a type without one, are both "unknown" in a topic: any of them stands for all.
		id, err := ncs.ParseProduct(product)
		if err != nil {
			id = math.MaxInt32
		}
		infos = append(infos, ncs.Lookup(id, math.MaxInt32))
	}
	return c.Kafka.Topics(infos)
}
