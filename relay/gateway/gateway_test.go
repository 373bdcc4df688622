package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/route"
	"ncs-relay/relay/telemetry"
)

const testSecret = "secret-for-tests"

// farSide is a sink in memory whose verdicts a test sets.
type farSide struct {
	mu      sync.Mutex
	got     []relay.Attempt
	tried   []relay.Attempt
	at      []time.Time // of each Send
	batches []int       // sizes of each Send
	active  int         // Sends running
	laned   int         // calls of Lane
	slow    func(relay.Attempt) time.Duration
	fail    func(relay.Attempt) error
	lanes   func(*relay.Event) relay.Lane
	relane  func(group string)
	batch   int
	change  chan struct{} // closed and renewed at each Send
}

func newFarSide() *farSide { return &farSide{batch: 1, change: make(chan struct{})} }

func (f *farSide) Lane(ev *relay.Event) relay.Lane {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.laned++
	if f.lanes != nil {
		return f.lanes(ev)
	}
	return relay.Lane{Key: ev.Entity}
}

func (f *farSide) Relane(group string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.relane(group)
}

func (f *farSide) MaxBatch() (int, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.batch, 1 << 20
}

func (f *farSide) Close() error { return nil }

func (f *farSide) Send(ctx context.Context, _ relay.Lane, batch []relay.Attempt) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = append(f.at, time.Now())
	f.batches = append(f.batches, len(batch))
	f.active++
	if f.slow != nil {
		wait := f.slow(batch[0])
		f.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
	f.active--
	defer func() {
		close(f.change)
		f.change = make(chan struct{})
	}()
	for i, a := range batch {
		f.tried = append(f.tried, a)
		if f.fail != nil {
			if err := f.fail(a); err != nil {
				return i, err
			}
		}
		f.got = append(f.got, a)
	}
	return len(batch), nil
}

func (f *farSide) set(fail func(relay.Attempt) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *farSide) running() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.active
}

func (f *farSide) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.batches)
}

func (f *farSide) received() []relay.Attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

// waitFor waits until the far side has got n events.
func (f *farSide) waitFor(t testing.TB, n int) []relay.Attempt {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		f.mu.Lock()
		got, change := slices.Clone(f.got), f.change
		f.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-change:
		case <-timeout:
			require.FailNowf(t, "events missing", "got %d of %d", len(got), n)
		}
	}
}

// fixture is a gateway with its journal and a public port.
type fixture struct {
	t       testing.TB
	dir     string
	options Options
	fs      diskjournal.FS
	gateway *Gateway
	journal journal.Opened
	url     string
	end     func()
}

func sinkSpec(name string, s relay.Sink) SinkSpec {
	return SinkSpec{Name: name, Config: s, Build: func() (relay.Sink, error) { return s, nil }, Concurrency: 4, PropagateTrace: true,
		Retry: RetryConfig{Initial: 10 * time.Millisecond, MaxInterval: 50 * time.Millisecond, MaxAge: time.Hour}}
}

// start runs a gateway whose rules send everything to all sinks, unless routes say otherwise.
func start(t testing.TB, f fixture, routes []route.RuleConfig, specs ...SinkSpec) *fixture {
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
		o.Sources = []SourceConfig{{Name: "main", Path: "/ncs", Secrets: []relay.Secret{relay.NewSecret(testSecret)}, Signature: "v2", MaxBody: 1 << 20}}
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

	f.journal = disktest.Open(t, f.dir, diskjournal.Options{FS: f.fs, Logger: o.Logger, KeepKeys: o.Dedup.MaxKeys, KeepKeysFor: o.Dedup.Window})
	o.Journal = f.journal
	f.gateway, err = New(o)
	require.NoError(t, err)
	server, err := Listen(ServerOptions{Listen: "127.0.0.1:0", Handler: f.gateway, Limits: o.Limits, Logger: o.Logger})
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

type reply struct {
	code   int
	Status string
	Event  string
	Error  string
	header http.Header
	raw    string
}

func request(t testing.TB, method, url string, body []byte, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	return readReply(t, resp)
}

func readReply(t testing.TB, resp *http.Response) reply {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	r := reply{code: resp.StatusCode, header: resp.Header, raw: string(b)}
	require.NoError(t, json.Unmarshal(b, &r), "every answer is JSON: %s", b)
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	return r
}

func (f *fixture) post(body []byte) reply {
	f.t.Helper()
	return request(f.t, "POST", f.url, body, ncs.HeaderV1, ncs.SignV1(testSecret, body), ncs.HeaderV2, ncs.SignV2(testSecret, body))
}

func TestAnswersAreAsDocumented(t *testing.T) {
	t.Parallel()
	sink := newFarSide()
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	good := body("s1", 1)
	v1, v2 := ncs.SignV1(testSecret, good), ncs.SignV2(testSecret, good)

	stored := f.post(good)
	require.Equal(t, 200, stored.code)
	require.Equal(t, "accepted", stored.Status)
	n, err := ncs.Parse(good)
	require.NoError(t, err)
	require.Equal(t, n.Identify("main").ID.String(), stored.Event)

	copied := f.post(resend("s1", 1, 1596555309999))
	require.Equal(t, 200, copied.code)
	require.Equal(t, "duplicate", copied.Status)
	require.Equal(t, stored.Event, copied.Event)

	test := f.post([]byte(`{"eventType":101,"noticeId":"1:2:105","notifyMs":1614335577167,"payload":{"channelName":"test_webhook","ts":1560396834},"productId":1}`))
	require.Equal(t, 200, test.code)
	require.JSONEq(t, `{"status":"test"}`, test.raw)

	for _, odd := range []string{"[]", "", "null", `{"a":1}`, "{", `{"eventType":"40","productId":3}`, "\xff", `{"eventType":40,"eventType":40}`} {
		q := f.post([]byte(odd))
		require.Equal(t, 200, q.code, odd)
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
		r := request(t, "POST", f.url, good, headers...)
		require.Equal(t, 401, r.code, name)
		require.Equal(t, `{"error":"invalid signature"}`, r.raw, name)
	}

	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS"} {
		r := request(t, method, f.url, nil)
		require.Equal(t, 405, r.code)
		require.Equal(t, "POST", r.header.Get("Allow"))
		require.NotEmpty(t, r.Error)
	}
	require.Equal(t, 404, request(t, "POST", f.url+"/x", good, ncs.HeaderV2, v2).code)
	require.Equal(t, 404, request(t, "POST", f.url+"/", good, ncs.HeaderV2, v2).code)
	require.Equal(t, "duplicate", request(t, "POST", f.url+"?a=b", good, ncs.HeaderV2, v2).Status, "a query string is ignored")

	large := bytes.Repeat([]byte("x"), 1<<20+1)
	require.Equal(t, 413, f.post(large).code)
	require.Equal(t, 415, request(t, "POST", f.url, good, ncs.HeaderV2, v2, "Content-Encoding", "gzip").code)
	require.Equal(t, 415, request(t, "POST", f.url, good, ncs.HeaderV2, v2, "Content-Encoding", "identity", "Content-Encoding", "gzip").code)
	require.Equal(t, 200, request(t, "POST", f.url, good, ncs.HeaderV2, v2, "Content-Encoding", "Identity").code)
	require.Equal(t, "duplicate", request(t, "POST", f.url, good, ncs.HeaderV2, v2, "Content-Type", "text/plain").Status)

	got := sink.waitFor(t, 1)
	require.Len(t, got, 1, "tests, quarantined and refused calls reach no sink")
	require.Equal(t, good, got[0].Body)
	require.Equal(t, v1, got[0].SignatureV1)
	require.Equal(t, v2, got[0].SignatureV2)
}

// raw sends bytes as they are and reads one answer.
func (f *fixture) raw(t *testing.T, text string) reply {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(f.url, "http://"), "/ncs"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return readReply(t, resp)
}

func TestBadFraming(t *testing.T) {
	t.Parallel()
	f := start(t, fixture{}, nil)
	head := "POST /ncs HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n"
	require.Equal(t, 400, f.raw(t, head+"5\r\nhelloXX").code, "bad chunk")
	require.Equal(t, 413, f.raw(t, head+"200000\r\n"+strings.Repeat("x", 0x200000)).code, "chunked and too large")
	require.Equal(t, 413, f.raw(t, "POST /ncs HTTP/1.1\r\nHost: relay\r\nContent-Length: 99999999\r\n\r\n").code,
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
		require.Equal(t, want.code, got.code, name)
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
	var limits LimitsConfig
	limits.SetDefaults()
	limits.ReadTimeout = 100*time.Millisecond - headerTimeout // so that the sum of both is short
	f := start(t, fixture{options: Options{Settings: Settings{Limits: limits}}}, nil)
	require.Equal(t, 400, f.raw(t, "POST /ncs HTTP/1.1\r\nHost: relay\r\nContent-Length: 100\r\n\r\nabc").code)
}

func TestSignatureAny(t *testing.T) {
	t.Parallel()
	sources := []SourceConfig{{Name: "main", Path: "/ncs", Signature: "any", MaxBody: 1 << 20,
		Secrets: []relay.Secret{relay.NewSecret("old"), relay.NewSecret(testSecret)}}}
	f := start(t, fixture{options: Options{Settings: Settings{Sources: sources}}}, nil)
	b := body("s", 1)
	require.Equal(t, "accepted", request(t, "POST", f.url, b, ncs.HeaderV1, ncs.SignV1(testSecret, b)).Status)
	require.Equal(t, "duplicate", request(t, "POST", f.url, b, ncs.HeaderV1, ncs.SignV1("old", b)).Status)
	require.Equal(t, 401, request(t, "POST", f.url, b, ncs.HeaderV1, ncs.SignV1(testSecret, b), ncs.HeaderV2, ncs.SignV2("x", b)).code,
		"a wrong V2 is not healed by a right V1")
	for name, headers := range map[string][]string{
		"none":                 nil,
		"empty V2, right V1":   {ncs.HeaderV1, ncs.SignV1(testSecret, b), ncs.HeaderV2, ""},
		"V1 in upper case":     {ncs.HeaderV1, strings.ToUpper(ncs.SignV1(testSecret, b))},
		"V1 twice":             {ncs.HeaderV1, ncs.SignV1(testSecret, b), ncs.HeaderV1, ncs.SignV1(testSecret, b)},
		"V1 where V2 belongs":  {ncs.HeaderV2, ncs.SignV1(testSecret, b)},
		"V1 of another secret": {ncs.HeaderV1, ncs.SignV1("another", b)},
	} {
		r := request(t, "POST", f.url, b, headers...)
		require.Equal(t, 401, r.code, name)
		require.Equal(t, `{"error":"invalid signature"}`, r.raw, name)
	}
	require.Equal(t, "duplicate", request(t, "POST", f.url, b, ncs.HeaderV1, strings.Repeat("0", 40), ncs.HeaderV2, ncs.SignV2(testSecret, b)).Status,
		"V2 alone decides")
}

func TestSignedForAnotherSource(t *testing.T) {
	t.Parallel()
	sources := []SourceConfig{
		{Name: "main", Path: "/ncs", MaxBody: 1 << 20, Secrets: []relay.Secret{relay.NewSecret(testSecret)}},
		{Name: "other", Path: "/other", MaxBody: 1 << 20, Secrets: []relay.Secret{relay.NewSecret("another")}},
	}
	f := start(t, fixture{options: Options{Settings: Settings{Sources: sources}}}, nil)
	b := body("s", 1)
	require.Equal(t, 401, request(t, "POST", strings.Replace(f.url, "/ncs", "/other", 1), b, ncs.HeaderV2, ncs.SignV2(testSecret, b)).code)
}

func TestProductNotAllowedIsQuarantined(t *testing.T) {
	t.Parallel()
	sink := newFarSide()
	sources := []SourceConfig{{Name: "main", Path: "/ncs", MaxBody: 1 << 20, Secrets: []relay.Secret{relay.NewSecret(testSecret)}, Products: []string{"rtc"}}}
	f := start(t, fixture{options: Options{Settings: Settings{Sources: sources}}}, nil, sinkSpec("all", sink))
	require.Equal(t, "quarantined", f.post(body("s", 1)).Status)
	require.Eventually(t, func() bool { return f.sink(relay.Unroutable).Dead == 1 }, 10*time.Second, 5*time.Millisecond)
	require.EqualValues(t, 1, f.sink(relay.Unroutable).DeadLetters)
	require.Empty(t, sink.received())
}

// A text that was cut inside an emoji is legal JSON; bytes that are no text are not, and still say which event they report.
func TestWhatCanBeIdentifiedIsDeliveredByteForByte(t *testing.T) {
	t.Parallel()
	for name, said := range map[string]string{
		"lone surrogate": `"\ud83d"`, "not UTF-8": "\"\xff\"", "a member twice": `1,"said":2`,
	} {
		sink := newFarSide()
		f := start(t, fixture{}, nil, sinkSpec("all", sink))
		b := []byte(`{"noticeId":"n","eventType":103,"productId":17,"payload":{"agent_id":"a","said":` + said + `}}`)
		require.Equal(t, "accepted", f.post(b).Status, name)
		require.Equal(t, "duplicate", f.post(b).Status, name)
		require.Equal(t, string(b), string(sink.waitFor(t, 1)[0].Body), name)
	}
}

// A product that gets a name in a later release must not be quarantined because the source still calls it by its number.
func TestProductIsLetInByItsOldName(t *testing.T) {
	t.Parallel()
	sources := []SourceConfig{{Name: "main", Path: "/ncs", MaxBody: 1 << 20, Secrets: []relay.Secret{relay.NewSecret(testSecret)}, Products: []string{"unknown_3"}}}
	f := start(t, fixture{options: Options{Settings: Settings{Sources: sources}}}, nil)
	require.Equal(t, "accepted", f.post(body("s", 1)).Status)
}

// sink gives the accounts of a sink.
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
	sink := newFarSide()
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	var mu sync.Mutex
	statuses := map[string]int{}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			r := f.post(resend("s", 7, 1596555306283+int64(i)))
			mu.Lock()
			defer mu.Unlock()
			statuses[fmt.Sprint(r.code, r.Status)]++
		})
	}
	wg.Wait()
	require.Equal(t, map[string]int{"200accepted": 1, "200duplicate": 63}, statuses)
	last := f.post(body("s", 8))
	require.Equal(t, "accepted", last.Status)
	got := sink.waitFor(t, 2)
	require.Len(t, got, 2)
}

func TestRestartDeliversWhatWasOwedAndKnowsCopies(t *testing.T) {
	t.Parallel()
	down := newFarSide()
	down.set(func(relay.Attempt) error { return errors.New("service is down") })
	f := start(t, fixture{}, nil, sinkSpec("all", down))
	for i := range 20 {
		require.Equal(t, "accepted", f.post(body(fmt.Sprint("s", i%3), i)).Status)
	}
	f.end()

	up := newFarSide()
	g := start(t, fixture{dir: f.dir}, nil, sinkSpec("all", up))
	require.Equal(t, "duplicate", g.post(body("s0", 0)).Status)
	requireInOrder(t, up.waitFor(t, 20), 20)
	status := g.sink("all")
	require.EqualValues(t, 20, status.Owed)
}

// requireInOrder checks that want events came, each once, in order per entity.
func requireInOrder(t *testing.T, got []relay.Attempt, want int) {
	t.Helper()
	require.Len(t, got, want)
	last := map[string]journal.Position{}
	for _, a := range got {
		require.Positive(t, a.Position.Compare(last[a.Entity]), "%s out of order", a.Entity)
		last[a.Entity] = a.Position
	}
}

func TestFailingEntityDelaysNoOther(t *testing.T) {
	t.Parallel()
	sink := newFarSide()
	sink.set(func(a relay.Attempt) error {
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
	for _, a := range sink.waitFor(t, 30) {
		require.NotEqual(t, "bad", a.Entity)
	}
	sink.set(nil)
	requireInOrder(t, sink.waitFor(t, 60), 60)
}

func TestRandomFailuresKeepOrderAndLoseNothing(t *testing.T) {
	t.Parallel()
	sink := newFarSide()
	sink.batch = 5
	n := 0
	sink.set(func(a relay.Attempt) error {
		if n++; n%3 == 0 {
			return fmt.Errorf("failure %d", n)
		}
		return nil
	})
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 100 {
		require.Equal(t, "accepted", f.post(body(fmt.Sprint("s", i%7), i)).Status)
	}
	requireInOrder(t, sink.waitFor(t, 100), 100)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 10*time.Second, 5*time.Millisecond)
	require.EqualValues(t, 100, f.sink("all").Delivered)
}

func TestPermanentRefusalBecomesADeadLetterAndTheRestFlows(t *testing.T) {
	t.Parallel()
	sink := newFarSide()
	sink.batch = 10
	sink.set(func(a relay.Attempt) error {
		if bytes.Contains(a.Body, []byte(`"sequence":3,`)) {
			return relay.Permanent(errors.New("too large"))
		}
		return nil
	})
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 10 {
		f.post(body("s", i))
	}
	requireInOrder(t, sink.waitFor(t, 9), 9)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 10*time.Second, 5*time.Millisecond)
	s := f.sink("all")
	require.EqualValues(t, 1, s.Dead)
	require.EqualValues(t, 1, s.DeadLetters)
}

func TestGivenUpAfterAttempts(t *testing.T) {
	t.Parallel()
	sink := newFarSide()
	sink.set(func(relay.Attempt) error { return errors.New("never") })
	spec := sinkSpec("all", sink)
	spec.Retry.MaxAttempts = 3
	f := start(t, fixture{}, nil, spec)
	f.post(body("s", 1))
	f.post(body("s", 2))
	require.Eventually(t, func() bool { return f.sink("all").Dead == 2 }, 10*time.Second, 5*time.Millisecond)
	sink.mu.Lock()
	defer sink.mu.Unlock()
	var numbers []int
	for _, a := range sink.tried {
		numbers = append(numbers, a.Number)
	}
	require.Equal(t, []int{1, 2, 3, 1, 2, 3}, numbers)
}

func TestAttemptsAreCountedOverARestart(t *testing.T) {
	t.Parallel()
	sink := newFarSide()
	sink.set(func(relay.Attempt) error { return errors.New("never") })
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	f.post(body("s", 1))
	require.Eventually(t, func() bool { sink.mu.Lock(); defer sink.mu.Unlock(); return len(sink.tried) >= 3 }, 10*time.Second, time.Millisecond)
	f.end()
	sink.mu.Lock()
	before := sink.tried[len(sink.tried)-1].Number
	sink.tried, sink.fail = nil, nil
	sink.mu.Unlock()
	start(t, fixture{dir: f.dir}, nil, sinkSpec("all", sink))
	got := sink.waitFor(t, 1)
	require.Equal(t, before+1, got[0].Number)
}

func TestRelaneKeepsOrder(t *testing.T) {
	t.Parallel()
	sink := newFarSide()
	sink.batch = 3
	known := false
	sink.lanes = func(ev *relay.Event) relay.Lane { // a topic that does not exist yet, then one with a partition per entity
		if !known {
			return relay.Lane{Group: "topic", Key: "?"}
		}
		return relay.Lane{Group: "topic", Key: ev.Entity}
	}
	sink.relane = func(group string) { known = true }
	exists := false
	sink.fail = func(relay.Attempt) error {
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
			sink.mu.Lock()
			exists = true
			sink.mu.Unlock()
		}
	}
	requireInOrder(t, sink.waitFor(t, 50), 50)
}

func TestEventsGoWhereTheRulesSay(t *testing.T) {
	t.Parallel()
	recordings, errorsOnly, rest := newFarSide(), newFarSide(), newFarSide()
	f := start(t, fixture{}, []route.RuleConfig{
		{Match: route.MatchConfig{Product: []string{"cloud_recording"}}, To: []string{"recordings"}},
		{Match: route.MatchConfig{Event: []string{"cloud_recording.recorder_started"}}, When: `payload.sequence > 1`, To: []string{"late", "recordings"}},
		{When: `payload.nothing.here == 1`, To: []string{"broken"}},
	}, sinkSpec("recordings", recordings), sinkSpec("late", errorsOnly), sinkSpec("broken", rest))
	f.post(body("s", 1))
	f.post(body("s", 2))
	require.Len(t, recordings.waitFor(t, 2), 2)
	require.Len(t, errorsOnly.waitFor(t, 1), 1)
	require.Empty(t, rest.received(), "a rule that fails does not match")
}
