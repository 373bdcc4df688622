// Package consumers_test runs each example consumer against the real relay, and the ones that read Kafka against a real
// Apache Kafka: events that come late, twice, forged, replayed and as a test; consumers that are killed and stopped.
package consumers_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/porttest"
)

const (
	secret        = "secret-for-tests"
	webhookSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	patience      = 90 * time.Second // runtimes start while others do
	tick          = 20 * time.Millisecond
)

// relay is the real program.
type relay struct{ program, config, ingress, admin string }

// startRelay starts it with a source and a sink for each consumer, until t ends. sink is the sink's settings.
func startRelay(t *testing.T, consumers []*consumer, sink func(c *consumer) string) *relay {
	dir := t.TempDir()
	r := &relay{program: filepath.Join(dir, "ncs-relay"), config: filepath.Join(dir, "relay.yaml"), ingress: porttest.Free(), admin: porttest.Free()}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", r.program, "./cmd/ncs-relay")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	config := fmt.Sprintf("listen: %q\nadmin: {listen: %q}\ndata_dir: %s/data\njournal: {min_free: 1MiB}\n"+
		"shutdown: {delay: 0s, timeout: 10s}\n", r.ingress, r.admin, dir)
	sources, sinks, routes := "sources:\n", "sinks:\n", "routes:\n"
	for _, c := range consumers {
		sources += fmt.Sprintf("  - {name: %s, path: /%[1]s, secrets: [%s]}\n", c.name, secret)
		sinks += fmt.Sprintf("  - {name: %s, retry: {initial: 100ms, max_interval: 1s}, %s}\n", c.name, sink(c))
		routes += fmt.Sprintf("  - {match: {source: %s}, to: [%[1]s]}\n", c.name)
	}
	config += sources + sinks + routes
	require.NoError(t, os.WriteFile(r.config, []byte(config), 0o600))
	log := &bytes.Buffer{}
	cmd := exec.Command(r.program, "serve", "-c", r.config)
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		require.NoError(t, cmd.Wait(), "%s", log)
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", r.ingress)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, patience, tick)
	return r
}

// recorded is an event of a recording as Agora sends it.
func recorded(sid string, sequence int) []byte {
	return fmt.Appendf(nil, `{"noticeId":"%s-%d","productId":3,"eventType":31,"notifyMs":1596555317283,"sid":"%[1]s","payload":`+
		`{"cname":"c","uid":"1","sid":"%[1]s","sequence":%[2]d,"sendts":1596555317257,"serviceType":2,"details":{"msgName":"uploaded","status":0}}}`, sid, sequence)
}

// signed is Agora's signature, made here and not by the code under test.
func signed(body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// order is the one in which the events of each recording come, by their sequence.
var order = []int{0, 2, 1, 3, 5, 4}

// late are those of them that come behind a later one.
var late = []int{1, 4}

// post has Agora send one event of a recording to the source of a consumer.
func (r *relay) post(t *testing.T, c *consumer, sid string, sequence int) {
	body := recorded(sid, sequence)
	request, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+r.ingress+"/"+c.name, bytes.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Agora-Signature-V2", signed(body))
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Contains(t, string(answer), `"accepted"`)
}

// postAll has Agora send the events of four recordings.
func (r *relay) postAll(t *testing.T, c *consumer) {
	for _, sequence := range order {
		for i := range 4 {
			r.post(t, c, fmt.Sprint("recording-", i), sequence)
		}
	}
}

func (r *relay) run(t *testing.T, args ...string) string {
	out, err := exec.CommandContext(t.Context(), r.program, args...).CombinedOutput()
	require.NoError(t, err, "ncs-relay %v: %s", args, out)
	return string(out)
}

// replay has an operator deliver the events of one recording again.
func (r *relay) replay(t *testing.T, c *consumer, sid string) {
	out := r.run(t, "replay", "--sink", c.name, "--entity", sid, "--yes", "--wait", "--admin", "http://"+r.admin)
	require.Contains(t, out, "6 delivered, 0 failed")
}

// consumer is one example. It has one database, which outlives its processes.
type consumer struct {
	name     string
	command  func(t *testing.T) (dir string, command []string)
	settings []string
	address  string // where one listens that takes calls
	database string
	dir      string
	argv     []string
	cmd      *exec.Cmd
	output   *output
	seen     int // lines that were looked at
}

// output is what a process printed, line by line.
type output struct {
	mu    sync.Mutex
	lines []string // of stdout that begin with "done"
	other strings.Builder
	ended sync.WaitGroup
}

func (o *output) done() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.lines)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.other.String()
}

func (o *output) follow(r io.Reader) {
	o.ended.Go(func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			o.mu.Lock()
			if strings.HasPrefix(lines.Text(), "done ") {
				o.lines = append(o.lines, lines.Text())
			}
			fmt.Fprintln(&o.other, lines.Text())
			o.mu.Unlock()
		}
	})
}

// start starts a process of the consumer, with settings for it alone.
func (c *consumer) start(t *testing.T, settings ...string) {
	if c.argv == nil {
		c.dir, c.argv = c.command(t)
		c.database = filepath.Join(t.TempDir(), "books.db")
		c.settings = append(c.settings, "DATABASE="+c.database, "NCS_SECRETS=secret-of-another-product "+secret)
	}
	c.output, c.seen = &output{}, 0
	c.cmd = exec.Command(c.argv[0], c.argv[1:]...)
	c.cmd.Dir = c.dir
	c.cmd.Env = append(os.Environ(), append(c.settings, settings...)...)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := c.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start(), c.name)
	c.output.follow(stdout)
	c.output.follow(stderr)
	cmd := c.cmd
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func (c *consumer) end(t *testing.T, signal syscall.Signal) error {
	require.NoError(t, c.cmd.Process.Signal(signal), "%s has ended: %s", c.name, c.output)
	c.output.ended.Wait()
	return c.cmd.Wait()
}

// next waits for n events done since the last call and returns what was printed of them.
func (c *consumer) next(t *testing.T, n int) [][]string {
	t.Helper()
	require.Eventually(t, func() bool { return len(c.output.done()) >= c.seen+n }, patience, tick, "%s: %s", c.name, lazily{c.output})
	lines := c.output.done()[c.seen:]
	require.Len(t, lines, n, "%s: %s", c.name, c.output)
	c.seen += n
	var fields [][]string
	for _, line := range lines {
		fields = append(fields, strings.Fields(line))
	}
	return fields
}

// lazily is printed when it is needed, and not when it is passed.
type lazily struct{ fmt.Stringer }

// requireAll looks at what was done of the events of postAll: in order within each recording, and late where it is late.
func requireAll(t *testing.T, c *consumer, lines [][]string) (keys []string) {
	t.Helper()
	sequences := map[string][]int{}
	for _, f := range lines { // done KEY ENTITY SEQUENCE EVENT [late]
		require.Regexp(t, "^[0-9a-f]{32}$", f[1])
		require.Equal(t, "uploaded", f[4])
		sequence := int(f[3][0] - '0')
		require.Equal(t, slices.Contains(late, sequence), len(f) == 6, "%s: %v", c.name, f)
		sequences[f[2]] = append(sequences[f[2]], sequence)
		keys = append(keys, f[1])
	}
	require.Len(t, sequences, 4)
	for entity, got := range sequences {
		require.Equal(t, order, got, "%s: %s", c.name, entity)
	}
	slices.Sort(keys)
	require.Len(t, slices.Compact(slices.Clone(keys)), len(order)*4, "each once")
	return keys
}

// requireReplay looks at what was done of one recording that was replayed when it had all its events: done again, and
// nothing but the last one of them may change what is newest.
func requireReplay(t *testing.T, c *consumer, keys []string, lines [][]string) {
	t.Helper()
	for i, f := range lines {
		id, number, isReplay := strings.Cut(f[1], "-r")
		require.NotEmpty(t, number)
		require.True(t, isReplay && slices.Contains(keys, id), "%s: %v", c.name, f)
		require.Equal(t, fmt.Sprint(order[i]), f[3])
		require.Equal(t, order[i] != 5, len(f) == 6, "%s: %v", c.name, f)
	}
}

// installed returns a folder in the user's cache that holds what fill put there, once for each content of the files that
// pin the versions.
func installed(t *testing.T, name string, pins []string, fill func(ctx context.Context, dir string) *exec.Cmd) string {
	sum := sha256.New()
	for _, pin := range pins {
		text, err := os.ReadFile(pin)
		require.NoError(t, err)
		sum.Write(text)
	}
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	dir := filepath.Join(cache, "ncs-relay", fmt.Sprintf("%s-%x", name, sum.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	part, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".part-")
	require.NoError(t, err)
	defer os.RemoveAll(part)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := fill(ctx, part)
	if out, err := cmd.CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("%s: %v: %s", cmd, err, out))
	}
	if err := os.Rename(part, dir); !errors.Is(err, os.ErrExist) { // another run may have been faster
		require.NoError(t, err)
	}
	return dir
}

// needs skips where a program is not there.
func needs(t *testing.T, programs ...string) {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, err.Error())
		}
	}
}

// missing ends the test for want of a language or its packages: a failure where CI has said that it has them all.
func missing(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("NCS_RELAY_REQUIRE_CONSUMERS") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func TestConsumersAreSmall(t *testing.T) {
	t.Parallel()
	programs := 0
	require.NoError(t, filepath.WalkDir(".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && slices.Contains([]string{".go", ".py", ".mjs", ".java"}, filepath.Ext(name)) && !strings.HasSuffix(name, "_test.go") {
			programs++
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			require.LessOrEqual(t, bytes.Count(text, []byte("\n")), 60, name)
		}
		return err
	}))
	require.Greater(t, programs, 4)
}
