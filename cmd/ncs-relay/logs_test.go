package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// logLines checks that every line of the log is a JSON object with the keys that the documents name, and returns them.
func (r *relayUnderTest) logLines() (lines []map[string]any) {
	r.t.Helper()
	readme, err := os.ReadFile("../../examples/observability/README.md")
	require.NoError(r.t, err)
	_, table, _ := strings.Cut(string(readme), "<!-- log keys -->\n")
	table, _, _ = strings.Cut(table, "\n\n")
	documented := map[string]bool{}
	for _, key := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(table, -1) {
		documented[key[1]] = true
	}
	require.Greater(r.t, len(documented), 20)
	for line := range strings.Lines(r.log.String()) {
		if !strings.HasSuffix(line, "\n") {
			break // it is still being written
		}
		var l map[string]any
		require.NoError(r.t, json.Unmarshal([]byte(line), &l), line)
		for key := range l {
			require.True(r.t, documented[key], "the documents do not name the key %q of %s", key, line)
		}
		_, err := time.Parse(time.RFC3339Nano, l["time"].(string))
		require.NoError(r.t, err)
		lines = append(lines, l)
	}
	return lines
}

// troubled plays what is worth a line: refused, copied, quarantined and hostile calls, a sink that fails and one that refuses.
func troubled(t *testing.T, level string) *relayUnderTest {
	service := startTeam(t)
	service.answers(func(body string) int {
		switch {
		case strings.Contains(body, `"sid":"refused`):
			return http.StatusUnprocessableEntity
		case strings.Contains(body, `"sid":"fails`):
			return http.StatusBadGateway
		}
		return http.StatusOK
	})
	r := newRelay(t, strings.ReplaceAll(everything, "%SERVICE%", "http://"+service.address+"/token-of-the-path")+"log: {level: "+level+"}\n")
	r.start()
	for i := range 50 {
		body := uploaded("ok", i, time.Now())
		require.Equal(t, 401, r.request("POST", "/ncs", "Agora-Signature-V2", strings.Repeat("f", 64), body))
		require.Equal(t, "accepted", r.post(body))
		require.Equal(t, "duplicate", r.post(body))
		require.Equal(t, "quarantined", r.post(fmt.Appendf(nil, "[%d]", i)))
		require.Equal(t, "accepted", r.post(uploaded("refused", i, time.Now())))
	}
	hostile := uploaded(`fails\n{\"level\":\"INFO\"} \u001b[2J \u202e `+strings.Repeat("x", 10_000), 1, time.Now())
	body := []byte(strings.Replace(string(hostile), `"status":0`, `"status":1`, 1)) // and the rule fails on it
	require.Equal(t, "accepted", r.post(body))
	r.eventually(func() bool {
		values, _ := r.series()
		return values[`delivery_attempts_total{outcome="failed",reason="5xx",sink="service"}`] >= 20 && values[`dead_letters{sink="service"}`] == 50
	}, "trouble")
	r.terminate()
	for _, hidden := range []string{serveSecret, "the-new-secret", "token-of-the-path", "\x1b", "\u202e"} {
		require.NotContains(t, r.log.String(), hidden)
	}
	return r
}

func TestLogsSayEachThingOnce(t *testing.T) {
	t.Parallel()
	r := troubled(t, "info")
	counts := map[string]int{}
	for _, l := range r.logLines() {
		counts[fmt.Sprint(l["level"], " ", l["msg"])]++
		require.Less(t, len(fmt.Sprint(l)), 5000)
	}
	t.Log(counts)
	for line, want := range map[string]int{
		"INFO serving": 1,
		"INFO shutting down: still storing for the delay, then what is in flight ends; a second signal ends it at once": 1,
		"INFO stopped": 1,
		"WARN configuration: signatures made with SHA-1 are accepted where no other came": 1,
		"WARN call refused: its signature is missing or wrong":                            1, // of 50
		"WARN signed body is not a notification; quarantined":                             1, // of 50
		"WARN rule failed on an event and counts as not matching":                         1,
		"WARN sink fails; what it is owed waits and is tried again":                       1, // of 20 and more
	} {
		require.Equal(t, want, counts[line], line)
	}
	const dead = "WARN delivery became a dead letter"
	require.GreaterOrEqual(t, counts[dead], 1)
	require.Less(t, counts[dead], 50, "at most one a second")
	delete(counts, dead)
	require.Len(t, counts, 8, "and nothing else: successes are no news")
}

func TestDebugExplainsEachDecision(t *testing.T) {
	t.Parallel()
	r := troubled(t, "debug")
	said := map[string]int{}
	for _, l := range r.logLines() {
		said[fmt.Sprint(l["level"], " ", l["msg"])]++
		switch l["msg"] {
		case "rule":
			require.Contains(t, l, "event")
			require.Contains(t, l, "rule")
			require.True(t, l["applies"] == true || l["why"] != "", l)
		case "accepted", "duplicate", "quarantined", "delivered", "attempt failed", "delivery became a dead letter":
			require.Len(t, l["event"], 32)
		}
	}
	t.Log(said)
	for line, want := range map[string]int{
		"DEBUG invalid signature": 50, "DEBUG accepted": 101, "DEBUG duplicate": 50, "DEBUG quarantined": 50, "DEBUG rule": 202,
		"DEBUG delivery became a dead letter": 50,
	} {
		require.Equal(t, want, said[line], line)
	}
	require.GreaterOrEqual(t, said["DEBUG attempt failed"], 20)
	require.Equal(t, 50+101, said["DEBUG delivered"], "50 by the service, all by the archive")
}
