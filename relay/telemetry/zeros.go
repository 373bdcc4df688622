package telemetry

import (
	"cmp"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/proto"
)

// withZeros adds to the page the histograms that have no value so far, which the SDK leaves out: a rate needs the first
// value to be a step and not a birth.
type withZeros struct {
	prometheus.Gatherer

	mu    sync.Mutex // guards zeros
	zeros map[string]*dto.MetricFamily
}

// add makes a series be there from now on.
func (z *withZeros) add(name, help string, bounds []float64, labels attribute.Set) {
	h := &dto.Histogram{SampleCount: proto.Uint64(0), SampleSum: proto.Float64(0)}
	for _, b := range bounds {
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: proto.Float64(b), CumulativeCount: proto.Uint64(0)})
	}
	series := &dto.Metric{Histogram: h}
	for _, l := range labels.ToSlice() { // sorted, as the exporter's are
		series.Label = append(series.Label, &dto.LabelPair{Name: proto.String(string(l.Key)), Value: proto.String(l.Value.String())})
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.zeros[name] == nil {
		z.zeros[name] = &dto.MetricFamily{Name: proto.String(name), Help: proto.String(help), Type: dto.MetricType_HISTOGRAM.Enum()}
	}
	f := z.zeros[name]
	if !has(f, series) {
		f.Metric = append(f.Metric, series)
	}
}

// Gather implements prometheus.Gatherer.
func (z *withZeros) Gather() ([]*dto.MetricFamily, error) {
	families, err := z.Gatherer.Gather()
	z.mu.Lock()
	defer z.mu.Unlock()
	for name, zero := range z.zeros {
		i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == name })
		if i < 0 {
			i = len(families)
			families = append(families, &dto.MetricFamily{Name: zero.Name, Help: zero.Help, Type: zero.Type})
		}
		for _, m := range zero.Metric {
			if !has(families[i], m) {
				families[i].Metric = append(families[i].Metric, m)
			}
		}
	}
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return families, err
}

func has(f *dto.MetricFamily, m *dto.Metric) bool {
	return slices.ContainsFunc(f.Metric, func(o *dto.Metric) bool {
		return slices.EqualFunc(o.Label, m.Label, func(a, b *dto.LabelPair) bool {
			return a.GetName() == b.GetName() && a.GetValue() == b.GetValue()
		})
	})
}
