package filesink

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/ncs"
	"ncs-relay/sinks/sinktest"
)

// spelled is a line as encoding/json would write it.
func spelled(t *testing.T, a *relay.Attempt) string {
	type headers struct {
		ContentType string `json:"content-type,omitempty"`
		SignatureV1 string `json:"agora-signature,omitempty"`
		SignatureV2 string `json:"agora-signature-v2,omitempty"`
	}
	line := struct {
		ID         string  `json:"id"`
		Product    string  `json:"product"`
		Event      string  `json:"event"`
		EventType  int     `json:"event_type"`
		Category   string  `json:"category"`
		Entity     string  `json:"entity"`
		Source     string  `json:"source"`
		ReceivedAt string  `json:"received_at"`
		Replay     uint32  `json:"replay,omitempty"`
		Test       bool    `json:"test,omitempty"`
		Headers    headers `json:"headers"`
		Body       *string `json:"body,omitempty"`
		BodyBase64 []byte  `json:"body_base64,omitempty"`
	}{a.ID.String(), a.Info.Product, a.Info.Event, a.Info.EventType, a.Info.Category, a.Entity, a.Source, a.ReceivedAt.UTC().Format(rfc3339Milli),
		a.Replay, a.Test, headers{a.ContentType, a.SignatureV1, a.SignatureV2}, nil, nil}
	if text := string(a.Body); utf8.ValidString(text) {
		line.Body = &text
	} else {
		line.BodyBase64 = a.Body
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	require.NoError(t, encoder.Encode(line))
	return out.String()
}

func TestALineIsAsEncodingJSONWritesIt(t *testing.T) {
	t.Parallel()
	var every []byte
	for c := range 128 {
		every = append(every, byte(c))
	}
	bodies := [][]byte{nil, {}, []byte("{}"), every, []byte("\u2028 \u2029 \u202a \ufffd \U0001f600 <&>"), {0xff}, []byte("\xe2\x80")}
	for _, s := range ncs.Samples() {
		bodies = append(bodies, s.Payload)
	}
	for i, body := range bodies {
		for _, a := range sinktest.Batch(sinktest.Event(i, "sid \"\u2028\" "+string(every))) {
			event := *a.Event
			event.Body, a.Event = body, &event
			require.Equal(t, spelled(t, &a), string(appendLine(nil, &a)))
			event.ContentType, event.SignatureV1, event.SignatureV2, event.Entity = "", "", "", ""
			a.Replay, a.Test = 7, true
			require.Equal(t, spelled(t, &a), string(appendLine(nil, &a)))
			event.SignatureV1 = "abc"
			require.Equal(t, spelled(t, &a), string(appendLine(nil, &a)))
		}
	}
}

func TestALineIsEncodedWithoutAllocations(t *testing.T) {
	batch := sinktest.Batch(sinktest.Event(1, "sid-1"))
	b := appendLine(nil, &batch[0])
	require.Zero(t, testing.AllocsPerRun(100, func() { b = appendLine(b[:0], &batch[0]) }))
}

func BenchmarkEncode(b *testing.B) {
	batch := sinktest.Batch(sinktest.Event(1, "sid-1"))
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = appendLine(line[:0], &batch[0])
	}
}
