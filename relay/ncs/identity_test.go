package ncs_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

func parse(t testing.TB, body []byte) *ncs.Notification {
	t.Helper()
	n, err := ncs.Builtin().Parse(body)
	require.NoError(t, err, "%s", body)
	return n
}

func identify(t testing.TB, body []byte) ncs.Identity {
	t.Helper()
	return parse(t, body).Identify("source")
}

// The golden file pins what users build on: names, entities and ids. A changed id means that copies which arrive across
// an upgrade are no longer recognised.
func TestGolden(t *testing.T) {
	t.Parallel()
	const file = "testdata/samples.golden"
	all := samples(t)
	var got strings.Builder
	got.WriteString("sample\tproduct\tevent\tcategory\tentity\tchannel\tservice type\tkey\tid\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n := parse(t, all[name])
		i := n.Identify("source")
		fmt.Fprintf(&got, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%x\t%s\n", name, n.Info.Product, n.Info.Event, n.Info.Category, n.Entity, n.Channel, n.ServiceType, i.Key, i.ID)
	}
	golden(t, file, got.String())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(string(want), got))
}

// The expected values were computed by a few lines of Python from the table and the encoding alone: SHA-256 over tag, source,
// productId, eventType and the fields of the key, then over key and fingerprint, each text with its length in four bytes in front.
func TestIdentifyMatchesIndependentComputation(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ file, key, id string }{
		{"3-40-recorder_started.json", "06f507c55c8732e7f717241ad3b80e7a", "886edfd15736adf244a31f842dc05b7a"},
		{"1-104-broadcaster_leave_channel-account.json", "70f2ccab01e89921d7544e3f30f2d526", "1194e293724b5292fd378a8a77bc29cd"},
		{"1-103-broadcaster_join_channel.json", "6bfa22507a17df7a9a2198cf1aa7e7b5", "9b0dadee86d30a8ff469e9c204a67bca"},
		{"7-1-publish_start.json", "33000e7f00afa549f21e1b6a4e6987ca", "491b453135b2f15892cd7cb2bbed7ce0"},
	} {
		i := parse(t, sample(t, test.file)).Identify("recording")
		require.Equal(t, test.key, hex.EncodeToString(i.Key[:]), test.file)
		require.Equal(t, test.id, i.ID.String(), test.file)
	}
}

func TestSamplesAreDifferentEvents(t *testing.T) {
	t.Parallel()
	// Samples that are variants of one event: an agent leaves a session once, whatever the message says, and the payload of the created
	// player is printed on two pages.
	want := [][]string{
		{"17-102-agent_left-connect_timeout.json", "17-102-agent_left-rtc_error.json"},
		{"17-102-agent_left-idle.json", "17-102-agent_left-lifetime.json", "17-102-agent_left-stopped.json"},
		{"20-102-agent_left-asr_error.json", "20-102-agent_left-rtc_error.json", "20-102-agent_left-translation_error.json"},
		{"20-102-agent_left-idle.json", "20-102-agent_left-stopped.json"},
		{"4-1-player_created-appId.json", "4-1-player_created.json"},
	}
	files := map[ncs.EventID][]string{}
	all := samples(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		id := identify(t, all[name]).ID
		files[id] = append(files[id], name)
	}
	var got [][]string
	for _, names := range files {
		if len(names) > 1 {
			got = append(got, names)
		}
	}
	slices.SortFunc(got, slices.Compare)
	require.Empty(t, cmp.Diff(want, got))
}

// The entity says in which shard an event is judged, and copies are recognised within a shard.
func TestEqualEventsHaveEqualEntities(t *testing.T) {
	t.Parallel()
	entities := map[ncs.Key]string{}
	for name, body := range samples(t) {
		for how, other := range rewritten(t, body) {
			n := parse(t, other)
			key := n.Identify("source").Key
			if entity, known := entities[key]; known {
				require.Equal(t, entity, n.Entity, "%s, %s", name, how)
			}
			entities[key] = n.Entity
		}
	}
}

func TestIdentityIsNotOfTheBytes(t *testing.T) {
	t.Parallel()
	for name, body := range samples(t) {
		n := parse(t, body)
		want := n.Identify("source")
		for how, other := range rewritten(t, body) {
			if how != "sorted" { // as some samples are
				require.NotEqual(t, string(body), string(other), "%s %s", name, how)
			}
			m := parse(t, other)
			require.Equal(t, want, m.Identify("source"), "%s %s", name, how)
			require.Equal(t, n.Entity, m.Entity, "%s %s", name, how)
			require.Equal(t, n.Channel, m.Channel, "%s %s", name, how)
			require.Equal(t, n.NoticeID, m.NoticeID, "%s %s", name, how)
		}
		for _, notifyMs := range []string{"1", "1796555306283", without, "null", `"x"`} {
			require.Equal(t, want, identify(t, edit(t, body, "notifyMs", notifyMs)), name)
		}
		require.Equal(t, want, identify(t, edit(t, body, "payload.newField", `{"sid":"x","sequence":7}`)), name)
		require.NotEqual(t, want.ID, n.Identify("other").ID, name)
		require.NotEqual(t, want.Key, n.Identify("other").Key, name)
	}
}

// identityRows is the table of the design, each line by a sample that has all of its fields.
var identityRows = []struct {
	file        string
	key         []string // fields that make another key, and are demanded
	optionalKey []string // fields that make another key, and may be absent
	fingerprint []string // fields that make another id under the same key, and are demanded
	optional    []string // fields that make another id under the same key, and may be absent
	ignored     []string
}{
	{
		file: "3-40-recorder_started.json", key: []string{"payload.sid", "payload.sequence"},
		fingerprint: []string{"payload.sendts"}, optional: []string{"payload.uid", "payload.serviceType"},
		ignored: []string{"noticeId", "sid", "payload.cname"},
	},
	{
		file: "3-110-cloud_transcoder_started.json", key: []string{"payload.taskId", "payload.sequence", "payload.sendts"},
		ignored: []string{"noticeId", "payload.instanceId"},
	},
	{
		file: "1-104-broadcaster_leave_channel-account.json", key: []string{"payload.channelName", "payload.uid", "payload.clientSeq"},
		optionalKey: []string{"sid"}, fingerprint: []string{"payload.ts"}, optional: []string{"payload.reason", "payload.duration"},
		ignored: []string{"noticeId", "payload.platform", "payload.account"},
	},
	{
		file: "1-102-channel_destroy-captured.json", key: []string{"sid", "payload.channelName", "payload.ts"},
		ignored: []string{"noticeId", "payload.lastUid"},
	},
	{file: "4-1-player_created.json", key: []string{"payload.player.id", "payload.lts"}, ignored: []string{"noticeId", "payload.xRequestId"}},
	{file: "4-3-player_destroyed.json", key: []string{"payload.player.id", "payload.lts"}, ignored: []string{"noticeId"}},
	{file: "4-4-player_status_changed.json", key: []string{"noticeId"}, ignored: []string{"payload.player.id", "payload.lts"}},
	{file: "5-1-converter_created.json", key: []string{"payload.converter.id", "payload.lts"}, ignored: []string{"noticeId", "payload.xRequestId"}},
	{file: "5-4-converter_destroyed.json", key: []string{"payload.converter.id", "payload.lts"}, ignored: []string{"noticeId"}},
	{file: "5-3-converter_state_changed.json", key: []string{"noticeId"}, ignored: []string{"payload.converter.id", "payload.lts"}},
	{file: "7-1-publish_start.json", key: []string{"noticeId"}, ignored: []string{"payload.streamName"}},
	{file: "10-1-live_stream_connected.json", key: []string{"payload.sid"}, ignored: []string{"noticeId", "sid", "payload.beginAt"}},
	{file: "10-2-live_stream_disconnected.json", key: []string{"payload.sid"}, ignored: []string{"noticeId", "payload.endAt"}},
	{file: "10-3-live_stream_aborted.json", key: []string{"noticeId"}, ignored: []string{"payload.sid"}},
	{
		file: "17-101-agent_joined.json", key: []string{"payload.agent_id", "payload.start_ts"}, optionalKey: []string{"payload.stop_ts"},
		optional: []string{"payload.status"}, ignored: []string{"noticeId", "sid"},
	},
	{
		file: "17-102-agent_left-stopped.json", key: []string{"payload.agent_id", "payload.start_ts", "payload.stop_ts"},
		optional: []string{"payload.status"}, ignored: []string{"noticeId", "payload.message"},
	},
	{file: "17-103-agent_history.json", key: []string{"noticeId"}, ignored: []string{"payload.agent_id", "payload.stop_ts"}},
	{
		file: "17-201-inbound_call_state.json", key: []string{"payload.agent_id", "payload.state", "payload.report_ms"},
		ignored: []string{"noticeId", "sid"},
	},
	{
		file: "20-102-agent_left-stopped.json", key: []string{"payload.agent_id", "payload.start_ts", "payload.stop_ts"},
		optional: []string{"payload.status"}, ignored: []string{"noticeId", "sid"},
	},
	// Different events of one task all have sequence 0 in the printed examples.
	{file: "20-33-uploading_progress-legacy.json", key: []string{"noticeId"}, ignored: []string{"payload.taskId", "payload.sequence", "payload.sendts"}},
}

func TestIdentityTable(t *testing.T) {
	t.Parallel()
	for _, row := range identityRows {
		t.Run(row.file, func(t *testing.T) {
			t.Parallel()
			body := sample(t, row.file)
			want := identify(t, body)
			for _, path := range append(slices.Clone(row.key), row.optionalKey...) {
				got := identify(t, edit(t, body, path, `"987654321"`))
				require.NotEqual(t, want.Key, got.Key, path)
				require.NotEqual(t, want.ID, got.ID, path)
			}
			for _, path := range append(slices.Clone(row.fingerprint), row.optional...) {
				got := identify(t, edit(t, body, path, `"987654321"`))
				require.Equal(t, want.Key, got.Key, path)
				require.NotEqual(t, want.ID, got.ID, path)
			}
			for _, path := range row.ignored {
				require.Equal(t, want, identify(t, edit(t, body, path, `"987654321"`)), path)
			}
			for _, path := range []string{"eventType", "productId"} {
				got, err := ncs.Builtin().Parse(edit(t, body, path, "987"))
				require.NoError(t, err)
				require.NotEqual(t, want.Key, got.Identify("source").Key, path)
			}
		})
	}
}

// A field that is missing or odd sends the event to the notice id, and without one it is no notification.
func TestIdentityFallsBackToNoticeID(t *testing.T) {
	t.Parallel()
	for _, row := range identityRows {
		if slices.Contains(row.key, "noticeId") {
			continue
		}
		t.Run(row.file, func(t *testing.T) {
			t.Parallel()
			body := sample(t, row.file)
			demanded := append(slices.Clone(row.key), row.fingerprint...)
			for _, path := range demanded {
				for _, value := range []string{without, "null", `""`, "true", "{}", "[]", "1.5", "1e3"} {
					requireByNotice(t, edit(t, body, path, value))
				}
			}
			for _, path := range append(slices.Clone(row.optionalKey), row.optional...) {
				for _, value := range []string{"true", "{}", "[]", "1.5", "1e3"} {
					requireByNotice(t, edit(t, body, path, value))
				}
				absent := identify(t, edit(t, body, path, without))
				for _, value := range []string{"null", `""`} {
					got := edit(t, body, path, value)
					require.Equal(t, absent, identify(t, got), "%s %s", path, value)
					require.Equal(t, absent, identify(t, edit(t, got, "noticeId", without)), "%s %s", path, value)
				}
			}
		})
	}
}

func requireByNotice(t *testing.T, body []byte) {
	t.Helper()
	one, other := identify(t, edit(t, body, "noticeId", `"one"`)), identify(t, edit(t, body, "noticeId", `"other"`))
	require.NotEqual(t, one.Key, other.Key, "%s", body)
	for _, none := range []string{without, "null", `""`, "7"} {
		_, err := ncs.Builtin().Parse(edit(t, body, "noticeId", none))
		requireReason(t, err, ncs.ReasonNoNoticeID)
	}
}

func TestWholeNumbersAreTheSameWithQuotes(t *testing.T) {
	t.Parallel()
	body := sample(t, "3-40-recorder_started.json")
	want := identify(t, body)
	require.Equal(t, want, identify(t, edit(t, body, "payload.sequence", `"1"`)))
	require.Equal(t, want, identify(t, edit(t, body, "payload.uid", `1001`)))
	require.Equal(t, want, identify(t, edit(t, body, "payload.sendts", `"1596555306257"`)))
	for _, other := range []string{`"01"`, `" 1"`, `"+1"`, `"1.0"`, "1.0", "1e0", "-0", `"-0"`, `"one"`, `"-"`} {
		requireByNotice(t, edit(t, body, "payload.sequence", other))
	}
	// Nothing is a float: these differ in the last digit only.
	a, b := edit(t, body, "payload.sequence", "9007199254740992"), edit(t, body, "payload.sequence", "9007199254740993")
	require.NotEqual(t, identify(t, a).Key, identify(t, b).Key)
	a, b = edit(t, body, "payload.sequence", "-1"), edit(t, body, "payload.sequence", strings.Repeat("9", 400))
	require.NotEqual(t, identify(t, a).Key, identify(t, b).Key)
}

func TestClientSeqMustBePositive(t *testing.T) {
	t.Parallel()
	body := sample(t, "1-104-broadcaster_leave_channel-account.json")
	for _, value := range []string{"0", `"0"`, "-5"} {
		requireByNotice(t, edit(t, body, "payload.clientSeq", value))
	}
	require.Equal(t, identify(t, body), identify(t, edit(t, body, "noticeId", without)))
}

func TestFieldsDoNotRunTogether(t *testing.T) {
	t.Parallel()
	body := sample(t, "17-201-inbound_call_state.json")
	a := edit(t, edit(t, body, "payload.agent_id", `"ab"`), "payload.state", `"c"`)
	b := edit(t, edit(t, body, "payload.agent_id", `"a"`), "payload.state", `"bc"`)
	require.NotEqual(t, identify(t, a).Key, identify(t, b).Key)
	n := parse(t, body)
	require.NotEqual(t, n.Identify("a").Key, n.Identify("a\x00").Key)
}

func TestRetiredFormat(t *testing.T) {
	t.Parallel()
	body := sample(t, "3-40-recorder_started-legacy-1.2.json")
	n := parse(t, body)
	require.Equal(t, "cloud_recording", n.Info.Product)
	require.Equal(t, "recorder_started", n.Info.Event)
	require.Equal(t, "4eb720f0-8da7-11e9-a43e-53f411c2761f", n.NoticeID)
	require.Equal(t, "d12fdce9024d37862a8f3a88e387c817", n.Entity)

	// The same event in today's format.
	today := edit(t, edit(t, body, "productId", "3"), "payload.sequence", "1")
	require.Equal(t, n.Identify("source"), identify(t, today))
	byNotificationID := edit(t, body, "payload.sequence", without)
	require.NotEqual(t, identify(t, byNotificationID), identify(t, edit(t, byNotificationID, "notificationId", `"x"`)))

	for _, edited := range [][]byte{
		edit(t, body, "payload.sid", without),
		edit(t, body, "notificationId", without),
		edit(t, edit(t, body, "notificationId", without), "noticeId", `"x"`),
	} {
		_, err := ncs.Builtin().Parse(edited)
		requireReason(t, err, ncs.ReasonNoProduct)
	}
}

func TestIdentifyOpaque(t *testing.T) {
	t.Parallel()
	body := []byte("[1]")
	want := ncs.IdentifyOpaque("source", body)
	require.Equal(t, want, ncs.IdentifyOpaque("source", bytes.Clone(body)))
	for _, other := range []ncs.Identity{
		ncs.IdentifyOpaque("other", body), ncs.IdentifyOpaque("source", []byte("[1] ")), ncs.IdentifyOpaque("source", nil),
		identify(t, sample(t, "7-1-publish_start.json")),
	} {
		require.NotEqual(t, want.Key, other.Key)
		require.NotEqual(t, want.ID, other.ID)
	}
}

func TestEventIDText(t *testing.T) {
	t.Parallel()
	id := identify(t, sample(t, "3-40-recorder_started.json")).ID
	require.Regexp(t, "^[0-9a-f]{32}$", id.String())
	for _, s := range []string{id.String(), strings.ToUpper(id.String())} {
		parsed, err := ncs.ParseEventID(s)
		require.NoError(t, err)
		require.Equal(t, id, parsed)
	}
	text, err := json.Marshal(map[string]ncs.EventID{"id": id})
	require.NoError(t, err)
	require.Equal(t, `{"id":"`+id.String()+`"}`, string(text))
	var back map[string]ncs.EventID
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, id, back["id"])
	for _, bad := range []string{"", "abc", id.String() + "00", id.String()[:30] + "zz", id.String() + "-r1"} {
		_, err := ncs.ParseEventID(bad)
		require.Error(t, err, bad)
	}
	require.Error(t, json.Unmarshal([]byte(`{"id":"xyz"}`), &back))
}
