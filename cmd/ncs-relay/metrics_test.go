package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// series reads the metrics page as Prometheus does: values by name and labels, as the page writes them.
func (r *relayUnderTest) series() (values map[string]float64, families map[string]*dto.MetricFamily) {
	r.t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(r.page()))
	require.NoError(r.t, err)
	values = map[string]float64{}
	for name, f := range families {
		if !strings.HasPrefix(name, "ncs_relay_") {
			delete(families, name) // of Go, the process and the SDK
			continue
		}
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := strings.TrimPrefix(name, "ncs_relay_") + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.Histogram != nil:
				values[key] = float64(m.Histogram.GetSampleCount())
			case m.Counter != nil:
				values[key] = m.Counter.GetValue()
			default:
				values[key] = m.GetGauge().GetValue()
			}
		}
	}
	return values, families
}

// everything is a configuration with each kind of what can have metrics.
const everything = relayBase + `
dedup: {max_keys: 5000, window: 2h}
sources:
  - {name: recording, path: /ncs, secrets: [` + serveSecret + `, the-new-secret], signature: any, max_body: 64KiB, products: [cloud_recording, rtc]}
  - {name: quiet, path: /quiet, secrets: [` + serveSecret + `]}
sinks:
  - {name: service, http: {url: "%SERVICE%"}, retry: {initial: 10ms, max_interval: 20ms}, backlog: {max_size: 3MiB}}
  - {name: archive, file: {path: %DIR%/archive.jsonl}}
routes:
  - {match: {event: cloud_recording.uploaded}, to: [service, archive]}
  - {match: {event: cloud_recording.uploaded}, when: "payload.details.status > 0 && payload.uid > 5", to: [archive]}
`

// TestTheMetricsPageIsWhatTheReadmeSays compares names and labels, before anything has happened.
func TestTheMetricsPageIsWhatTheReadmeSays(t *testing.T) {
	t.Parallel()
	r := newRelay(t, strings.ReplaceAll(everything, "%SERVICE%", "http://127.0.0.1:1"))
	r.start()
	defer r.terminate()
	values, families := r.series()
	actual := map[string]string{}
	for name, f := range families {
		labels := map[string]bool{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = true
			}
		}
		actual[name] = strings.Join(slices.Sorted(maps.Keys(labels)), ", ")
	}
	readme, err := os.ReadFile("../../examples/observability/README.md")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(readme), "<!-- metrics -->\n")
	table, _, _ = strings.Cut(table, "\n\n")
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(ncs_relay_\\w+)` \\|([^|]*)\\|").FindAllStringSubmatch(table, -1) {
		var labels []string
		for l := range strings.SplitSeq(strings.TrimSpace(row[2]), ", ") {
			labels = append(labels, l)
		}
		slices.Sort(labels)
		documented[row[1]] = strings.Join(labels, ", ")
	}
	if diff := cmp.Diff(actual, documented); diff != "" {
		t.Errorf("metrics (-page +documents):\n%s", diff)
	}

	allowed := regexp.MustCompile(`^(build_info|config_|journal_(.*bytes|ready|shards|held_shards)|sink_state|connections|backlog_max_bytes|dedup_(max_keys|window_seconds))`)
	for name, value := range values {
		require.True(t, value == 0 || allowed.MatchString(name), "%s is %v before anything happened", name, value)
	}
	for _, source := range []string{"recording", "quiet"} { // all outcomes of all sources and sinks are there from the start
		require.Contains(t, values, `notifications_total{outcome="rejected",reason="signature",source="`+source+`"}`)
		require.Contains(t, values, `arrival_delay_seconds{source="`+source+`"}`)
	}
	require.Contains(t, values, `signatures_total{kind="v1",secret="1",source="recording"}`)
	require.NotContains(t, values, `signatures_total{kind="v2",secret="1",source="quiet"}`)
	require.Contains(t, values, `rule_errors_total{rule="1"}`)
	for _, sink := range []string{"service", "archive", "unroutable"} {
		require.Contains(t, values, `deliveries_total{outcome="dead",sink="`+sink+`"}`)
		require.Contains(t, values, `delivery_latency_seconds{sink="`+sink+`"}`)
		require.Contains(t, values, `delivery_attempts_total{outcome="refused",reason="4xx",sink="`+sink+`"}`)
		require.Contains(t, values, `pending_bytes{sink="`+sink+`"}`)
	}
	for _, sink := range []string{"service", "archive"} {
		require.EqualValues(t, 1, values[`sink_state{sink="`+sink+`",state="delivering"}`])
	}
	require.NotContains(t, values, `backlog_max_bytes{sink="unroutable"}`, "which has no bound: 0 would be one that is reached")
}

// TestQueriesForOperatorsFindSomething holds each selector of the alerts and the dashboard against the page of a relay that
// has just started: a name, a label or a value that it does not have is a mistake.
func TestQueriesForOperatorsFindSomething(t *testing.T) {
	t.Parallel()
	r := newRelay(t, strings.ReplaceAll(everything, "%SERVICE%", "http://127.0.0.1:1"))
	r.start()
	defer r.terminate()
	_, families := r.series()
	var all []map[string]string // labels of each series, its name as __name__
	for name, f := range families {
		for _, m := range f.Metric {
			labels := map[string]string{"__name__": name}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if m.Histogram == nil {
				all = append(all, labels)
				continue
			}
			labels["__name__"] = name + "_count"
			all = append(all, labels)
			for _, b := range m.Histogram.Bucket {
				bucket := maps.Clone(labels)
				bucket["__name__"], bucket["le"] = name+"_bucket", strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)
				all = append(all, bucket)
			}
		}
	}
	found := 0
	for _, file := range []string{"alerts.yml", "grafana/ncs-relay.json"} {
		b, err := os.ReadFile("../../examples/observability/" + file)
		require.NoError(t, err)
		text := strings.ReplaceAll(string(b), `\"`, `"`)
		text = regexp.MustCompile(`(job|instance)=~"\$\w+"`).ReplaceAllString(text, "") // Prometheus adds these labels
		text = regexp.MustCompile(`=~"\$(source|sink)"`).ReplaceAllString(text, `=~".*"`)
		for _, selector := range regexp.MustCompile(`(ncs_relay_\w+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(text, -1) {
			matchers := regexp.MustCompile(`(\w+)(=~|!=|!~|=)"([^"]*)"`).FindAllStringSubmatch(selector[2]+`,__name__="`+selector[1]+`"`, -1)
			require.True(t, slices.ContainsFunc(all, func(labels map[string]string) bool {
				for _, m := range matchers {
					value, has := labels[m[1]]
					is := regexp.MustCompile("^(?:" + m[3] + ")$").MatchString(value)
					if !has || is != (m[2][0] == '=') {
						return false
					}
				}
				return true
			}), "%s: %s finds nothing", file, selector[0])
			found++
		}
		for _, by := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(text, -1) {
			for label := range strings.SplitSeq(by[1], ", ") {
				require.True(t, label == "job" || slices.ContainsFunc(all, func(labels map[string]string) bool { return labels[label] != "" }), "%s: label %s", file, label)
			}
		}
	}
	require.Greater(t, found, 30)
}

// request makes any call and gives its status.
func (r *relayUnderTest) request(method, path, header, signature string, body []byte, more ...string) int {
	r.t.Helper()
	req, err := http.NewRequest(method, strings.TrimSuffix(r.url, "/ncs")+path, bytes.NewReader(body))
	require.NoError(r.t, err)
	if header != "" {
		req.Header.Set(header, signature)
	}
	for i := 0; i < len(more); i += 2 {
		req.Header.Set(more[i], more[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(r.t, err)
	return resp.StatusCode
}

// uploaded is an event of a recording that happened at a time of the payload's clock.
func uploaded(sid string, sequence int, at time.Time) []byte {
	return fmt.Appendf(nil, `{"noticeId":"n","notifyMs":1,"eventType":31,"sid":"%[1]s","payload":{"serviceType":2,"uid":"1","sequence":%[2]d,"sendts":%[3]d,"cname":"c","details":{"msgName":"uploaded","status":0},"sid":"%[1]s"},"productId":3}`,
		sid, sequence, at.UnixMilli())
}

// TestMetricsTellWhatHappened makes each thing happen that is counted, a known number of times, and reads the page.
func TestMetricsTellWhatHappened(t *testing.T) {
	t.Parallel()
	var failed atomic.Int64
	hang := make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.Header.Get("Ncs-Relay-Entity") {
		case "refused":
			w.WriteHeader(http.StatusUnprocessableEntity)
		case "hangs":
			<-hang
		case "fails":
			if failed.Add(1) <= 2 {
				w.WriteHeader(http.StatusBadGateway)
			}
		}
	}))
	defer service.Close()
	defer close(hang)
	r := newRelay(t, strings.ReplaceAll(everything, "%SERVICE%", service.URL))
	r.start()

	now := time.Now()
	const v1, v2 = "Agora-Signature", "Agora-Signature-V2"
	signed2 := func(body []byte) int {
		return r.request("POST", "/ncs", v2, signed(sha256.New, serveSecret, body), body)
	}
	// 5 accepted, 2 copies of one, a conflict, one that comes before an earlier one, one without a rule.
	require.Equal(t, 200, signed2(uploaded("ok", 1, now.Add(-100*time.Second)))) // 60 s < delay <= 120 s
	require.Equal(t, 200, signed2(uploaded("ok", 1, now.Add(-100*time.Second))))
	require.Equal(t, 200, signed2(uploaded("ok", 1, now.Add(-100*time.Second))))
	require.Equal(t, 200, signed2(uploaded("ok", 1, now.Add(-99*time.Second)))) // same key, another event
	require.Equal(t, 200, signed2(uploaded("ok", 2, now.Add(-7*time.Hour))))    // 6 h < delay <= 24 h, and late
	require.Equal(t, 200, signed2(uploaded("future", 1, now.Add(time.Hour))))   // counts as no delay
	require.Equal(t, 200, signed2(uploaded("refused", 1, now)))
	require.Equal(t, 200, signed2(uploaded("fails", 1, now)))
	require.Equal(t, 200, signed2(uploaded("hangs", 1, now)))
	micros := bytes.Replace(uploaded("micros", 1, now), fmt.Append(nil, now.UnixMilli()), fmt.Append(nil, now.UnixMicro()), 1)
	require.Equal(t, 200, signed2(micros)) // of no unit that is known: no delay is noted
	unmatched := fmt.Appendf(nil, `{"noticeId":"u","productId":1,"eventType":101,"payload":{"channelName":"c","ts":%d}}`, now.Unix()-20)
	require.Equal(t, 200, signed2(unmatched)) // 10 s < delay <= 30 s
	// Other outcomes.
	require.Equal(t, 200, signed2([]byte(`{"noticeId":"t","productId":1,"eventType":103,"payload":{"channelName":"test_webhook","uid":12121212}}`)))
	require.Equal(t, 200, signed2([]byte(`[]`)))
	require.Equal(t, 200, signed2([]byte(`{"noticeId":"p","productId":17,"eventType":101,"payload":{}}`)))
	body := uploaded("signatures", 1, now)
	require.Equal(t, 200, r.request("POST", "/ncs", v1, signed(sha1.New, "the-new-secret", body), body))
	body = uploaded("signatures", 2, now)
	require.Equal(t, 200, r.request("POST", "/ncs", v2, signed(sha256.New, "the-new-secret", body), body))
	require.Equal(t, 401, r.request("POST", "/ncs", v2, signed(sha256.New, "wrong", body), body))
	require.Equal(t, 401, r.request("POST", "/ncs", "", "", body))
	require.Equal(t, 405, r.request("GET", "/ncs", "", "", nil))
	require.Equal(t, 413, r.request("POST", "/ncs", "", "", make([]byte, 70_000)))
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, _ = zip.Write(body)
	require.NoError(t, zip.Close())
	require.Equal(t, 415, r.request("POST", "/ncs", "", "", packed.Bytes(), "Content-Encoding", "gzip"))
	for i := range 3 {
		require.Equal(t, 404, r.request("POST", fmt.Sprint("/", i), "", "", nil))
	}
	failing := bytes.Replace(uploaded("rule", 1, now), []byte(`"status":0`), []byte(`"status":1`), 1) // uid is no number: the rule fails
	require.Equal(t, 200, signed2(failing))

	want := map[string]float64{
		`notifications_total{outcome="accepted",reason="",source="recording"}`:                       11,
		`notifications_total{outcome="accepted",reason="conflict",source="recording"}`:               1,
		`notifications_total{outcome="duplicate",reason="",source="recording"}`:                      2,
		`notifications_total{outcome="test",reason="",source="recording"}`:                           1,
		`notifications_total{outcome="quarantined",reason="not_object",source="recording"}`:          1,
		`notifications_total{outcome="quarantined",reason="product_not_allowed",source="recording"}`: 1,
		`notifications_total{outcome="rejected",reason="signature",source="recording"}`:              2,
		`notifications_total{outcome="rejected",reason="method",source="recording"}`:                 1,
		`notifications_total{outcome="rejected",reason="too_large",source="recording"}`:              1,
		`notifications_total{outcome="rejected",reason="compressed",source="recording"}`:             1,
		`notifications_total{outcome="rejected",reason="unknown_path",source=""}`:                    3,
		`signatures_total{kind="v1",secret="1",source="recording"}`:                                  1,
		`signatures_total{kind="v2",secret="1",source="recording"}`:                                  1,
		`signatures_total{kind="v2",secret="0",source="recording"}`:                                  15,
		`accept_duration_seconds{source="recording"}`:                                                22,
		`arrival_delay_seconds{source="recording"}`:                                                  11, // all accepted but micros
		`arrival_delay_seconds{source="quiet"}`:                                                      0,
		`out_of_order_total{source="recording"}`:                                                     1,
		`dedup_hits_total{kind="known",source="recording"}`:                                          2,
		`dedup_hits_total{kind="in_flight",source="recording"}`:                                      0,
		`copy_age_seconds{source="recording"}`:                                                       2,
		`dedup_conflicts_total{}`:                                                                    1,
		`dedup_keys{}`:                                                                               13, // conflicts share one
		`unmatched_total{}`:                                                                          1,
		`rule_errors_total{rule="0"}`:                                                                0,
		`rule_errors_total{rule="1"}`:                                                                1,
		`journal_append_duration_seconds{}`:                                                          14,
		`notifications_in_flight{}`:                                                                  0,
		`source_account{source="recording",state="received"}`:                                        22,
		`source_account{source="recording",state="accepted"}`:                                        12,
		`source_account{source="recording",state="in_flight"}`:                                       0,
		`source_account{source="recording",state="rejected"}`:                                        5,

		`deliveries_total{outcome="delivered",sink="archive"}`:                              11,
		`deliveries_total{outcome="delivered",sink="service"}`:                              9,
		`deliveries_total{outcome="dead",sink="service"}`:                                   1,
		`deliveries_total{outcome="dead",sink="unroutable"}`:                                2,
		`dead_letters{sink="service"}`:                                                      1,
		`dead_letters{sink="unroutable"}`:                                                   2,
		`pending_deliveries{sink="service"}`:                                                1, // hangs
		`pending_bytes{sink="service"}`:                                                     float64(len(uploaded("hangs", 1, now))),
		`pending_bytes{sink="archive"}`:                                                     0,
		`backlog_max_bytes{sink="service"}`:                                                 3 << 20,
		`backlog_max_bytes{sink="archive"}`:                                                 4 << 30, // the default
		`journal_max_bytes{}`:                                                               20 << 30,
		`dedup_max_keys{}`:                                                                  5000,
		`dedup_window_seconds{}`:                                                            7200,
		`queued_deliveries{sink="service"}`:                                                 1,
		`sends_in_flight{sink="service"}`:                                                   1,
		`sends_in_flight{sink="archive"}`:                                                   0,
		`oldest_pending_age_seconds{sink="archive"}`:                                        0,
		`delivery_attempts_total{outcome="delivered",reason="",sink="service"}`:             9,
		`delivery_attempts_total{outcome="failed",reason="5xx",sink="service"}`:             2,
		`delivery_attempts_total{outcome="refused",reason="4xx",sink="service"}`:            1,
		`delivery_attempts_total{outcome="refused",reason="quarantined",sink="unroutable"}`: 2,
		`delivery_latency_seconds{sink="service"}`:                                          9,
		`delivery_duration_seconds{sink="service"}`:                                         12,
		`sink_account{sink="service",state="owed"}`:                                         11,
		`sink_account{sink="service",state="pending"}`:                                      1,
		`trace_spans_lost_total{}`:                                                          0,
		`trail_entries_lost_total{}`:                                                        0,
		`config_generation{}`:                                                               1,
		`config_last_reload_successful{}`:                                                   1,
	}
	var values map[string]float64
	var families map[string]*dto.MetricFamily
	differs := func() string {
		values, families = r.series()
		got := map[string]float64{}
		for name := range want {
			got[name] = math.NaN()
			if v, ok := values[name]; ok {
				got[name] = v
			}
		}
		return cmp.Diff(want, got)
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Empty(c, differs()) }, 20*time.Second, 20*time.Millisecond)

	delays := bucketsOf(t, families["ncs_relay_arrival_delay_seconds"], "recording")
	require.EqualValues(t, 1, delays[30]-delays[10], "seconds, 20 ago")
	require.EqualValues(t, 2, delays[120]-delays[60], "milliseconds, 100 s and 99 s ago")
	require.EqualValues(t, 1, delays[24*3600]-delays[6*3600], "7 h ago")
	require.EqualValues(t, 7, delays[10], "now and in the future")
	require.EqualValues(t, 2, bucketsOf(t, families["ncs_relay_copy_age_seconds"], "recording")[5], "copies that came at once are no resends")
	require.Positive(t, values[`journal_syncs_total{}`])
	require.LessOrEqual(t, values[`journal_syncs_total{}`], 14.0, "at least one event a group")
	require.Positive(t, values[`journal_bytes{}`])
	require.Positive(t, values[`journal_free_bytes{}`])
	age := values[`oldest_pending_age_seconds{sink="service"}`]
	require.True(t, age > 0 && age <= time.Since(now).Seconds(), "seconds since the hanging one came: %v", age)
	require.LessOrEqual(t, values[`dedup_oldest_key_age_seconds{}`], time.Since(now).Seconds()+1)
	require.InDelta(t, float64(now.Unix()), values[`config_last_reload_timestamp_seconds{}`], 120)
	requireBalance(t, values)

	// A replay is an attempt, and in none of the sink's accounts; the time since the event came says nothing of the sink.
	r.mustAsk("replay", "--sink", "archive", "--entity", "future", "--yes", "--wait")
	values, _ = r.series()
	require.EqualValues(t, 12, values[`delivery_attempts_total{outcome="delivered",reason="",sink="archive"}`])
	require.EqualValues(t, 11, values[`delivery_latency_seconds{sink="archive"}`])
	require.EqualValues(t, 11, values[`sink_account{sink="archive",state="owed"}`])
	requireBalance(t, values)

	// States: a pause, a good reload, a bad one.
	r.mustAsk("sinks", "pause", "service")
	values, _ = r.series()
	require.EqualValues(t, 1, values[`sink_state{sink="service",state="paused"}`])
	require.EqualValues(t, 0, values[`sink_state{sink="service",state="delivering"}`])
	text, err := os.ReadFile(r.config)
	require.NoError(t, err)
	text = []byte(strings.NewReplacer("max_size: 3MiB", "max_size: 5MiB", "max_keys: 5000, window: 2h", "max_keys: 6000, window: 1h").Replace(string(text)))
	require.NoError(t, os.WriteFile(r.config, append(text, "unmatched: [archive]\n"...), 0o600))
	// Without a signal: on a slow machine the change is noticed before it, and then there are two reloads.
	r.eventually(func() bool { values, _ = r.series(); return values[`config_generation{}`] == 2 }, "a reload")
	require.EqualValues(t, 5<<20, values[`backlog_max_bytes{sink="service"}`], "bounds are those in effect")
	require.EqualValues(t, 6000, values[`dedup_max_keys{}`])
	require.EqualValues(t, 3600, values[`dedup_window_seconds{}`])
	require.NoError(t, os.WriteFile(r.config, append(text, "nonsense: 1\n"...), 0o600))
	r.eventually(func() bool { values, _ = r.series(); return values[`config_last_reload_successful{}`] == 0 }, "a reload that fails")
	require.EqualValues(t, 2, values[`config_generation{}`])
	require.EqualValues(t, 12, values[`source_account{source="recording",state="accepted"}`], "counting goes on")
}

// bucketsOf returns the cumulative counts of a source's histogram by upper bound.
func bucketsOf(t *testing.T, f *dto.MetricFamily, source string) map[float64]uint64 {
	t.Helper()
	for _, m := range f.Metric {
		if m.Label[0].GetValue() == source {
			buckets := map[float64]uint64{}
			for _, b := range m.Histogram.Bucket {
				buckets[b.GetUpperBound()] = b.GetCumulativeCount()
			}
			return buckets
		}
	}
	require.FailNow(t, "no such series")
	return nil
}

// requireBalance checks the identities of the accounts, from the page alone.
func requireBalance(t *testing.T, values map[string]float64) {
	t.Helper()
	of := func(metric, label, name string) func(state string) float64 {
		return func(state string) float64 {
			v, ok := values[fmt.Sprintf(`%s{%s=%q,state=%q}`, metric, label, name, state)]
			require.True(t, ok, "%s %s %s", metric, name, state)
			return v
		}
	}
	for key := range values {
		if m := regexp.MustCompile(`^source_account\{source="(.*)",state="received"\}$`).FindStringSubmatch(key); m != nil {
			s := of("source_account", "source", m[1])
			require.Equal(t, s("received"), s("rejected")+s("unavailable")+s("test")+s("duplicate")+s("quarantined")+s("accepted")+s("in_flight"), m[1])
		}
		if m := regexp.MustCompile(`^sink_account\{sink="(.*)",state="owed"\}$`).FindStringSubmatch(key); m != nil {
			s := of("sink_account", "sink", m[1])
			require.Equal(t, s("owed"), s("delivered")+s("dead")+s("skipped")+s("dropped")+s("pending"), m[1])
		}
	}
}

// TestAccountsOnTheMetricsPageBalanceUnderLoad reads the page again and again while everything moves.
func TestAccountsOnTheMetricsPageBalanceUnderLoad(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	service.answers(func(body string) int { return []int{200, 200, 502, 422}[len(body)%4] })
	r := newRelay(t, strings.ReplaceAll(everything, "%SERVICE%", "http://"+service.address+"/"))
	r.start()
	var posters sync.WaitGroup
	const calls = 300
	for p := range 4 {
		posters.Go(func() {
			for i := range calls {
				body := recording(strings.Repeat("s", 1+i%7), p*calls+i, 1)
				if i%10 == 0 {
					body = []byte(strconv.Itoa(i)) // quarantined
				}
				signature := signed(sha256.New, serveSecret, body)
				if i%7 == 0 {
					signature = strings.Repeat("0", 64)
				}
				for range 1 + i%2 { // some twice
					r.request("POST", "/ncs", "Agora-Signature-V2", signature, body)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { posters.Wait(); close(done) }()
	for reads := 0; ; reads++ {
		values, _ := r.series()
		requireBalance(t, values)
		select {
		case <-done:
			values, _ = r.series()
			requireBalance(t, values)
			require.Greater(t, reads, 5)
			total := 0.0
			for key, v := range values {
				if strings.HasPrefix(key, "notifications_total{") && strings.Contains(key, `source="recording"`) {
					total += v
				}
			}
			require.EqualValues(t, 4*calls*3/2, total)
			require.Equal(t, total, values[`source_account{source="recording",state="received"}`])
			r.terminate()
			return
		default:
		}
	}
}

// TestNoCallerMakesSeries sends what could become a label if we were careless, each time another.
func TestNoCallerMakesSeries(t *testing.T) {
	t.Parallel()
	n := 10_000
	if testing.Short() {
		n = 500
	}
	r := newRelay(t, strings.ReplaceAll(everything, "%SERVICE%", "http://127.0.0.1:1/"))
	r.start()
	before, _ := r.series()
	var posters sync.WaitGroup
	for p := range 4 {
		posters.Go(func() {
			for i := p; i < n; i += 4 {
				body := fmt.Appendf(nil, `{"noticeId":"n%[1]d","productId":%[2]d,"eventType":%[1]d,"sid":"e%[1]d","payload":{"sid":"e%[1]d","sequence":%[1]d,"cname":"c%[1]d","channelName":"c%[1]d"}}`,
					i, []int{3, 1, i}[i%3])
				r.request("POST", "/ncs", "Agora-Signature-V2", signed(sha256.New, serveSecret, body), body)
				if i%10 == 0 {
					r.request(fmt.Sprintf("M%d", i), "/ncs", "Agora-Signature", "x", nil)
					r.request("POST", fmt.Sprintf("/%d", i), "", "", nil, "Host", fmt.Sprint(i))
				}
			}
		})
	}
	posters.Wait()
	after, _ := r.series()
	require.Empty(t, cmp.Diff(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))))
	t.Logf("%d calls, %d series before and after", n, len(after))
	r.terminate()
}
