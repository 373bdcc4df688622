package ingress

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/route"
	"ncs-relay/relay/telemetry"
)

// storedAtOnce is a journal that costs nothing.
type storedAtOnce struct{ *relaytest.Assigned }

func (storedAtOnce) Append(_ context.Context, _ *journal.Record, done func(journal.Position, error)) error {
	done(relaytest.At(1), nil)
	return nil
}

func (storedAtOnce) Account(string) journal.SourceAccount { return noAccount{} }

type noAccount struct{}

func (noAccount) Received()    {}
func (noAccount) Rejected()    {}
func (noAccount) Unavailable() {}
func (noAccount) Test()        {}
func (noAccount) Duplicate()   {}

// answerer is a ResponseWriter that costs nothing.
type answerer struct {
	header http.Header
	status int
}

func (a *answerer) Header() http.Header         { return a.header }
func (a *answerer) Write(b []byte) (int, error) { return len(b), nil }
func (a *answerer) WriteHeader(status int)      { a.status = status }

const secret = "secret"

// newOn makes an Ingress with one source on a journal.
func newOn(t *testing.T, j journal.Appender) *Ingress {
	o := Options{Journal: j, Logger: slog.New(slog.DiscardHandler)}
	o.Dedup.SetDefaults()
	o.Limits.SetDefaults()
	o.Sources = []SourceConfig{{Name: "main", Path: "/ncs", Secrets: []relay.Secret{relay.NewSecret(secret)}, Signature: "v2", MaxBody: 1 << 20}}
	o.Router = route.Compile(route.Options{Sources: []route.Source{{Name: "main"}}, Report: func(route.Severity, string, string, string, ...any) {}})
	var err error
	o.Metrics, err = telemetry.NewMetrics(t.Context(), telemetry.Options{Log: o.Logger})
	require.NoError(t, err)
	o.Tracing, err = telemetry.NewTracing(t.Context(), telemetry.Options{Log: o.Logger})
	require.NoError(t, err)
	in, err := New(o)
	require.NoError(t, err)
	return in
}

func signed(t *testing.T, body []byte) *http.Request {
	call, err := http.NewRequest(http.MethodPost, "http://relay/ncs", io.NopCloser(bytes.NewReader(body)))
	require.NoError(t, err)
	call.ContentLength = int64(len(body))
	call.Header.Set(ncs.HeaderV2, ncs.SignV2(secret, body))
	return call
}

// hung is a journal that does not say whether it stores.
type hung struct{ storedAtOnce }

func (hung) Append(context.Context, *journal.Record, func(journal.Position, error)) error { return nil }

// hungOnKafka is one that needs longer to find out.
type hungOnKafka struct{ hung }

func (hungOnKafka) AppendsFor() time.Duration { return 7 * time.Second }

func TestCallersAreAnsweredWithinEightSeconds(t *testing.T) {
	t.Parallel()
	disk := hung{storedAtOnce{relaytest.NewAssigned()}}
	for _, tt := range []struct {
		journal journal.Appender
		size    int
		within  time.Duration
	}{
		{disk, 100, 5800 * time.Millisecond},
		{disk, uncountedBody + 1, 7800*time.Millisecond - bodyWait},
		{hungOnKafka{disk}, 100, 7800 * time.Millisecond},
		{hungOnKafka{disk}, uncountedBody + 1, 7800*time.Millisecond - bodyWait},
	} {
		synctest.Test(t, func(t *testing.T) {
			in := newOn(t, tt.journal)
			to := &answerer{header: make(http.Header)}
			began := time.Now()
			in.ServeHTTP(to, signed(t, fmt.Appendf(nil, `{"noticeId":"n","fill":"%0*d"}`, tt.size, 0)))
			require.Equal(t, http.StatusServiceUnavailable, to.status)
			require.Equal(t, tt.within, time.Since(began), "%T, %d bytes", tt.journal, tt.size)
		})
	}
}

// Garbage was a quarter of the processor time of a busy relay. What net/http and the journal allocate is not counted.
func TestACallCostsFewAllocations(t *testing.T) {
	if underRace {
		t.Skip("the race detector makes pools forget")
	}
	const runs = 200
	in := newOn(t, storedAtOnce{relaytest.NewAssigned()})
	for _, c := range []struct {
		name     string
		sequence func(i int) int
		most     float64
	}{
		{"new event", func(i int) int { return i + 1 }, 25},
		{"copy", func(int) int { return 1 }, 12},
	} {
		var calls []*http.Request
		for i := range runs + 1 {
			body := fmt.Appendf(nil, `{"noticeId":"n","notifyMs":1596555306283,"eventType":40,"sid":"s","payload":{"serviceType":1,"uid":"1001","sequence":%d,`+
				`"sendts":1596555306257,"cname":"channel","details":{"status":0,"msgName":"recorder_started"},"sid":"s"},"productId":3}`, c.sequence(i))
			calls = append(calls, signed(t, body))
		}
		to := &answerer{header: make(http.Header)}
		next := 0
		each := testing.AllocsPerRun(runs, func() {
			in.ServeHTTP(to, calls[next])
			next++
		})
		require.Equal(t, http.StatusOK, to.status, c.name)
		t.Logf("%s: %.0f", c.name, each)
		require.LessOrEqual(t, each, c.most, c.name)
	}
}
