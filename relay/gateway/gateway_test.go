package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/route"
	"ncs-relay/relay/telemetry"
)

const testSecret = "secret-for-tests"

// fixture is a gateway with its journal and a public port.
type fixture struct {
	t       testing.TB
	dir     string
	options Options
	fs      disktest.FS
	gateway *Gateway
	journal journal.Opened
	url     string
	end     func()
}

func sinkSpec(name string, s relay.Sink) deliver.SinkSpec {
	return deliver.SinkSpec{Name: name, Config: s, Build: func() (relay.Sink, error) { return s, nil }, Concurrency: 4, PropagateTrace: true,
		Retry: deliver.RetryConfig{Initial: 10 * time.Millisecond, MaxInterval: 50 * time.Millisecond, MaxAge: time.Hour}}
}

// start runs a gateway whose rules send everything to all sinks, unless routes say otherwise.
func start(t testing.TB, f fixture, routes []route.RuleConfig, specs ...deliver.SinkSpec) *fixture {
	t.Helper()
	f.t = t
	if f.dir == "" {
		f.dir = t.TempDir()
	}
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
	}
	if routes == nil && len(names) > 0 {
		routes = []route.RuleConfig{{To: names}}
	}
	o := f.options
	o.Logger = slog.New(slog.DiscardHandler)
	o.Sinks = specs
	o.Router = compileRoutes(t, routes, names)
	if o.Sources == nil {
		o.Sources = []ingress.SourceConfig{{Name: "main", Path: "/ncs", Secrets: []relay.Secret{relay.NewSecret(testSecret)}, Signature: "v2", MaxBody: 1 << 20}}
	}
	if o.Dedup.MaxKeys == 0 {
		o.Dedup.SetDefaults()
	}
	if o.Limits.InFlight == 0 {
		o.Limits.SetDefaults()
	}
	var err error
	to := telemetry.Options{Log: o.Logger}
	o.Metrics, err = telemetry.NewMetrics(t.Context(), to)
	require.NoError(t, err)
	o.Tracing, err = telemetry.NewTracing(t.Context(), to)
	require.NoError(t, err)

	f.journal = disktest.Open(t, f.dir, disktest.Options{FS: f.fs, Logger: o.Logger, KeepKeys: o.Dedup.MaxKeys, KeepKeysFor: o.Dedup.Window})
	o.Journal = f.journal
	f.gateway, err = New(o)
	require.NoError(t, err)
	server, err := ingress.Listen(ingress.ServerOptions{Listen: "127.0.0.1:0", Handler: f.gateway, Limits: o.Limits, Logger: o.Logger})
	require.NoError(t, err)
	f.url = "http://" + server.Addr().String() + "/ncs"

	ctx, cancel := context.WithCancel(context.Background())
	jctx, jcancel := context.WithCancel(context.Background())
	var wg, jwg sync.WaitGroup
	jwg.Go(func() { f.journal.Run(jctx); f.journal.Close() })
	wg.Go(func() { require.NoError(t, f.gateway.Run(ctx, time.Second)) })
	wg.Go(func() { server.Serve() })
	f.end = sync.OnceFunc(func() {
		sctx, scancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer scancel()
		server.Shutdown(sctx)
		cancel()
		wg.Wait()
		jcancel()
		jwg.Wait()
	})
	t.Cleanup(f.end)
	return &f
}

func compileRoutes(t testing.TB, routes []route.RuleConfig, sinks []string) *route.Router {
	t.Helper()
	return route.Compile(route.Options{
		Rules: routes, Sinks: sinks, Sources: []route.Source{{Name: "main"}},
		Report: func(s route.Severity, path, problem, hint string, values ...any) {
			if s == route.Error {
				require.Failf(t, "routes", "%s: %s (%s) %v", path, problem, hint, values)
			}
		},
	})
}

// body is a recording notification: number seq of a recording.
func body(sid string, seq int) []byte {
	return resend(sid, seq, 1596555306283)
}

// resend is a copy as NCS makes it: another notifyMs, everything else the same.
func resend(sid string, seq int, notifyMs int64) []byte {
	return fmt.Appendf(nil, `{"noticeId":"n-%s-%d","notifyMs":%d,"eventType":40,"sid":"%s","payload":{"serviceType":1,"uid":"1001","sequence":%d,"sendts":1596555306257,"cname":"channel","details":{"status":0,"msgName":"recorder_started"},"sid":"%s"},"productId":3}`,
		sid, seq, notifyMs, sid, seq, sid)
}

func (f *fixture) post(body []byte) relaytest.Reply {
	f.t.Helper()
	return relaytest.Request(f.t, "POST", f.url, body, ncs.HeaderV1, ncs.SignV1(testSecret, body), ncs.HeaderV2, ncs.SignV2(testSecret, body))
}

func TestAnswersAreAsDocumented(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	good := body("s1", 1)
	v1, v2 := ncs.SignV1(testSecret, good), ncs.SignV2(testSecret, good)

	stored := f.post(good)
	require.Equal(t, 200, stored.Code)
	require.Equal(t, "accepted", stored.Status)
	n, err := ncs.Builtin().Parse(good)
	require.NoError(t, err)
	require.Equal(t, n.Identify("main").ID.String(), stored.Event)

	copied := f.post(resend("s1", 1, 1596555309999))
	require.Equal(t, 200, copied.Code)
	require.Equal(t, "duplicate", copied.Status)
	require.Equal(t, stored.Event, copied.Event)

	test := f.post([]byte(`{"eventType":101,"noticeId":"1:2:105","notifyMs":1614335577167,"payload":{"channelName":"test_webhook","ts":1560396834},"productId":1}`))
	require.Equal(t, 200, test.Code)
	require.JSONEq(t, `{"status":"test"}`, test.Raw)

	for _, odd := range []string{"[]", "", "null", `{"a":1}`, "{", `{"eventType":"40","productId":3}`, "\xff", `{"eventType":40,"eventType":40}`} {
		q := f.post([]byte(odd))
		require.Equal(t, 200, q.Code, odd)
		require.Equal(t, "quarantined", q.Status, odd)
		again := f.post([]byte(odd))
		require.Equal(t, "duplicate", again.Status, odd)
		require.Equal(t, q.Event, again.Event, odd)
	}

	wrong := map[string][]string{
		"no signature":         nil,
		"V1 only":              {ncs.HeaderV1, v1},
		"wrong V2, right V1":   {ncs.HeaderV1, v1, ncs.HeaderV2, strings.Repeat("0", 64)},
		"V2 of another secret": {ncs.HeaderV2, ncs.SignV2("other", good)},
		"upper case":           {ncs.HeaderV2, strings.ToUpper(v2)},
		"short":                {ncs.HeaderV2, v2[:63]},
		"not hex":              {ncs.HeaderV2, "z" + v2[1:]},
		"twice":                {ncs.HeaderV2, v2, ncs.HeaderV2, v2},
		"empty":                {ncs.HeaderV2, ""},
	}
	for name, headers := range wrong {
		r := relaytest.Request(t, "POST", f.url, good, headers...)
		require.Equal(t, 401, r.Code, name)
		require.Equal(t, `{"error":"invalid signature"}`, r.Raw, name)
	}

	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS"} {
		r := relaytest.Request(t, method, f.url, nil)
		require.Equal(t, 405, r.Code)
		require.Equal(t, "POST", r.Header.Get("Allow"))
		require.NotEmpty(t, r.Error)
	}
	require.Equal(t, 404, relaytest.Request(t, "POST", f.url+"/x", good, ncs.HeaderV2, v2).Code)
	require.Equal(t, 404, relaytest.Request(t, "POST", f.url+"/", good, ncs.HeaderV2, v2).Code)
	require.Equal(t, "duplicate", relaytest.Request(t, "POST", f.url+"?a=b", good, ncs.HeaderV2, v2).Status, "a query string is ignored")

	large := bytes.Repeat([]byte("x"), 1<<20+1)
	require.Equal(t, 413, f.post(large).Code)
	require.Equal(t, 415, relaytest.Request(t, "POST", f.url, good, ncs.HeaderV2, v2, "Content-Encoding", "gzip").Code)
	require.Equal(t, 415, relaytest.Request(t, "POST", f.url, good, ncs.HeaderV2, v2, "Content-Encoding", "identity", "Content-Encoding", "gzip").Code)
	require.Equal(t, 200, relaytest.Request(t, "POST", f.url, good, ncs.HeaderV2, v2, "Content-Encoding", "Identity").Code)
	require.Equal(t, "duplicate", relaytest.Request(t, "POST", f.url, good, ncs.HeaderV2, v2, "Content-Type", "text/plain").Status)

	got := sink.WaitFor(t, 1)
	require.Len(t, got, 1, "tests, quarantined and refused calls reach no sink")
	require.Equal(t, good, got[0].Body)
	require.Equal(t, v1, got[0].SignatureV1)
	require.Equal(t, v2, got[0].SignatureV2)
}

// raw sends bytes as they are and reads one answer.
func (f *fixture) raw(t *testing.T, text string) relaytest.Reply {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(f.url, "http://"), "/ncs"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return relaytest.ReadReply(t, resp)
}

func TestBadFraming(t *testing.T) {
	t.Parallel()
	f := start(t, fixture{}, nil)
	head := "POST /ncs HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n"
	require.Equal(t, 400, f.raw(t, head+"5\r\nhelloXX").Code, "bad chunk")
	require.Equal(t, 413, f.raw(t, head+"200000\r\n"+strings.Repeat("x", 0x200000)).Code, "chunked and too large")
	require.Equal(t, 413, f.raw(t, "POST /ncs HTTP/1.1\r\nHost: relay\r\nContent-Length: 99999999\r\n\r\n").Code,
		"announced too large: refused before a byte of it is read")
}

// Callers and the proxies between write one call in many ways.
func TestACallMayBeWrittenInManyWays(t *testing.T) {
	t.Parallel()
	f := start(t, fixture{}, nil)
	sequence := 0
	// call gives the head's last lines and the body of a new, rightly signed notification.
	call := func() (signature, body string) {
		sequence++
		b := resend("s", sequence, 1)
		return ncs.HeaderV2 + ": " + ncs.SignV2(testSecret, b) + "\r\n", string(b)
	}
	plain := func(line, more string) string {
		signature, b := call()
		return fmt.Sprintf("%s\r\nHost: relay\r\n%s%sContent-Length: %d\r\n\r\n%s", line, signature, more, len(b), b)
	}
	chunked := func(more, trailer string) string {
		signature, b := call()
		return fmt.Sprintf("POST /ncs HTTP/1.1\r\nHost: relay\r\n%s%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n%s\r\n",
			signature, more, 10, b[:10], len(b)-10, b[10:], trailer)
	}
	signature, b := call()
	for name, want := range map[string]struct {
		text string
		code int
	}{
		"plain":                       {plain("POST /ncs HTTP/1.1", ""), 200},
		"HTTP/1.0":                    {plain("POST /ncs HTTP/1.0", ""), 200},
		"a full URL":                  {plain("POST http://elsewhere.internal/ncs HTTP/1.1", ""), 200},
		"a query":                     {plain("POST /ncs?a=/b HTTP/1.1", ""), 200},
		"an escaped path":             {plain("POST /%6Ecs HTTP/1.1", ""), 200},
		"two slashes":                 {plain("POST //ncs HTTP/1.1", ""), 404},
		"a slash at the end":          {plain("POST /ncs/ HTTP/1.1", ""), 404},
		"an escaped slash at the end": {plain("POST /ncs%2F HTTP/1.1", ""), 404},
		"another case":                {plain("POST /NCS HTTP/1.1", ""), 404},
		"dots":                        {plain("POST /./ncs HTTP/1.1", ""), 404},
		"dots that lead back":         {plain("POST /x/../ncs HTTP/1.1", ""), 404},
		"no path":                     {plain("POST * HTTP/1.1", ""), 404},
		"a method in lower case":      {plain("post /ncs HTTP/1.1", ""), 405},
		"chunks":                      {chunked("", ""), 200},
		"chunks and a trailer":        {chunked("Trailer: X-Checksum\r\n", "X-Checksum: 1\r\n"), 200},
		"a signature in the trailer": {fmt.Sprintf("POST /ncs HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\nTrailer: %s\r\n\r\n%x\r\n%s\r\n0\r\n%s\r\n",
			ncs.HeaderV2, len(b), b, signature), 401},
		"no body":                    {"POST /ncs HTTP/1.1\r\nHost: relay\r\n" + signature + "\r\n", 401},
		"white space behind":         {strings.Replace(plain("POST /ncs HTTP/1.1", ""), "\r\nContent-", " \t \r\nContent-", 1), 200},
		"a name in lower case":       {strings.Replace(plain("POST /ncs HTTP/1.1", ""), ncs.HeaderV2, strings.ToLower(ncs.HeaderV2), 1), 200},
		"a name that only resembles": {strings.Replace(plain("POST /ncs HTTP/1.1", ""), ncs.HeaderV2, strings.ReplaceAll(ncs.HeaderV2, "-", "_"), 1), 401},
	} {
		got := f.raw(t, want.text)
		require.Equal(t, want.code, got.Code, name)
		if want.code == 200 {
			require.Equal(t, "accepted", got.Status, name)
		}
	}
	require.Contains(t, f.rawText(t, plain("POST /ncs HTTP/1.1", "Expect: 100-continue\r\nConnection: close\r\n")), "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
	large := "POST /ncs HTTP/1.1\r\nHost: relay\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n"
	require.True(t, strings.HasPrefix(f.rawText(t, large), "HTTP/1.1 413"), "what is too large is not asked for")
	three := plain("POST /ncs HTTP/1.1", "") + plain("POST /ncs HTTP/1.1", "") + plain("POST /ncs HTTP/1.1", "Connection: close\r\n")
	require.Equal(t, 3, strings.Count(f.rawText(t, three), `"status":"accepted"`), "one behind the other without waiting")
}

// rawText sends bytes as they are and gives all that comes until the relay closes the connection.
func (f *fixture) rawText(t *testing.T, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(f.url, "http://"), "/ncs"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	answers, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(answers)
}

func TestSlowBodyIsCutOff(t *testing.T) {
	t.Parallel()
	var limits ingress.LimitsConfig
	limits.SetDefaults()
	limits.ReadTimeout = 100*time.Millisecond - 5*time.Second // with the time for headers, which is as long, the sum is short
	f := start(t, fixture{options: Options{Settings: Settings{Settings: ingress.Settings{Limits: limits}}}}, nil)
	require.Equal(t, 400, f.raw(t, "POST /ncs HTTP/1.1\r\nHost: relay\r\nContent-Length: 100\r\n\r\nabc").Code)
}

func TestSignatureAny(t *testing.T) {
	t.Parallel()
	sources := []ingress.SourceConfig{{Name: "main", Path: "/ncs", Signature: "any", MaxBody: 1 << 20,
		Secrets: []relay.Secret{relay.NewSecret("old"), relay.NewSecret(testSecret)}}}
	f := start(t, fixture{options: Options{Settings: Settings{Settings: ingress.Settings{Sources: sources}}}}, nil)
	b := body("s", 1)
	require.Equal(t, "accepted", relaytest.Request(t, "POST", f.url, b, ncs.HeaderV1, ncs.SignV1(testSecret, b)).Status)
	require.Equal(t, "duplicate", relaytest.Request(t, "POST", f.url, b, ncs.HeaderV1, ncs.SignV1("old", b)).Status)
	require.Equal(t, 401, relaytest.Request(t, "POST", f.url, b, ncs.HeaderV1, ncs.SignV1(testSecret, b), ncs.HeaderV2, ncs.SignV2("x", b)).Code,
		"a wrong V2 is not healed by a right V1")
	for name, headers := range map[string][]string{
		"none":                 nil,
		"empty V2, right V1":   {ncs.HeaderV1, ncs.SignV1(testSecret, b), ncs.HeaderV2, ""},
		"V1 in upper case":     {ncs.HeaderV1, strings.ToUpper(ncs.SignV1(testSecret, b))},
		"V1 twice":             {ncs.HeaderV1, ncs.SignV1(testSecret, b), ncs.HeaderV1, ncs.SignV1(testSecret, b)},
		"V1 where V2 belongs":  {ncs.HeaderV2, ncs.SignV1(testSecret, b)},
		"V1 of another secret": {ncs.HeaderV1, ncs.SignV1("another", b)},
	} {
		r := relaytest.Request(t, "POST", f.url, b, headers...)
		require.Equal(t, 401, r.Code, name)
		require.Equal(t, `{"error":"invalid signature"}`, r.Raw, name)
	}
	require.Equal(t, "duplicate", relaytest.Request(t, "POST", f.url, b, ncs.HeaderV1, strings.Repeat("0", 40), ncs.HeaderV2, ncs.SignV2(testSecret, b)).Status,
		"V2 alone decides")
}

func TestSignedForAnotherSource(t *testing.T) {
	t.Parallel()
	sources := []ingress.SourceConfig{
		{Name: "main", Path: "/ncs", MaxBody: 1 << 20, Secrets: []relay.Secret{relay.NewSecret(testSecret)}},
		{Name: "other", Path: "/other", MaxBody: 1 << 20, Secrets: []relay.Secret{relay.NewSecret("another")}},
	}
	f := start(t, fixture{options: Options{Settings: Settings{Settings: ingress.Settings{Sources: sources}}}}, nil)
	b := body("s", 1)
	require.Equal(t, 401, relaytest.Request(t, "POST", strings.Replace(f.url, "/ncs", "/other", 1), b, ncs.HeaderV2, ncs.SignV2(testSecret, b)).Code)
}

func TestProductNotAllowedIsQuarantined(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sources := []ingress.SourceConfig{{Name: "main", Path: "/ncs", MaxBody: 1 << 20, Secrets: []relay.Secret{relay.NewSecret(testSecret)}, Products: []string{"rtc"}}}
	f := start(t, fixture{options: Options{Settings: Settings{Settings: ingress.Settings{Sources: sources}}}}, nil, sinkSpec("all", sink))
	require.Equal(t, "quarantined", f.post(body("s", 1)).Status)
	require.Eventually(t, func() bool { return f.sink(relay.Unroutable).Dead == 1 }, 10*time.Second, 5*time.Millisecond)
	require.EqualValues(t, 1, f.sink(relay.Unroutable).DeadLetters)
	require.Empty(t, sink.Received())
}

// A text that was cut inside an emoji is legal JSON; bytes that are no text are not, and still say which event they report.
func TestWhatCanBeIdentifiedIsDeliveredByteForByte(t *testing.T) {
	t.Parallel()
	for name, said := range map[string]string{
		"lone surrogate": `"\ud83d"`, "not UTF-8": "\"\xff\"", "a member twice": `1,"said":2`,
	} {
		sink := relaytest.NewFarSide()
		f := start(t, fixture{}, nil, sinkSpec("all", sink))
		b := []byte(`{"noticeId":"n","eventType":103,"productId":17,"payload":{"agent_id":"a","said":` + said + `}}`)
		require.Equal(t, "accepted", f.post(b).Status, name)
		require.Equal(t, "duplicate", f.post(b).Status, name)
		require.Equal(t, string(b), string(sink.WaitFor(t, 1)[0].Body), name)
	}
}

// A product that gets a name in a later release must not be quarantined because the source still calls it by its number.
func TestProductIsLetInByItsOldName(t *testing.T) {
	t.Parallel()
	sources := []ingress.SourceConfig{{Name: "main", Path: "/ncs", MaxBody: 1 << 20, Secrets: []relay.Secret{relay.NewSecret(testSecret)}, Products: []string{"unknown_3"}}}
	f := start(t, fixture{options: Options{Settings: Settings{Settings: ingress.Settings{Sources: sources}}}}, nil)
	require.Equal(t, "accepted", f.post(body("s", 1)).Status)
}

// sink returns the accounts of a sink.
func (f *fixture) sink(name string) SinkStatus {
	f.t.Helper()
	for _, s := range f.gateway.Status().Sinks {
		if s.Name == name {
			return s
		}
	}
	require.FailNow(f.t, "no sink "+name)
	return SinkStatus{}
}

func TestSimultaneousCopiesAreDeliveredOnce(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	var mu sync.Mutex
	statuses := map[string]int{}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			r := f.post(resend("s", 7, 1596555306283+int64(i)))
			mu.Lock()
			defer mu.Unlock()
			statuses[fmt.Sprint(r.Code, r.Status)]++
		})
	}
	wg.Wait()
	require.Equal(t, map[string]int{"200accepted": 1, "200duplicate": 63}, statuses)
	last := f.post(body("s", 8))
	require.Equal(t, "accepted", last.Status)
	got := sink.WaitFor(t, 2)
	require.Len(t, got, 2)
}

func TestRestartDeliversWhatWasOwedAndKnowsCopies(t *testing.T) {
	t.Parallel()
	down := relaytest.NewFarSide()
	down.Set(func(relay.Attempt) error { return errors.New("service is down") })
	f := start(t, fixture{}, nil, sinkSpec("all", down))
	for i := range 20 {
		require.Equal(t, "accepted", f.post(body(fmt.Sprint("s", i%3), i)).Status)
	}
	f.end()

	up := relaytest.NewFarSide()
	g := start(t, fixture{dir: f.dir}, nil, sinkSpec("all", up))
	require.Equal(t, "duplicate", g.post(body("s0", 0)).Status)
	relaytest.RequireInOrder(t, up.WaitFor(t, 20), 20)
	status := g.sink("all")
	require.EqualValues(t, 20, status.Owed)
}

func TestFailingEntityDelaysNoOther(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sink.Set(func(a relay.Attempt) error {
		if a.Entity == "bad" {
			return errors.New("not now")
		}
		return nil
	})
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 30 {
		f.post(body("bad", i))
		f.post(body(fmt.Sprint("good", i), 0))
	}
	for _, a := range sink.WaitFor(t, 30) {
		require.NotEqual(t, "bad", a.Entity)
	}
	sink.Set(nil)
	relaytest.RequireInOrder(t, sink.WaitFor(t, 60), 60)
}

func TestRandomFailuresKeepOrderAndLoseNothing(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sink.Batch = 5
	n := 0
	sink.Set(func(a relay.Attempt) error {
		if n++; n%3 == 0 {
			return fmt.Errorf("failure %d", n)
		}
		return nil
	})
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 100 {
		require.Equal(t, "accepted", f.post(body(fmt.Sprint("s", i%7), i)).Status)
	}
	relaytest.RequireInOrder(t, sink.WaitFor(t, 100), 100)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 10*time.Second, 5*time.Millisecond)
	require.EqualValues(t, 100, f.sink("all").Delivered)
}

func TestPermanentRefusalBecomesADeadLetterAndTheRestFlows(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sink.Batch = 10
	sink.Set(func(a relay.Attempt) error {
		if bytes.Contains(a.Body, []byte(`"sequence":3,`)) {
			return relay.Permanent(errors.New("too large"))
		}
		return nil
	})
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 10 {
		f.post(body("s", i))
	}
	relaytest.RequireInOrder(t, sink.WaitFor(t, 9), 9)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 10*time.Second, 5*time.Millisecond)
	s := f.sink("all")
	require.EqualValues(t, 1, s.Dead)
	require.EqualValues(t, 1, s.DeadLetters)
}

func TestGivenUpAfterAttempts(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sink.Set(func(relay.Attempt) error { return errors.New("never") })
	spec := sinkSpec("all", sink)
	spec.Retry.MaxAttempts = 3
	f := start(t, fixture{}, nil, spec)
	f.post(body("s", 1))
	f.post(body("s", 2))
	require.Eventually(t, func() bool { return f.sink("all").Dead == 2 }, 10*time.Second, 5*time.Millisecond)
	sink.Mu.Lock()
	defer sink.Mu.Unlock()
	var numbers []int
	for _, a := range sink.Tried {
		numbers = append(numbers, a.Number)
	}
	require.Equal(t, []int{1, 2, 3, 1, 2, 3}, numbers)
}

func TestAttemptsAreCountedOverARestart(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sink.Set(func(relay.Attempt) error { return errors.New("never") })
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	f.post(body("s", 1))
	require.Eventually(t, func() bool { sink.Mu.Lock(); defer sink.Mu.Unlock(); return len(sink.Tried) >= 3 }, 10*time.Second, time.Millisecond)
	f.end()
	sink.Mu.Lock()
	before := sink.Tried[len(sink.Tried)-1].Number
	sink.Tried, sink.Fail = nil, nil
	sink.Mu.Unlock()
	start(t, fixture{dir: f.dir}, nil, sinkSpec("all", sink))
	got := sink.WaitFor(t, 1)
	require.Equal(t, before+1, got[0].Number)
}

func TestRelaneKeepsOrder(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sink.Batch = 3
	known := false
	sink.Lanes = func(ev *relay.Event) relay.Lane { // a topic that does not exist yet, then one with a partition per entity
		if !known {
			return relay.Lane{Group: "topic", Key: "?"}
		}
		return relay.Lane{Group: "topic", Key: ev.Entity}
	}
	sink.OnRelane = func(group string) { known = true }
	exists := false
	sink.Fail = func(relay.Attempt) error {
		switch {
		case !exists:
			return errors.New("unknown topic")
		case !known:
			return relay.ErrRelane
		}
		return nil
	}
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 50 {
		f.post(body(fmt.Sprint("s", i%5), i))
		if i == 25 {
			sink.Mu.Lock()
			exists = true
			sink.Mu.Unlock()
		}
	}
	relaytest.RequireInOrder(t, sink.WaitFor(t, 50), 50)
}

func TestEventsGoWhereTheRulesSay(t *testing.T) {
	t.Parallel()
	recordings, errorsOnly, rest := relaytest.NewFarSide(), relaytest.NewFarSide(), relaytest.NewFarSide()
	f := start(t, fixture{}, []route.RuleConfig{
		{Match: route.MatchConfig{Product: []string{"cloud_recording"}}, To: []string{"recordings"}},
		{Match: route.MatchConfig{Event: []string{"cloud_recording.recorder_started"}}, When: `payload.sequence > 1`, To: []string{"late", "recordings"}},
		{When: `payload.nothing.here == 1`, To: []string{"broken"}},
	}, sinkSpec("recordings", recordings), sinkSpec("late", errorsOnly), sinkSpec("broken", rest))
	f.post(body("s", 1))
	f.post(body("s", 2))
	require.Len(t, recordings.WaitFor(t, 2), 2)
	require.Len(t, errorsOnly.WaitFor(t, 1), 1)
	require.Empty(t, rest.Received(), "a rule that fails does not match")
}
