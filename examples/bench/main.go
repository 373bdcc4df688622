// Command bench measures the relay beside what would be used instead of it, on one machine, in one run: a server that only
// verifies signatures, and a pipeline of Benthos (the library of Redpanda Connect). See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// settings are what a user may choose.
type settings struct {
	rounds      int
	duration    time.Duration
	connections int
	size        int // bytes of a body
	events      int // of a backlog, and of keys known
	lone        int
	pause       time.Duration // between lone events
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) > 2 && os.Args[1] == "role" {
		return runRole(ctx, os.Args[2:])
	}
	var s settings
	flag := flag.NewFlagSet("bench", flag.ExitOnError) // not the common one, which gets those of testing
	flag.IntVar(&s.rounds, "rounds", 3, "rounds; each measures everything once, and medians are told")
	flag.DurationVar(&s.duration, "duration", 5*time.Second, "how long one measurement sends")
	flag.IntVar(&s.connections, "connections", 128, "connections of the generator")
	flag.IntVar(&s.size, "size", 700, "bytes of a body")
	flag.IntVar(&s.events, "events", 1_000_000, "events of the backlog, and keys of which the memory is told")
	flag.IntVar(&s.lone, "lone", 100, "events of which each is sent at rest")
	flag.DurationVar(&s.pause, "pause", time.Second, "between events sent at rest")
	short := flag.Bool("short", false, "one round of a second each and a small backlog: shows that everything works, and no figure to quote")
	only := flag.String("only", "", "comma-separated beginnings of the measurements' names, such as a,b,e,g; default: all")
	binary := flag.String("relay", "", "the ncs-relay to measure, such as an earlier one; default: built from this checkout")
	out := flag.String("json", "", "file for all figures of all rounds")
	_ = flag.Parse(os.Args[1:])
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unexpected argument %q; see -help\n", flag.Arg(0))
		return 2
	}
	if *short {
		s.rounds, s.duration, s.events, s.lone, s.pause = 1, 500*time.Millisecond, 5000, 5, 10*time.Millisecond
	}
	if s.rounds < 1 || s.duration <= 0 || s.connections < 1 || s.size < 1 || s.events < 1 || s.lone < 1 {
		fmt.Fprintln(os.Stderr, "bench: numbers must be greater than 0")
		return 2
	}
	if err := benchmark(ctx, s, *only, *binary, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func benchmark(ctx context.Context, s settings, only, binary, out string) (err error) {
	if runtime.GOOS != "linux" {
		return errors.New("processor time is read from /proc, which only Linux has")
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{settings: s, dir: dir, binary: binary, clusters: map[int]*cluster{}}
	if binary == "" {
		if b.binary, err = build(ctx, dir); err != nil {
			return err
		}
	}
	defer b.end()
	if _, err := b.cluster(ctx, 1); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "warming up the broker, whose code is compiled while it runs")
	if _, err := b.full(s.size, false, benthosToKafka)(ctx); err != nil {
		return err
	}
	all, err := b.measure(ctx, only)
	if err != nil {
		return err
	}
	if out != "" {
		text, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return all.print(os.Stdout)
}

// measurement is one line of the table.
type measurement struct {
	name string
	once bool // because it takes long
	do   func(context.Context) (figures, error)
}

// measurements are all that can be measured. Those at a part of the load take the rate that e found in the same round.
func (b *bench) measurements(found results) []measurement {
	last := func(name string) float64 {
		if all := found[name]; len(all) > 0 {
			return all[len(all)-1]["rate"]
		}
		return 0
	}
	half := func() float64 { return last(nameOfKafka) / 2 }
	tenth := func() float64 { return last(nameOfKafka) / 10 }
	halfOfTwo := func() float64 { return last(nameOfTwo) / 2 }
	list := []measurement{
		{"a bare server", false, b.full(b.size, false, bareServer)},
		{nameOfNothingOwed, false, b.full(b.size, false, relayOwing(relayOptions{}))},
		{"c relay to a file", false, b.full(b.size, false, relayToFile)},
		{nameOfHTTP, false, b.full(b.size, false, relayToHTTP)},
		{nameOfKafka, false, b.full(b.size, false, relayToKafka(relayOptions{}))},
		{"f relay, half copies", false, b.full(b.size, true, relayOwing(relayOptions{}))},
		{"g benthos to Kafka", false, b.full(b.size, false, benthosToKafka)},
		{"h relay, half the load", false, b.steady(half, relayToKafka(relayOptions{}))},
		{"h benthos, half the load", false, b.steady(half, benthosToKafka)},
		{"i bare server, a tenth", false, b.steady(tenth, bareServer)},
		{"i relay, a tenth", false, b.steady(tenth, relayToKafka(relayOptions{}))},
		{"i benthos, a tenth", false, b.steady(tenth, benthosToKafka)},
		{"j relay at rest, to a consumer", true, b.rest(toConsumer)},
	}
	for _, rules := range []int{10, 100, 1000} {
		list = append(list, measurement{fmt.Sprintf("k relay, %d rules", rules), false, b.full(b.size, false, relayOwing(relayOptions{rules: rules}))})
	}
	for _, size := range []int{500, 5_000, 50_000} {
		list = append(list, measurement{fmt.Sprintf("l relay to Kafka, %d B", size), false, b.full(size, false, relayToKafka(relayOptions{}))})
	}
	return append(list,
		measurement{"m relay to Kafka, one core", false, b.full(b.size, false, relayToKafka(relayOptions{cores: 1}))},
		measurement{"m relay to Kafka, two cores", false, b.full(b.size, false, relayToKafka(relayOptions{cores: 2}))},
		measurement{nameOfShared, false, b.full(b.size, false, relaysOnKafka(1))},
		measurement{"p journal on Kafka, half the load", false, b.steady(func() float64 { return last(nameOfShared) / 2 }, relaysOnKafka(1))},
		measurement{nameOfTwo, false, b.full(b.size, false, onThree(relaysOnKafka(2)))},
		measurement{nameOfHalf, false, b.steady(halfOfTwo, onThree(relaysOnKafka(2)))},
		measurement{nameOfDisk, false, b.steady(halfOfTwo, onThree(relayToKafka(relayOptions{})))},
		measurement{"r at rest, two replicas, over HTTP", true, b.rest(toReceiver(onThree(relaysOnKafka(2))))},
		measurement{"r at rest, one on a disk, over HTTP", true, b.rest(toReceiver(onThree(relayToKafka(relayOptions{}))))},
		measurement{"n backlog to a file", true, b.backlog(relayToFile)},
		measurement{"n backlog to Kafka", true, b.backlog(relayToKafka(relayOptions{}))},
		measurement{"o memory of keys", true, b.keys},
	)
}

const (
	nameOfNothingOwed = "b relay, nothing owed"
	nameOfHTTP        = "d relay to HTTP"
	nameOfKafka       = "e relay to Kafka"
	nameOfShared      = "p journal on Kafka, to Kafka"
	nameOfTwo         = "q two replicas, three brokers"
	nameOfHalf        = "q two replicas, half of that"
	nameOfDisk        = "q one on a disk, half of that"
)

// results are the figures of all rounds.
type results map[string][]figures

func (b *bench) measure(ctx context.Context, only string) (results, error) {
	found := results{}
	for round := range b.rounds {
		for _, m := range b.measurements(found) {
			if m.once && round > 0 || !chosen(m.name, only) {
				continue
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, b.rounds, m.name)
			f, err := m.do(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
			found[m.name] = append(found[m.name], f)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no measurement is called %q", only)
	}
	return found, nil
}

func chosen(name, only string) bool {
	return only == "" || slices.ContainsFunc(strings.Split(only, ","), func(begin string) bool { return strings.HasPrefix(name, begin) })
}

// median returns the middle of what the rounds found.
func (r results) median(name, figure string) (float64, bool) {
	var values []float64
	for _, f := range r[name] {
		if v, ok := f[figure]; ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	return values[len(values)/2], true
}

// quotient is a figure of one measurement beside one of another.
type quotient struct{ title, a, figureA, b, figureB string }

// ratios are what can be compared between runs and machines.
var ratios = []quotient{
	{"(e)/(g) through Kafka, relay beside Benthos", nameOfKafka, "rate", "g benthos to Kafka", "rate"},
	{"(b)/(a)", nameOfNothingOwed, "rate", "a bare server", "rate"},
	{"(c)/(b)", "c relay to a file", "rate", nameOfNothingOwed, "rate"},
	{"(d)/(b)", nameOfHTTP, "rate", nameOfNothingOwed, "rate"},
	{"(d)/(b), the receiver's CPU apart", nameOfHTTP, "rate apart", nameOfNothingOwed, "rate"},
	{"(f)/(a)", "f relay, half copies", "rate", "a bare server", "rate"},
	{"(h) p99, relay beside Benthos", "h relay, half the load", "p99", "h benthos, half the load", "p99"},
	{"events a CPU second of the server: (b)/(a)", "a bare server", "cpu bare", nameOfNothingOwed, "cpu relay"},
	{"events a CPU second of the relay: (c)/(b)", nameOfNothingOwed, "cpu relay", "c relay to a file", "cpu relay"},
	{"events a CPU second of the relay: (d)/(b)", nameOfNothingOwed, "cpu relay", nameOfHTTP, "cpu relay"},
	{"events a CPU second of the server: (f)/(a)", "a bare server", "cpu bare", "f relay, half copies", "cpu relay"},
	{"(p)/(e) journal on Kafka beside that on a disk", nameOfShared, "rate", nameOfKafka, "rate"},
	{"(p)/(e) CPU an event of the relay", nameOfShared, "cpu relay", nameOfKafka, "cpu relay"},
	{"(q) p50, two replicas and three brokers beside a disk", nameOfHalf, "p50", nameOfDisk, "p50"},
	{"(q) p99, two replicas and three brokers beside a disk", nameOfHalf, "p99", nameOfDisk, "p99"},
	{"(q) CPU an event of the relays", nameOfHalf, "cpu relay", nameOfDisk, "cpu relay"},
	{"(i) CPU an event at a tenth: relay / bare server", "i relay, a tenth", "cpu relay", "i bare server, a tenth", "cpu bare"},
	{"(i) CPU an event at a tenth: relay / Benthos", "i relay, a tenth", "cpu relay", "i benthos, a tenth", "cpu benthos"},
}

func (r results) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "medians\tevents/s\tp50 ms\tp99 ms\tCPU µs an event: server\tbroker\treceiver\tgenerator\tleft %\t")
	names := slices.Sorted(maps.Keys(r))
	for _, name := range names {
		fmt.Fprint(w, name)
		for _, figure := range []string{"rate", "p50", "p99", "cpu server", "cpu broker", "cpu receiver", "cpu generator", "left %"} {
			fmt.Fprintf(w, "\t%s", r.cell(name, figure))
		}
		fmt.Fprintln(w, "\t")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, name := range names {
		if name[0] == 'n' || name[0] == 'o' {
			fmt.Fprintln(out, name+":", r.others(name))
		}
	}
	for _, q := range ratios {
		a, okA := r.median(q.a, q.figureA)
		b, okB := r.median(q.b, q.figureB)
		if okA && okB {
			fmt.Fprintf(out, "%-50s %.2f\n", q.title, a/b)
		}
	}
	return nil
}

func (r results) cell(name, figure string) string {
	if figure == "cpu server" {
		for _, server := range []string{"relay", "bare", "benthos"} {
			if v, ok := r.median(name, "cpu "+server); ok {
				return fmt.Sprintf("%.1f", v)
			}
		}
		return ""
	}
	v, ok := r.median(name, figure)
	switch {
	case !ok:
		return ""
	case figure == "rate":
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func (r results) others(name string) string {
	var parts []string
	for _, figure := range slices.Sorted(maps.Keys(r[name][0])) {
		v, _ := r.median(name, figure)
		parts = append(parts, fmt.Sprintf("%s %.1f", figure, v))
	}
	return strings.Join(parts, ", ")
}
