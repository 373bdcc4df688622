package httpsink_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	svix "github.com/svix/svix-webhooks/go"

	"ncs-relay/relay"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

// call gives what a receiver gets of an attempt.
func call(t *testing.T, cfg func(*httpsink.Config), a relay.Attempt) (r *http.Request, body []byte) {
	t.Helper()
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
		body, _ = io.ReadAll(got.Body)
		r = got.Clone(t.Context())
	}))
	defer far.Close()
	s := newSink(t, config(far.URL, cfg))
	_, err := s.Send(t.Context(), s.Lane(a.Event), []relay.Attempt{a})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	return r, body
}

// TestStandardWebhooksAsOthersVerifyIt: while a secret is rotated, receivers with the old one and receivers with the new one
// both verify, by the specification's own library and by Svix's.
func TestStandardWebhooksAsOthersVerifyIt(t *testing.T) {
	t.Parallel()
	r, body := call(t, func(c *httpsink.Config) {
		c.StandardWebhooks = &httpsink.StandardWebhooks{Secrets: []relay.Secret{relay.NewSecret(oldWebhookSecret), relay.NewSecret(webhookSecret)}}
	}, relay.Attempt{Event: sinktest.Event(1, "sid"), Number: 1, Replay: 2})
	type verifier interface {
		Verify(payload []byte, headers http.Header) error
	}
	verifiers := func(secret string) map[string]verifier {
		spec, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		other, err := svix.NewWebhook(secret)
		require.NoError(t, err)
		return map[string]verifier{"Standard Webhooks": spec, "Svix": other}
	}
	for _, secret := range []string{webhookSecret, oldWebhookSecret} {
		for name, v := range verifiers(secret) {
			require.NoError(t, v.Verify(body, r.Header), name)
			require.Error(t, v.Verify(append([]byte(" "), body...), r.Header), name)
		}
	}
	for name, v := range verifiers("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=") {
		require.Error(t, v.Verify(body, r.Header), name)
	}
}

func TestCloudEventsAsTheOfficialSDKReadsThem(t *testing.T) {
	t.Parallel()
	sent := sinktest.Event(1, "sid-1")
	r, body := call(t, func(c *httpsink.Config) { c.CloudEvents = true }, sinktest.Batch(sent)[0])
	message := cehttp.NewMessage(r.Header, io.NopCloser(bytes.NewReader(body)))
	require.Equal(t, binding.EncodingBinary, message.ReadEncoding())
	e, err := binding.ToEvent(t.Context(), message)
	require.NoError(t, err)
	require.NoError(t, e.Validate())
	require.Equal(t, "1.0", e.SpecVersion())
	require.Equal(t, sent.ID.String(), e.ID())
	require.Equal(t, "/ncs/recording", e.Source())
	require.Equal(t, "agora.ncs.cloud_recording.recorder_slice_start", e.Type())
	require.Equal(t, "sid-1", e.Subject())
	require.Equal(t, "application/json", e.DataContentType())
	require.True(t, sent.ReceivedAt.Truncate(time.Millisecond).Equal(e.Time()))
	require.Equal(t, sent.Body, e.Data())
}

// TestReceiversWrittenForAgora: what a receiver checks today it can check behind the relay.
func TestReceiversWrittenForAgora(t *testing.T) {
	t.Parallel()
	// Bodies as Agora writes them, with what a change on the way would show in.
	for _, text := range []string{
		`{"noticeId":"2000001428:4330:107","productId":3,"eventType":31,"notifyMs":1611566412672,"payload":{"cname":"会议室 ü","uid":"527841","sid":"a","sequence":1,"sendts":1611566412672,"serviceType":2,"details":{"msgName":"uploaded","status":0,"fileList":[{"fileName":"a/b.m3u8","isPlayable":true,"sliceStartTime":1611566412672}]}}}`,
		`{"z":1,"a":[],"empty":{},"n":null,"f":0.5,"big":18446744073709551615,"lt":"<&>"}`,
	} {
		e := sinktest.Event(1, "sid")
		e.Body = []byte(text)
		sinktest.Sign(e)
		r, body := call(t, func(*httpsink.Config) {}, sinktest.Batch(e)[0])
		for header, h := range map[string]func() hash.Hash{"Agora-Signature-V2": sha256.New, "Agora-Signature": sha1.New} {
			require.Equal(t, sinktest.Signature(h, body), r.Header.Get(header), "over the raw body")
			require.Equal(t, sinktest.Signature(h, reserialised(t, body)), r.Header.Get(header), "over JSON parsed and written again")
		}
	}
}

// reserialised is JSON.stringify(JSON.parse(body)), over which some public receivers compute the signature: compact, keys in
// the order they came in, nothing escaped that need not be.
func reserialised(t *testing.T, body []byte) []byte {
	in := json.NewDecoder(bytes.NewReader(body))
	in.UseNumber()
	var out bytes.Buffer
	var value func()
	write := func(v any) {
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		require.NoError(t, encoder.Encode(v))
		out.Truncate(out.Len() - 1) // the newline
	}
	value = func() {
		token, err := in.Token()
		require.NoError(t, err)
		open, isDelim := token.(json.Delim)
		if !isDelim {
			write(token)
			return
		}
		out.WriteString(open.String())
		for first := true; in.More(); first = false {
			if !first {
				out.WriteByte(',')
			}
			if open == '{' {
				value() // the key
				out.WriteByte(':')
			}
			value()
		}
		end, err := in.Token()
		require.NoError(t, err)
		out.WriteString(end.(json.Delim).String())
	}
	value()
	return out.Bytes()
}
