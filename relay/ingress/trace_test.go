package ingress

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/telemetry"
)

// BenchmarkTrace measures what the span of a call costs.
func BenchmarkTrace(b *testing.B) {
	relaytest.MeasureTraces(b, func(_ *testing.B, tracing *telemetry.Tracing) func(int) bool {
		g := &Ingress{tracing: tracing, refused: newRefusedLimit()}
		src := &source{SourceConfig: SourceConfig{Name: "recording", Path: "/ncs"}}
		r := httptest.NewRequest("POST", "/ncs", nil)
		return func(n int) bool {
			id := ncs.IdentifyOpaque("recording", []byte{byte(n), byte(n >> 8), byte(n >> 16)}).ID
			now := time.Now()
			g.trace(src, r, &call{id: id, verified: now, claimed: now, routed: now, appended: now, leads: true}, &answer{status: 200, outcome: outcomeAccepted}, now)
			return tracing.Accepted(id).IsSampled()
		}
	})
}

func TestTracingThatIsOffCostsNothing(t *testing.T) {
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{})
	require.NoError(t, err)
	g := &Ingress{tracing: tracing}
	var c call
	var a answer
	require.Zero(t, testing.AllocsPerRun(100, func() {
		g.trace(nil, nil, &c, &a, time.Time{})
		_ = tracing.Accepted(c.id)
	}))
}
