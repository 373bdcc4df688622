package consumers_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"ncs-relay/relay/porttest"
)

func TestHTTPConsumers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds and installs programs")
	}
	consumers := []*consumer{
		{name: "go", command: goCommand("./http")},
		{name: "python", command: python("http-python", "receiver.py")},
		{name: "node", command: node("http-node", "receiver.mjs")},
	}
	for _, c := range consumers {
		c.address = porttest.Free()
		_, port, err := net.SplitHostPort(c.address)
		require.NoError(t, err)
		c.settings = []string{"PORT=" + port, "WEBHOOK_SECRET=" + webhookSecret}
	}
	r := startRelay(t, consumers, func(c *consumer) string {
		return fmt.Sprintf(`http: {url: "http://%s/", standard_webhooks: {secrets: [%s]}, cloudevents: true}`, c.address, webhookSecret)
	})
	t.Run("each", func(t *testing.T) { // the relay outlives the parallel ones
		for _, c := range consumers {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				takesCalls(t, r, c)
			})
		}
	})
}

func takesCalls(t *testing.T, r *relay, c *consumer) {
	c.start(t)
	r.postAll(t, c)
	keys := requireAll(t, c, c.next(t, 24))

	// Killed: what it answered 200 is known afterwards, and the relay comes again with what it did not.
	require.Error(t, c.end(t, syscall.SIGKILL))
	r.post(t, c, "while-it-is-away", 0)
	c.start(t)
	require.Equal(t, "while-it-is-away", c.next(t, 1)[0][2])

	again := call{key: keys[0], entity: "recording-0", body: recorded("recording-0", 0)}
	require.Equal(t, 200, again.to(t, c), "known")
	once := call{key: strings.Repeat("0", 32), entity: "recording%20one", body: recorded("recording one", 0)}
	var group errgroup.Group
	for range 8 { // a call that timed out may still be at work when it comes again
		group.Go(func() error {
			if status := once.to(t, c); status != 200 {
				return fmt.Errorf("%d", status)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait(), "%s", c.output)
	require.Contains(t, strings.Join(c.next(t, 1)[0], " "), "recording one 0 uploaded")

	body := recorded("recording-0", 9)
	for name, refused := range map[string]struct {
		call
		status int
	}{
		"signed by a stranger":     {call{key: "1", body: body, secret: "whsec_" + strings.Repeat("A", 32)}, 401},
		"another key":              {call{key: "1", body: body, signedKey: "2"}, 401},
		"an hour old":              {call{key: "1", body: body, at: time.Now().Add(-time.Hour)}, 401},
		"another body":             {call{key: "1", body: body, signedBody: recorded("recording-0", 8)}, 401},
		"not signed by Agora":      {call{key: "1", body: body, agora: strings.Repeat("0", 64)}, 401},
		"not what it can work on":  {call{key: "1", body: []byte("[]")}, 422},
		"signed, but not readable": {call{key: "1", body: []byte("{")}, 422},
	} {
		require.Equal(t, refused.status, refused.to(t, c), "%s: %s", name, c.output)
	}
	locked := call{key: "3", entity: "recording-0", body: body}
	whileLocked(t, c, func() { require.Equal(t, 503, locked.to(t, c), "%s", c.output) })

	r.replay(t, c, "recording-1")
	requireReplay(t, c, keys, c.next(t, 6))
	require.Contains(t, r.run(t, "sinks", "test", c.name, "-c", r.config), "200")
	require.Equal(t, 200, locked.to(t, c))
	require.Equal(t, "9", c.next(t, 1)[0][3], "neither what was refused nor the test was done: %s", c.output)
}

// call is a call as the relay makes it, or nearly.
type call struct {
	key, entity string
	body        []byte

	secret, signedKey, agora string
	signedBody               []byte
	at                       time.Time
}

// to makes the call, and returns the status that c answers.
func (o call) to(t *testing.T, c *consumer) int {
	if o.secret == "" {
		o.secret = webhookSecret
	}
	if o.signedKey == "" {
		o.signedKey = o.key
	}
	if o.signedBody == nil {
		o.signedBody = o.body
	}
	if o.at.IsZero() {
		o.at = time.Now()
	}
	if o.agora == "" {
		o.agora = signed(o.body)
	}
	webhook, err := standardwebhooks.NewWebhook(o.secret)
	require.NoError(t, err)
	signature, err := webhook.Sign(o.signedKey, o.at, o.signedBody)
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+c.address, bytes.NewReader(o.body))
	require.NoError(t, err)
	for name, value := range map[string]string{
		"Webhook-Id": o.key, "Webhook-Timestamp": fmt.Sprint(o.at.Unix()), "Webhook-Signature": signature, "Agora-Signature-V2": o.agora,
		"Ncs-Relay-Entity": o.entity, "Ncs-Relay-Event": "uploaded", "Idempotency-Key": o.key,
	} {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err, "%s", c.output)
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	return response.StatusCode
}

// whileLocked runs do while another program holds the consumer's database, if there is a Python to do that.
func whileLocked(t *testing.T, c *consumer, do func()) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Log("not tried with a locked database: ", err)
		return
	}
	holder := exec.CommandContext(t.Context(), "python3", "-c", `import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()`, c.database)
	stdin, err := holder.StdinPipe()
	require.NoError(t, err)
	stdout, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	_, err = io.ReadAtLeast(stdout, make([]byte, 6), 6)
	require.NoError(t, err, filepath.Base(c.database))
	do()
	require.NoError(t, stdin.Close())
	require.NoError(t, holder.Wait())
}
