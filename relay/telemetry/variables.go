package telemetry

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
)

// Warning is a variable whose value is not used. The specification wants it said, and nothing to fail for it.
type Warning struct {
	Variable string
	Problem  string // never holds the value: there may be a token in it
}

func (w Warning) String() string { return w.Variable + ": " + w.Problem }

// Warnings lists what is wrong with the OTEL_* variables that are read. What they ask for is not done, or the default is used;
// the rest goes on. getenv is as in Options.
func Warnings(getenv func(string) string) []Warning {
	o := Options{Getenv: getenv}
	if getenv == nil {
		return nil
	}
	var all []Warning
	if v := getenv("OTEL_SDK_DISABLED"); !isBool(v) {
		all = append(all, Warning{"OTEL_SDK_DISABLED", "is neither true nor false, and taken for false"})
	}
	add := func(w ...Warning) {
		for _, w := range w {
			if !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	for _, signal := range []string{traces, metrics} {
		if !o.exports(signal) {
			continue
		}
		add(o.refusals(signal)...)
		add(o.oddExporter(signal)...)
	}
	if o.exports(traces) {
		add(o.oddSampler()...)
	}
	return all
}

// Signals, as the names of variables spell them.
const (
	traces  = "TRACES"
	metrics = "METRICS"
)

// exporters are the values of OTEL_*_EXPORTER, besides none. The exporter prometheus is the relay's own page.
var exporters = map[string][]string{traces: {"", "otlp", "console"}, metrics: {"", "otlp", "console", "prometheus"}}

// refusals are the variables that keep a signal from being exported: another exporter, or another address, than the one meant
// would be worse than none.
func (o Options) refusals(signal string) []Warning {
	not := fmt.Sprintf("; %s are not exported", strings.ToLower(signal))
	var found []Warning
	if name := "OTEL_" + signal + "_EXPORTER"; !slices.Contains(exporters[signal], o.Getenv(name)) {
		found = append(found, Warning{name, "no such exporter, use otlp, console or none" + not})
	}
	for _, name := range otlp(signal, "PROTOCOL") {
		if !slices.Contains([]string{"", "grpc", "http/protobuf"}, o.Getenv(name)) {
			found = append(found, Warning{name, "no such protocol, use grpc or http/protobuf" + not})
		}
	}
	for _, name := range otlp(signal, "ENDPOINT") {
		if !isEndpoint(o.Getenv(name)) {
			found = append(found, Warning{name, "not a URL such as http://collector:4318" + not})
		}
	}
	return found
}

// otlp names the two variables for one setting of the exporter.
func otlp(signal, setting string) []string {
	return []string{"OTEL_EXPORTER_OTLP_" + setting, "OTEL_EXPORTER_OTLP_" + signal + "_" + setting}
}

// isEndpoint refuses addresses that the SDK would replace by its own default.
func isEndpoint(value string) bool {
	u, err := url.Parse(value)
	return value == "" || err == nil && (u.Scheme == "unix" || (u.Scheme == "http" || u.Scheme == "https") && u.Host != "")
}

func isBool(v string) bool {
	return v == "" || strings.EqualFold(v, "true") || strings.EqualFold(v, "false")
}

// oddExporter lists the settings of the exporter that the SDK replaces by their defaults.
func (o Options) oddExporter(signal string) []Warning {
	var found []Warning
	warn := func(names []string, fits func(string) bool, problem string) {
		for _, name := range names {
			if v := o.Getenv(name); v != "" && !fits(v) {
				found = append(found, Warning{name, problem})
			}
		}
	}
	warn(otlp(signal, "COMPRESSION"), oneOf("gzip", "none"), "neither gzip nor none; nothing is compressed")
	warn(otlp(signal, "INSECURE"), isBool, "is neither true nor false, and taken for false: calls use TLS")
	warn(otlp(signal, "HEADERS"), isHeaders, "not all of it is name=value, with commas between; the rest is sent")
	warn([]string{"OTEL_RESOURCE_ATTRIBUTES"}, isHeaders, "not all of it is name=value, with commas between; what is not is left out")
	warn(append(otlp(signal, "TIMEOUT"), intervals[signal]...), isPositive, "not a number of milliseconds; the default is used")
	warn(counts[signal], isPositive, "not a positive number; the default is used")
	if signal == metrics {
		warn([]string{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"}, oneOf("cumulative", "delta", "lowmemory"), "unknown; cumulative is used")
	}
	for _, prefix := range []string{"OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_" + signal + "_"} {
		ca, cert, key := prefix+"CERTIFICATE", prefix+"CLIENT_CERTIFICATE", prefix+"CLIENT_KEY"
		names := map[string]string{"ca_file": ca, "cert_file": cert, "key_file": key}
		keyfile.CheckTLS(o.Getenv(ca), o.Getenv(cert), o.Getenv(key), func(setting, message, hint string, values ...any) {
			message, _ = problem.Text(nil, message, hint, values...)
			found = append(found, Warning{names[setting], message})
		})
	}
	return found
}

var (
	intervals = map[string][]string{
		traces: {"OTEL_BSP_EXPORT_TIMEOUT"}, metrics: {"OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT"},
	}
	counts = map[string][]string{traces: {batchVariable}}
)

// batchVariable bounds the spans of one call to the collector. It is read here, because the SDK believes any number.
const batchVariable = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"

func (o Options) batchSize() int {
	n, err := strconv.Atoi(o.Getenv(batchVariable))
	if err != nil || n <= 0 {
		return 512
	}
	return min(n, traceQueue)
}

func oneOf(values ...string) func(string) bool {
	return func(v string) bool { return slices.Contains(values, strings.ToLower(strings.TrimSpace(v))) }
}

func isPositive(v string) bool {
	n, err := strconv.Atoi(v)
	return err == nil && n > 0
}

func isHeaders(list string) bool {
	for pair := range strings.SplitSeq(list, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if _, err := url.PathUnescape(value); strings.TrimSpace(pair) != "" && (!ok || err != nil || strings.ContainsAny(strings.TrimSpace(name), " \t")) {
			return false
		}
	}
	return true
}

func (o Options) oddSampler() []Warning {
	var found []Warning
	name, arg := "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
	if _, err := newSampler(o.Getenv(name), ""); err != nil {
		return []Warning{{name, "unknown sampler, use always_on, always_off or traceidratio; all traces are kept"}}
	}
	if _, err := newSampler(o.Getenv(name), o.Getenv(arg)); err != nil {
		found = append(found, Warning{arg, "not a number from 0 to 1; all traces are kept"})
	}
	return found
}

// sampler is the one asked for, with what is wrong left out.
func (o Options) sampler() sampler {
	for _, arg := range []string{o.Getenv("OTEL_TRACES_SAMPLER_ARG"), ""} {
		if s, err := newSampler(o.Getenv("OTEL_TRACES_SAMPLER"), arg); err == nil {
			return s
		}
	}
	return sampler{Sampler: sdktrace.AlwaysSample()}
}
