package deliver

import (
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"ncs-relay/relay"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/telemetry"
)

// TestSpansOfABatchTellWhatBecameOfEach: an event behind one that was refused was not tried, and nothing is wrong with it.
func TestSpansOfABatchTellWhatBecameOfEach(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var request collector.ExportTraceServiceRequest
		body, _ := io.ReadAll(r.Body)
		require.NoError(t, proto.Unmarshal(body, &request))
		mu.Lock()
		defer mu.Unlock()
		for _, s := range request.ResourceSpans[0].ScopeSpans[0].Spans {
			said := strings.TrimSpace(s.Status.GetCode().String()[len("STATUS_CODE_"):] + " " + s.Status.GetMessage())
			for _, a := range s.Attributes {
				switch a.Key {
				case "ncs_relay.outcome", "ncs_relay.reason", "error.type", "ncs_relay.batch":
					said += ", " + a.Value.GetStringValue() + strings.TrimPrefix(strconv.FormatInt(a.Value.GetIntValue(), 10), "0")
				}
			}
			got[hex.EncodeToString(s.TraceId[:1])] = said
		}
	}))
	t.Cleanup(server.Close)
	for name, tt := range map[string]struct {
		taken int
		err   error
		want  map[string]string
	}{
		"all taken": {3, nil, map[string]string{"01": "UNSET, 3, delivered", "02": "UNSET, 3, delivered", "03": "UNSET, 3, delivered"}},
		"refused":   {1, relay.Permanent(relay.Because(relay.ReasonTooLarge, errors.New("big"))), map[string]string{"01": "UNSET, 3, delivered", "02": "ERROR big, 3, refused, too_large, too_large", "03": "UNSET, 3, not_tried"}},
		"failed":    {1, relay.BecauseOfStatus(503, errors.New("what it answered")), map[string]string{"01": "UNSET, 3, delivered", "02": "ERROR, 3, failed, 5xx, 503", "03": "ERROR, 3, failed, 5xx, 503"}},
		"relane":    {0, relay.ErrRelane, map[string]string{"01": "UNSET, 3, not_tried", "02": "UNSET, 3, not_tried", "03": "UNSET, 3, not_tried"}},
	} {
		t.Run(name, func(t *testing.T) {
			tracing := relaytest.ExportTo(t, server.URL, "", "")
			batch := make([]relay.Attempt, 3)
			for i := range batch {
				id := ncs.EventID{byte(i + 1)}
				batch[i] = relay.Attempt{Event: &relay.Event{ID: id, Trace: tracing.Accepted(id)}, Number: 1}
			}
			_, end := traceDelivery(t.Context(), tracing, &SinkSpec{}, relay.Lane{}, batch)
			end(sendResult{batch: batch, taken: tt.taken, err: tt.err})
			require.NoError(t, tracing.Shutdown(t.Context()))
			require.Equal(t, tt.want, got)
		})
	}
}

// BenchmarkTrace measures what the spans of one event's delivery cost, in batches of 50.
func BenchmarkTrace(b *testing.B) {
	relaytest.MeasureTraces(b, func(b *testing.B, tracing *telemetry.Tracing) func(int) bool {
		spec := &SinkSpec{Name: "kafka", PropagateTrace: true, SpanKind: trace.SpanKindProducer, SpanAttrs: telemetry.ToKafka([]string{"k:9092"})}
		lane := relay.Lane{Group: "ncs.cloud_recording.uploader", Key: "1"}
		batch := make([]relay.Attempt, 50)
		return func(n int) bool {
			id := ncs.IdentifyOpaque("recording", []byte{byte(n), byte(n >> 8), byte(n >> 16)}).ID
			event := &relay.Event{ID: id, Entity: "recording", Trace: tracing.Accepted(id)}
			batch[n%50] = relay.Attempt{Event: event, Number: 1}
			if n%50 == 49 {
				_, end := traceDelivery(b.Context(), tracing, spec, lane, batch)
				end(sendResult{batch: batch, taken: 50})
			}
			return event.Trace.IsSampled()
		}
	})
}

func TestTracingThatIsOffCostsNothing(t *testing.T) {
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{})
	require.NoError(t, err)
	batch := []relay.Attempt{{Event: &relay.Event{}}}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, end := traceDelivery(t.Context(), tracing, nil, relay.Lane{}, batch)
		end(sendResult{batch: batch, taken: 1})
	}))
	require.Empty(t, batch[0].Traceparent)
}
