package ncs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

func samples(t testing.TB) map[string][]byte {
	t.Helper()
	return bodies(t, "samples/*.json", 124)
}

func bodies(t testing.TB, pattern string, want int) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.Len(t, paths, want)
	m := make(map[string][]byte, len(paths))
	for _, p := range paths {
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		m[filepath.Base(p)] = b
	}
	return m
}

func requireReason(t testing.TB, err error, reason string) {
	t.Helper()
	var malformed *ncs.MalformedError
	require.ErrorAs(t, err, &malformed)
	require.Equal(t, reason, malformed.Reason, malformed.Detail)
	require.LessOrEqual(t, len(malformed.Detail), 300)
	require.Contains(t, malformed.Error(), reason)
}

// The file names say product and event type, and mostly the name.
func TestParseReadsEverySample(t *testing.T) {
	t.Parallel()
	for name, body := range samples(t) {
		n := parse(t, body)
		var product, eventType int
		_, err := fmt.Sscanf(name, "%d-%d-", &product, &eventType)
		require.NoError(t, err)
		require.Equal(t, ncs.Builtin().Lookup(product, eventType), n.Info, name)
		require.Equal(t, eventType, n.EventType, name)
		require.True(t, n.Info.Known, name)
		require.Contains(t, name, n.Info.Event)
		require.NotEmpty(t, n.Entity, name)

		// What encoding/json makes of it.
		var want struct {
			NoticeID, NotificationID string
			NotifyMs                 int64
			SID                      string
			Payload                  json.RawMessage
		}
		require.NoError(t, json.Unmarshal(body, &want))
		require.Equal(t, want.NoticeID+want.NotificationID, n.NoticeID, name)
		require.Equal(t, want.NotifyMs, n.NotifyMs, name)
		require.Equal(t, want.SID, n.SID, name)
		require.Equal(t, string(want.Payload), string(n.Payload), name)
		require.Equal(t, n.Info.HasChannel(), n.Channel != "" || strings.HasPrefix(name, "5-2-converter_updated-rtmpUrl"), name)
		require.Equal(t, n.Info.HasServiceType(), n.ServiceType >= 0, name)
	}
}

func TestParseRefusesOtherCallbacks(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"chat-login.json":        ncs.ReasonNoEventType,
		"chat-message.json":      ncs.ReasonBadEventType,
		"meeting.json":           ncs.ReasonNoEventType,
		"screenshot-upload.json": ncs.ReasonNoEventType,
	}
	for name, body := range bodies(t, "testdata/not-ncs/*.json", len(want)) {
		_, err := ncs.Builtin().Parse(body)
		requireReason(t, err, want[name])
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const good = `{"noticeId":"n","productId":99,"eventType":7,"payload":{}}`
	parse(t, []byte(good))
	replace := func(old, with string) string {
		require.Contains(t, good, old)
		return strings.Replace(good, old, with, 1)
	}
	payload := func(s string) string { return replace(`"payload":{}`, `"payload":`+s) }
	for _, test := range []struct{ name, body, reason string }{
		{"nothing", "", ncs.ReasonEmpty},
		{"white space", " \n", ncs.ReasonEmpty},
		{"null", "null", ncs.ReasonNotObject},
		{"a list", "[" + good + "]", ncs.ReasonNotObject},
		{"a string", `"x"`, ncs.ReasonNotObject},
		{"no JSON", "hello", ncs.ReasonNotJSON},
		{"cut off", good[:len(good)-1], ncs.ReasonNotJSON},
		{"byte order mark", "\xef\xbb\xbf" + good, ncs.ReasonNotJSON},
		{"UTF-16", "{\x00\"\x00", ncs.ReasonNotJSON},
		{"comma at the end", payload(`{},`), ncs.ReasonNotJSON},
		{"leading zero", replace(`7`, `07`), ncs.ReasonNotJSON},
		{"NaN", payload(`{"a":NaN}`), ncs.ReasonNotJSON},
		{"comment", payload(`{}/**/`), ncs.ReasonNotJSON},
		{"single quotes", payload(`{'a':1}`), ncs.ReasonNotJSON},
		{"name that is no string", payload(`{1:1}`), ncs.ReasonNotJSON},
		{"raw line end in a string", payload("{\"a\":\"\n\"}"), ncs.ReasonNotJSON},
		{"nested too deeply", payload(`{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}"), ncs.ReasonNotJSON},
		{"nested too deeply in an unknown member", replace(`{"n`, `{"x":`+strings.Repeat(`{"a":`, 20000)+"1"+strings.Repeat("}", 20000)+`,"n`), ncs.ReasonNotJSON},
		{"half a surrogate escape", payload(`{"a":"\ud8"}`), ncs.ReasonNotJSON},
		{"bad UTF-8 outside of strings", payload("{\xff}"), ncs.ReasonInvalidUTF8},
		{"a second object", good + good, ncs.ReasonTrailingData},
		{"garbage behind", good + "x", ncs.ReasonTrailingData},
		{"a zero byte behind", good + "\x00", ncs.ReasonTrailingData},
		{"bad UTF-8 behind", good + "\xff", ncs.ReasonTrailingData},
		{"duplicate in the envelope", replace(`"eventType":7`, `"eventType":7,"eventType":7`), ncs.ReasonDuplicateName},
		{"duplicate in the payload", payload(`{"sid":"a","sid":"b"}`), ncs.ReasonDuplicateName},
		{"duplicate written with an escape", payload(`{"sid":1,"\u0073id":2}`), ncs.ReasonDuplicateName},
		{"duplicate of what may say who it is", payload(`{"player":{"id":1},"player":{}}`), ncs.ReasonDuplicateName},
		{"duplicate deep down", payload(`{"converter":{"transcodeOptions":{},"transcodeOptions":1}}`), ncs.ReasonDuplicateName},
		{"duplicate payload", payload(`{},"payload":{}`), ncs.ReasonDuplicateName},
		{"no event type", replace(`"eventType":7,`, ``), ncs.ReasonNoEventType},
		{"event type in another case", replace(`eventType`, `eventtype`), ncs.ReasonNoEventType},
		{"event type in quotes", replace(`7`, `"7"`), ncs.ReasonBadEventType},
		{"event type with a fraction", replace(`7`, `7.0`), ncs.ReasonBadEventType},
		{"event type with an exponent", replace(`7`, `7e0`), ncs.ReasonBadEventType},
		{"event type below zero", replace(`7`, `-7`), ncs.ReasonBadEventType},
		{"event type minus zero", replace(`7`, `-0`), ncs.ReasonBadEventType},
		{"event type beyond 31 bits", replace(`7`, `2147483648`), ncs.ReasonBadEventType},
		{"event type beyond 64 bits", replace(`7`, strings.Repeat("9", 5000)), ncs.ReasonBadEventType},
		{"event type null", replace(`7`, `null`), ncs.ReasonBadEventType},
		{"event type true", replace(`7`, `true`), ncs.ReasonBadEventType},
		{"event type an object", replace(`7`, `{}`), ncs.ReasonBadEventType},
		{"no product", replace(`"productId":99,`, ``), ncs.ReasonNoProduct},
		{"product in quotes", replace(`99`, `"99"`), ncs.ReasonBadProduct},
		{"product null", replace(`99`, `null`), ncs.ReasonBadProduct},
		{"product with a fraction", replace(`99`, `99.0`), ncs.ReasonBadProduct},
		{"no payload and no notice id", `{"productId":99,"eventType":7}`, ncs.ReasonNoPayload},
		{"payload null and no notice id", `{"productId":99,"eventType":7,"payload":null}`, ncs.ReasonPayloadNotObject},
		{"payload a list and no notice id", `{"productId":99,"eventType":7,"payload":[{}]}`, ncs.ReasonPayloadNotObject},
		{"no notice id", replace(`"noticeId":"n",`, ``), ncs.ReasonNoNoticeID},
		{"notice id empty", replace(`"n"`, `""`), ncs.ReasonNoNoticeID},
		{"notice id with a lone surrogate", replace(`"n"`, `"\ud83d"`), ncs.ReasonNoNoticeID},
		{"notice id that is not UTF-8", replace(`"n"`, "\"\xff\""), ncs.ReasonNoNoticeID},
		{"notice id a number", replace(`"n"`, `1`), ncs.ReasonNoNoticeID},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n, err := ncs.Builtin().Parse([]byte(test.body))
			requireReason(t, err, test.reason)
			require.Nil(t, n)
		})
	}
}

// Only what cannot be identified is refused: everything else is for receivers to judge, and no lever could deliver it.
func TestParsePassesOnWhatItDoesNotRead(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string]string{
		"lone surrogate":             `{"a":"\ud83d","sid":"s"}`,
		"lone low surrogate":         `{"a":"\udc00x","sid":"s"}`,
		"lone surrogate in a name":   `{"\ud83d":1,"sid":"s"}`,
		"bad UTF-8":                  "{\"a\":\"\xff\",\"sid\":\"s\"}",
		"bad UTF-8 in a name":        "{\"\xc0\xaf\":1,\"sid\":\"s\"}",
		"surrogate in UTF-8":         "{\"a\":\"\xed\xa0\x80\",\"sid\":\"s\"}",
		"a member twice":             `{"b":1,"\u0062":2,"sid":"s"}`,
		"a member twice, deep below": `{"a":[{"sid":{"c":1,"c":1}}],"sid":"s"}`,
	} {
		n := parse(t, []byte(`{"noticeId":"n","productId":99,"eventType":7,"payload":`+payload+`}`))
		require.Equal(t, "s", n.Entity, name)
		require.Equal(t, payload, string(n.Payload), name)
	}
	for _, envelope := range []string{``, `,"payload":null`, `,"payload":[{}]`, `,"payload":"{}"`} {
		n := parse(t, []byte(`{"noticeId":"n","productId":3,"eventType":61`+envelope+`}`))
		require.Equal(t, "vod_triggered", n.Info.Event)
	}
}

// Two ids that are no Unicode look the same once they are decoded; their events must not.
func TestTextThatIsNoUnicodeIdentifiesNothing(t *testing.T) {
	t.Parallel()
	joined := func(noticeID, channel string) *ncs.Notification {
		return parse(t, []byte(`{"noticeId":"`+noticeID+`","productId":1,"eventType":103,"payload":{"channelName":"`+channel+`","uid":1,"clientSeq":2,"ts":3}}`))
	}
	require.Equal(t, joined("n1", "c").Identify("s"), joined("n2", "c").Identify("s"), "a channel that is text identifies")
	a, b := joined("n1", `c\ud83d`), joined("n2", `c\ud83e`)
	require.NotEqual(t, a.Identify("s").Key, b.Identify("s").Key)
	require.Equal(t, "c\ufffd", a.Entity, "they are ordered all the same")
	require.Equal(t, "c\ufffd", a.Channel)
	c, d := joined("n1", "c\xff"), joined("n2", "c\xfe")
	require.NotEqual(t, c.Identify("s").Key, d.Identify("s").Key)
	require.Equal(t, "c\ufffd", c.Entity)
}

func TestParseAcceptsTheLimits(t *testing.T) {
	t.Parallel()
	n := parse(t, []byte(" {\"payload\" \n:\t{ } ,\"eventType\":2147483647,\"productId\":0,\"noticeId\":\"\\u00fc\\ud83d\\ude00\"}\r\n"))
	require.Equal(t, 2147483647, n.EventType)
	require.Equal(t, "ü😀", n.NoticeID)
	require.Equal(t, "{ }", string(n.Payload))
	require.Equal(t, ncs.Info{
		Product: "unknown_0", EventType: 2147483647, Event: "unknown_2147483647", Category: "unknown",
	}, n.Info)
	require.Equal(t, -1, n.ServiceType)
	require.Empty(t, n.Entity)
	require.Empty(t, n.Channel)

	deep := strings.Repeat("[", 9990) + strings.Repeat("]", 9990)
	parse(t, []byte(`{"payload":{"a":`+deep+`},"eventType":1,"productId":9,"noticeId":"x"}`))
	wide := new(strings.Builder)
	for i := range 5000 {
		fmt.Fprintf(wide, `"m%d":%d,`, i, i)
	}
	n = parse(t, []byte(`{`+wide.String()+`"payload":{`+wide.String()+`"sid":"s"},"eventType":1,"productId":9,"noticeId":"x"}`))
	require.Equal(t, "s", n.Entity)
}

// A Notification must not be touched by what is parsed later with the same pooled walker.
func TestParsedNotificationsAreIndependent(t *testing.T) {
	t.Parallel()
	a, b := sample(t, "3-40-recorder_started.json"), sample(t, "1-101-channel_create-sid.json")
	n := parse(t, a)
	want := *n
	id := n.Identify("source")
	for range 10 {
		parse(t, b)
		_, err := ncs.Builtin().Parse([]byte(`{"payload":{"sid":`))
		require.Error(t, err)
	}
	require.Equal(t, want, *n)
	require.Equal(t, id, n.Identify("source"))
	require.True(t, bytes.Contains(a, n.Payload))
}

func TestEntityAndChannel(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ file, entity, channel string }{
		{"1-102-channel_destroy-captured.json", "922", "922"},
		{"3-40-recorder_started.json", "d12fdce9024d37862a8f3a88e387c817", "Testing2"},
		{"3-112-cloud_transcoder_status.json", "1234", ""},
		{"4-4-player_status_changed.json", "2a784467d647bb87b60b719f6fa56317", "class32"},
		{"5-1-converter_created.json", "4c014467d647bb87b60b719f6fa57686", "show68"},
		{"5-3-converter_state_changed.json", "4c014467d647bb87b60b719f6fa57686", ""},
		{"7-11-publish_media_info.json", "live/test_stream", ""},
		{"10-4-live_profile_updated.json", "55df7402-8778-11ee-92ed-07ec2e86c928", "123"},
		{"17-110-agent_error-greeting.json", "1NT29X10YHxxxxxWJOXLYHNYB", "outbound_call_channel_001"},
		{"20-101-agent_joined.json", "agent_id", "stt_ncs93369"},
		{"20-31-uploaded-legacy.json", "c662ce961441cd8dc22f858ab7cec4d4", "test"},
	} {
		n := parse(t, sample(t, test.file))
		require.Equal(t, test.entity, n.Entity, test.file)
		require.Equal(t, test.channel, n.Channel, test.file)
	}

	unknown := func(envelope, payload string) *ncs.Notification {
		return parse(t, fmt.Appendf(nil, `{"noticeId":"n","productId":1,"eventType":999%s,"payload":{%s}}`, envelope, payload))
	}
	require.Equal(t, "a", unknown(`,"sid":"b"`, `"sid":"a","channelName":"c","cname":"d"`).Entity)
	require.Equal(t, "b", unknown(`,"sid":"b"`, `"channelName":"c","cname":"d"`).Entity)
	require.Equal(t, "c", unknown(``, `"channelName":"c","cname":"d"`).Entity)
	require.Equal(t, "d", unknown(``, `"cname":"d","sid":null,"channelName":""`).Entity)
	require.Equal(t, "7", unknown(``, `"cname":7`).Entity)
	require.Empty(t, unknown(`,"sid":{}`, `"sid":true`).Entity)
	require.Equal(t, "raw", unknown(``, `"converter":{"rawOptions":{"rtcChannel":"raw"}}`).Channel)
	// A catalogued event whose own entity is missing is ordered by what there is.
	require.Equal(t, "Testing2", parse(t, edit(t, edit(t, sample(t, "3-40-recorder_started.json"), "payload.sid", without), "sid", without)).Entity)
	// An object in the place of a value, and a value in the place of an object.
	n := unknown(``, `"channelName":{"player":{"channelName":"x"}},"player":"p","rtcInfo":[{"channel":"x"}]`)
	require.Empty(t, n.Channel)
	require.Empty(t, n.Entity)
}

func TestServiceType(t *testing.T) {
	t.Parallel()
	body := sample(t, "3-40-recorder_started.json")
	for value, want := range map[string]int{
		"6": 6, `"8"`: 8, "0": 0, "null": -1, without: -1, "1.0": -1, "-3": -1, `"x"`: -1, "99999999999999999999": -1,
	} {
		require.Equal(t, want, parse(t, edit(t, body, "payload.serviceType", value)).ServiceType, value)
	}
}

func TestIsTest(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"1-101-channel_create-healthcheck.json", "1-102-channel_destroy.json", "1-103-broadcaster_join_channel.json",
	} {
		require.True(t, parse(t, sample(t, name)).IsTest(), name)
	}
	for name, body := range samples(t) {
		if !bytes.Contains(body, []byte("test_webhook")) {
			require.False(t, parse(t, body).IsTest(), name)
		}
	}
	for payload, want := range map[string]bool{
		`"channel":"test_webhook"`:                                           true,
		`"channel":"test_webhook","uid":"12121212"`:                          true,
		`"channelName":"test_webhook","uid":null`:                            true,
		`"channelName":"test_webhook","uid":12121212,"lastUid":12121212`:     true,
		`"channelName":"test_webhook","uid":12121212,"lastUid":1`:            false,
		`"channelName":"test_webhook","uid":1`:                               false,
		`"channelName":"test_webhook","lastUid":1`:                           false,
		`"channelName":"test_webhook","uid":12121212.0`:                      false,
		`"channelName":"test_webhook","uid":{}`:                              false,
		`"cname":"test_webhook"`:                                             false,
		`"cname":"test_webhook","uid":"12121212"`:                            true,
		`"cname":"test_webhook","uid":12121212,"lastUid":1`:                  false,
		`"cname":"test_webhook","uid":"1"`:                                   false,
		`"cname":"other","uid":"12121212"`:                                   false,
		`"channelName":"test_webhook2"`:                                      false,
		`"rtcInfo":{"channel":"test_webhook"}`:                               false,
		`"details":{"channelName":"test_webhook"},"uid":12121212`:            false,
		`"channelName":"other","channel":"\u0074est_webhook","uid":12121212`: true,
	} {
		n := parse(t, fmt.Appendf(nil, `{"noticeId":"n","productId":17,"eventType":101,"payload":{%s}}`, payload))
		require.Equal(t, want, n.IsTest(), payload)
	}
}

func TestOccurredAt(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"1-101-channel_create.json":             "2019-06-13T04:26:39Z",
		"3-40-recorder_started.json":            "2020-08-04T15:35:06.257Z",
		"3-110-cloud_transcoder_started.json":   "2022-06-30T07:14:03.385Z",
		"4-1-player_created.json":               "2019-12-05T01:17:24.149Z",
		"5-1-converter_created.json":            "2020-10-23T12:36:40Z", // printed in seconds, documented in ms
		"7-1-publish_start.json":                "",
		"10-1-live_stream_connected.json":       "2023-11-21T02:27:31Z",
		"10-2-live_stream_disconnected.json":    "2023-11-21T03:27:31Z",
		"10-3-live_stream_aborted.json":         "", // beginAt is not when it was aborted
		"17-101-agent_joined.json":              "2025-01-17T10:57:32Z",
		"17-102-agent_left-idle.json":           "2025-01-17T10:57:35Z",
		"17-103-agent_history.json":             "", // 123 is no time
		"17-104-agent_expire.json":              "",
		"17-112-turns_finished.json":            "2024-05-06T12:53:35Z", // in ms, elsewhere in seconds
		"17-201-inbound_call_state.json":        "2025-01-17T10:57:32Z",
		"20-102-agent_left-idle.json":           "2025-06-18T08:39:44Z",
		"20-33-uploading_progress-legacy.json":  "2024-05-10T09:01:47Z",
		"3-40-recorder_started-legacy-1.2.json": "2019-06-13T06:48:53.099Z",
		"1-102-channel_destroy-captured.json":   "2025-03-10T09:51:05Z",
		"17-202-outbound_call_state.json":       "2025-01-17T10:57:32Z",
	} {
		at, ok := parse(t, sample(t, file)).OccurredAt()
		require.Equal(t, want != "", ok, file)
		if ok {
			require.Equal(t, want, at.Format(time.RFC3339Nano), file)
		}
	}

	body := sample(t, "3-40-recorder_started.json")
	for value, want := range map[string]string{
		`"1596555306257"`: "2020-08-04T15:35:06.257Z", "1596555306": "2020-08-04T15:35:06Z",
		"4102444799999": "2099-12-31T23:59:59.999Z", "1000000000": "2001-09-09T01:46:40Z",
		"4102444800000": "", "0": "", "-1596555306257": "", "999999999": "", "1596555306257000": "", "1596555306257000000": "",
		"9223372036854775807": "", "-9223372036854775808": "", "99999999999999999999": "", "1.5e12": "", "null": "", "{}": "", without: "",
	} {
		at, ok := parse(t, edit(t, body, "payload.sendts", value)).OccurredAt()
		require.Equal(t, want != "", ok, value)
		if ok {
			require.Equal(t, want, at.Format(time.RFC3339Nano), value)
		}
	}
	for payload, want := range map[string]string{
		`"ts":1560399999`: "2019-06-13T04:26:39Z", `"lts":1575508644149,"ts":1560399999`: "2019-12-05T01:17:24.149Z", `"x":1560399999`: "",
	} {
		at, ok := parse(t, fmt.Appendf(nil, `{"noticeId":"n","productId":99,"eventType":1,"payload":{%s}}`, payload)).OccurredAt()
		require.Equal(t, want != "", ok, payload)
		if ok {
			require.Equal(t, want, at.Format(time.RFC3339Nano), payload)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, body := range samples(f) {
		f.Add(body)
	}
	for _, body := range bodies(f, "testdata/not-ncs/*.json", 4) {
		f.Add(body)
	}
	for _, body := range []string{
		`{"b":1,"\u0062":2}`, "\xef\xbb\xbf{}", `{} {}`, `{"payload":{"a":"\ud800"}}`, `{"eventType":1e2}`, `{"payload":`, `[[[[`,
		"{\"eventType\":1,\"productId\":3,\"payload\":{\"sid\":\"\xff\"}}", `{"eventType":1,"productId":3,"notificationId":"x","payload":{"sid":"s"}}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		given := bytes.Clone(body)
		n, err := ncs.Builtin().Parse(body)
		require.Equal(t, given, body, "the body was changed")
		if err != nil {
			var malformed *ncs.MalformedError
			require.ErrorAs(t, err, &malformed)
			require.LessOrEqual(t, len(malformed.Detail), 300)
			return
		}
		require.True(t, json.Valid(body))
		var envelope struct {
			ProductID, EventType int
			Payload              json.RawMessage
		}
		if json.Unmarshal(body, &envelope) == nil && !hasFoldedNames(t, body) {
			require.Equal(t, envelope.EventType, n.EventType)
			require.Equal(t, string(envelope.Payload), string(n.Payload))
		}
		again, err := ncs.Builtin().Parse(body)
		require.NoError(t, err)
		id := n.Identify("source")
		require.Equal(t, id, again.Identify("source"))
		require.NotEqual(t, id, n.Identify("other"))
		n.IsTest()
		n.OccurredAt()
		n.Describe()
		require.LessOrEqual(t, len(n.Facts()), 100)

		// Indented and sorted it is the same event.
		var indented bytes.Buffer
		require.NoError(t, json.Indent(&indented, body, "", " "))
		again, err = ncs.Builtin().Parse(indented.Bytes())
		require.NoError(t, err)
		require.Equal(t, id, again.Identify("source"))
	})
}

// hasFoldedNames reports whether the envelope has names which encoding/json takes for one another.
func hasFoldedNames(t testing.TB, body []byte) bool {
	seen := map[string]bool{}
	for name := range decode(t, body) {
		folded := strings.ToLower(name)
		if seen[folded] || name != folded && strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f }) {
			return true
		}
		seen[folded] = true
	}
	return false
}

func BenchmarkParse(b *testing.B) {
	for _, name := range []string{"1-103-broadcaster_join_channel.json", "3-31-uploaded-composite-mp4.json"} {
		body := sample(b, name)
		b.Run(fmt.Sprintf("%dB", len(body)), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				n, err := ncs.Builtin().Parse(body)
				if err != nil {
					b.Fatal(err)
				}
				n.Identify("recording")
			}
		})
	}
}
