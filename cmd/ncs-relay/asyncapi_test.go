package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

const asyncConfig = `
sources:
  - {name: main, path: /ncs, secrets: [canary-source-secret]}
sinks:
  - {name: media, owner: media-team, kafka: {brokers: ["k1.internal:9092,k2.internal:9092"], topic: "ncs.{product}", cloudevents: true}}
  - {name: billing, owner: billing-team, http: {url: "https://billing.internal/hooks/canary-path?token=canary", bearer_token: canary-token, headers: {X-Team: canary-header}}}
  - {name: archive, file: {path: ./archive/events.jsonl}}
  - {name: idle, file: {path: ./archive/idle.jsonl}}
routes:
  - {match: {product: cloud_recording, event: [uploaded, session_exit]}, to: [media, billing]}
  - {match: {product: rtc}, to: [media]}
  - {match: {event: [cloud_recording.uploaded]}, to: [archive]}
`

func TestAsyncAPISaysWhatAConfigurationSends(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "relay.yaml")
	require.NoError(t, os.WriteFile(file, []byte(asyncConfig), 0o600))
	var out, errs strings.Builder
	require.Equal(t, exitOK, run(t.Context(), []string{"asyncapi", "-c", file}, os.Stdin, &out, &errs), errs.String())
	require.NotContains(t, out.String(), "canary")

	var doc map[string]any
	require.NoError(t, json.Unmarshal([]byte(out.String()), &doc))
	at := func(pointer string) any {
		var found any = doc
		for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "#/"), "/") {
			m, ok := found.(map[string]any)
			require.True(t, ok, pointer)
			require.Contains(t, m, name, pointer)
			found = m[name]
		}
		return found
	}
	requireRefs(t, doc, func(ref string) { at(ref) })

	require.Equal(t, "3.0.0", doc["asyncapi"])
	require.Equal(t, "k2.internal:9092", at("#/servers/media-2/host"))
	require.Equal(t, "billing.internal", at("#/servers/billing/host"))
	require.Len(t, at("#/channels"), 4, "two topics, a service and a file; nothing is sent to idle")
	require.Equal(t, "ncs.rtc", at("#/channels/media:ncs.rtc/address"))
	require.Equal(t, "media-team", at("#/channels/media:ncs.rtc/x-owner"))
	require.Contains(t, at("#/channels/media:ncs.rtc/messages"), "unknown", "types that Agora adds go there too")
	recording := at("#/channels/media:ncs.cloud_recording/messages")
	require.Len(t, recording, 2)
	require.Contains(t, recording, "cloud_recording.uploaded")
	require.Equal(t, "/<secret>?<secret>", at("#/channels/billing/address"))
	require.Equal(t, "POST", at("#/operations/send:billing/bindings/http/method"))
	require.Contains(t, at("#/components/schemas/media.headers/properties"), "ce_id")
	require.Contains(t, at("#/components/schemas/billing.headers/required"), "Idempotency-Key")

	c := jsonschema.NewCompiler()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(out.String()))
	require.NoError(t, err)
	require.NoError(t, c.AddResource("asyncapi.json", document))
	schema, err := c.Compile("asyncapi.json#/components/schemas/cloud_recording.uploaded")
	require.NoError(t, err)
	for _, s := range ncs.Samples() {
		body, err := jsonschema.UnmarshalJSON(strings.NewReader(string(s.Body())))
		require.NoError(t, err)
		fits := schema.Validate(body) == nil
		require.Equal(t, s.Info == ncs.Builtin().Lookup(3, 31), fits, s.Name)
	}
}

// requireRefs hands every reference of a document to resolve.
func requireRefs(t *testing.T, value any, resolve func(ref string)) {
	switch v := value.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			resolve(ref)
		}
		for _, inner := range v {
			requireRefs(t, inner, resolve)
		}
	case []any:
		for _, inner := range v {
			requireRefs(t, inner, resolve)
		}
	}
}
