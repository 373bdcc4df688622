package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"ncs-relay/relay/porttest"
)

const reloadConfig = relayBase + `
sources:
  - {name: recording, path: /ncs, secret_files: [%DIR%/secret]}
sinks:
  - {name: service, http: {url: "http://SERVICE/hooks"}}
routes: [{to: [service]}]
`

type configStatus struct {
	Generation   int
	Error        string
	NeedsRestart []string `json:"needs_restart"`
}

func (r *relayUnderTest) configStatus() configStatus {
	r.t.Helper()
	resp, err := http.Get(r.admin + "/api/v1/status")
	require.NoError(r.t, err)
	defer resp.Body.Close()
	var s struct{ Config configStatus }
	require.NoError(r.t, json.NewDecoder(resp.Body).Decode(&s))
	return s.Config
}

func (r *relayUnderTest) metric(name string) string {
	r.t.Helper()
	resp, err := http.Get(r.admin + "/metrics")
	require.NoError(r.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// replaceFile swaps a file in, as editors do.
func replaceFile(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(name+".new", name))
}

func TestReloadOnSignalAndOnChange(t *testing.T) {
	t.Parallel()
	first, second := &receiver{}, &receiver{}
	addresses := []string{porttest.Free(), porttest.Free()}
	listenAt(t, addresses[0], first)
	listenAt(t, addresses[1], second)
	r := newRelay(t, strings.ReplaceAll(reloadConfig, "SERVICE", addresses[0]))
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "secret"), []byte(serveSecret+"\n"), 0o600))
	r.start()
	require.Equal(t, "accepted", r.post(recording("s", 1, 1)))
	r.eventually(func() bool { return len(first.got()) == 1 }, "delivery to the first service")
	text, err := os.ReadFile(r.config)
	require.NoError(t, err)
	good := string(text)

	replaceFile(t, r.config, strings.ReplaceAll(good, addresses[0], addresses[1]))
	r.eventually(func() bool { return r.configStatus().Generation == 2 }, "reload on change of the file")
	require.Equal(t, "accepted", r.post(recording("s", 2, 1)))
	r.eventually(func() bool { return len(second.got()) == 1 }, "delivery to the second service")

	replaceFile(t, r.config, good+"nonsense: 1\n")
	r.eventually(func() bool { return r.configStatus().Error != "" }, "a bad file is noticed")
	status := r.configStatus()
	require.Equal(t, 2, status.Generation)
	require.Contains(t, status.Error, "nonsense")
	require.Equal(t, "0", r.metric("ncs_relay_config_last_reload_successful"))
	require.Equal(t, "accepted", r.post(recording("s", 3, 1)))
	r.eventually(func() bool { return len(second.got()) == 2 }, "what was in use goes on")

	replaceFile(t, r.config, strings.Replace(good, "path: /ncs", "path: /ncs, max_body: 64KiB", 1))
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP))
	r.eventually(func() bool { return r.configStatus().Generation >= 3 }, "reload on SIGHUP")
	require.Empty(t, r.configStatus().Error)
	require.Equal(t, "1", r.metric("ncs_relay_config_last_reload_successful"))
	require.Equal(t, "3", r.metric("ncs_relay_config_generation"))

	replaceFile(t, r.config, strings.Replace(good, "min_free: 1MiB", "min_free: 2MiB", 1))
	r.eventually(func() bool { return len(r.configStatus().NeedsRestart) > 0 }, "a change that needs a restart says so")
	require.Equal(t, []string{"journal"}, r.configStatus().NeedsRestart)
	r.terminate()
}

func TestReloadOfASecretFileAndOfAKubernetesVolume(t *testing.T) {
	t.Parallel()
	service := &receiver{}
	address := porttest.Free()
	listenAt(t, address, service)
	r := newRelay(t, strings.ReplaceAll(reloadConfig, "SERVICE", address))
	text, err := os.ReadFile(r.config)
	require.NoError(t, err)

	// As Kubernetes lays out a volume: names are links into ..data, which is a link that is swapped.
	volume := filepath.Join(r.dir, "volume")
	version := func(n int, secret string) string {
		dir := filepath.Join(volume, fmt.Sprintf("..v%d", n))
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "relay.yaml"), text, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600))
		return filepath.Base(dir)
	}
	text = []byte(strings.ReplaceAll(string(text), r.dir+"/secret", filepath.Join(volume, "secret")))
	require.NoError(t, os.MkdirAll(volume, 0o700))
	require.NoError(t, os.Symlink(version(1, "another-secret"), filepath.Join(volume, "..data")))
	for _, name := range []string{"relay.yaml", "secret"} {
		require.NoError(t, os.Symlink("..data/"+name, filepath.Join(volume, name)))
	}
	r.config = filepath.Join(volume, "relay.yaml")
	r.start()

	require.NoError(t, os.Symlink(version(2, serveSecret), filepath.Join(volume, "..tmp")))
	require.NoError(t, os.Rename(filepath.Join(volume, "..tmp"), filepath.Join(volume, "..data")))
	r.eventually(func() bool { return r.configStatus().Generation == 2 }, "reload on the swap of ..data")
	require.Equal(t, "accepted", r.post(recording("s", 1, 1)), "signed with the new secret")
	r.eventually(func() bool { return len(service.got()) == 1 }, "delivery")
	r.terminate()
}

func TestReloadIsTriedAgainWhenWhatItLackedHasCome(t *testing.T) {
	t.Parallel()
	service := &receiver{}
	address := porttest.Free()
	listenAt(t, address, service)
	r := newRelay(t, strings.ReplaceAll(reloadConfig, "SERVICE", address))
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "secret"), []byte(serveSecret+"\n"), 0o600))
	r.start()
	text, err := os.ReadFile(r.config)
	require.NoError(t, err)
	late := filepath.Join(r.dir, "late")
	replaceFile(t, r.config, strings.ReplaceAll(string(text), "/secret]", "/secret, "+late+"]"))
	r.eventually(func() bool { return strings.Contains(r.configStatus().Error, "late") }, "the error is shown")
	replaceFile(t, late, "second-secret\n")
	r.eventually(func() bool { s := r.configStatus(); return s.Generation == 2 && s.Error == "" }, "it is loaded")
	r.terminate()
}

// While the journal cannot be opened the relay waits, maybe for long, and what changes meanwhile counts when it serves.
func TestChangesWhileTheJournalCannotBeOpenedAreTakenUp(t *testing.T) {
	t.Parallel()
	for name, announce := range map[string]bool{"with SIGHUP": true, "unannounced": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, strings.ReplaceAll(strings.ReplaceAll(reloadConfig, "SERVICE", "127.0.0.1:1"), "/data", "/blocked/data"))
			blocked, secret := filepath.Join(r.dir, "blocked"), filepath.Join(r.dir, "secret")
			require.NoError(t, os.WriteFile(blocked, nil, 0o600))
			require.NoError(t, os.WriteFile(secret, []byte("an-old-secret"), 0o600))
			r.launch()
			r.eventually(func() bool {
				resp, err := http.Get(r.admin + "/livez")
				if err != nil {
					return false
				}
				resp.Body.Close()
				return resp.StatusCode == http.StatusOK
			}, "it waits")
			replaceFile(t, secret, serveSecret)
			if announce {
				require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP))
			}
			require.NoError(t, os.Remove(blocked))
			r.untilReady()
			r.eventually(func() bool { return r.configStatus().Generation >= 2 }, "what changed meanwhile is loaded")
			require.Equal(t, "accepted", r.post(recording("s", 1, 1)), "signed with the new secret")
			r.terminate()
		})
	}
}

// openCounter is a listener that knows which of its connections are open.
type openCounter struct {
	net.Listener
	made, open *atomic.Int64
}

type countedConn struct {
	net.Conn
	closed func()
}

func (l openCounter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.made.Add(1)
	l.open.Add(1)
	return countedConn{c, sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

func (c countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// TestResumeAndReloadReconnectAKafkaSink: what operators do after a cluster moved makes new connections and ends the old ones.
func TestResumeAndReloadReconnectAKafkaSink(t *testing.T) {
	t.Parallel()
	var made, open atomic.Int64
	_, address := fakeKafka(t, kfake.SeedTopics(1, "ncs"), kfake.ListenFn(func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		return openCounter{l, &made, &open}, err
	}))
	r := newRelay(t, oneSource+`
sinks:
  - {name: events, kafka: {brokers: ["`+address+`"], topic: ncs}}
routes: [{to: [events]}]
`)
	r.start()
	sent := 0
	deliver := func() {
		sent++
		require.Equal(t, "accepted", r.post(recording("s", sent, 1)))
		r.eventually(func() bool { return r.sinkStatus("events").Delivered == uint64(sent) }, "not delivered")
	}
	deliver()
	for range 3 { // until no delivery makes a connection by itself
		deliver()
	}
	kept := made.Load()
	deliver()
	require.Equal(t, kept, made.Load(), "connections are kept otherwise")
	for how, reconnect := range map[string]func(){
		"resume": func() { r.mustAsk("sinks", "resume", "events") },
		"reload": func() {
			generation := r.configStatus().Generation
			require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP))
			r.eventually(func() bool { return r.configStatus().Generation > generation }, "not reloaded")
		},
	} {
		before := made.Load()
		reconnect()
		deliver()
		fresh := made.Load() - before
		require.Positive(t, fresh, "%s: delivered over an old connection", how)
		r.eventually(func() bool { return open.Load() <= made.Load()-before }, how+": old connections stay open")
	}
	r.terminate()
}

// What Agora has added since the release gets its name from a file, in what is sent as in what commands say, and a change of the
// file is taken up. The event id stays what it was without a name.
func TestReloadOfACatalogue(t *testing.T) {
	t.Parallel()
	heads := make(chan http.Header, 10)
	service := listenAt(t, porttest.Free(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heads <- r.Header }))
	r := newRelay(t, relayBase+`
catalogue: %DIR%/events.yml
sources:
  - {name: ai, path: /ncs, secrets: [`+serveSecret+`]}
sinks:
  - {name: service, http: {url: "http://`+service+`/{product}/{event}"}}
routes: [{match: {category: agent}, to: [service]}]
`)
	catalogue := filepath.Join(r.dir, "events.yml")
	text, err := os.ReadFile("../../examples/catalogue/events.yml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(catalogue, text, 0o600))
	r.start()
	send := func(notice string) http.Header {
		require.Equal(t, "accepted", r.post(fmt.Appendf(nil, `{"noticeId":"%s","productId":17,"eventType":1001,"payload":{"agent_id":"a%[1]s"}}`, notice)))
		return <-heads
	}
	first := send("1")
	require.Equal(t, []string{"agent_created", "agent", "a1"}, []string{first.Get("Ncs-Relay-Event"), first.Get("Ncs-Relay-Category"), first.Get("Ncs-Relay-Entity")})

	replaceFile(t, catalogue, strings.Replace(string(text), "name: agent_created", "name: agent_born", 1))
	r.eventually(func() bool { return r.configStatus().Generation == 2 }, "a change of the catalogue is taken up")
	require.Equal(t, "agent_born", send("2").Get("Ncs-Relay-Event"))
	require.Equal(t, "duplicate", r.post([]byte(`{"noticeId":"1","productId":17,"eventType":1001,"payload":{"agent_id":"a1"}}`)))
	var out strings.Builder
	require.Equal(t, exitOK, run(t.Context(), []string{"inspect", "--admin", r.admin, first.Get("Ncs-Relay-Event-Id")}, nil, &out, &out), out.String())
	require.Contains(t, out.String(), "conversational_ai.agent_born")

	replaceFile(t, catalogue, "products:\n  cloud_recording: {events: {31: {name: mine}}}\n")
	r.eventually(func() bool { return r.configStatus().Error != "" }, "a bad catalogue is noticed")
	require.Contains(t, r.configStatus().Error, "events.yml:2:30: products[cloud_recording].events[31]: the type is built in and called uploaded")
	require.Equal(t, "agent_born", send("3").Get("Ncs-Relay-Event"))
	r.terminate()
}
