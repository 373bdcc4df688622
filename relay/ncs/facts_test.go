package ncs_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

// The golden file shows what every sample is said to state.
func TestFactsOfEverySample(t *testing.T) {
	t.Parallel()
	all := samples(t)
	var got strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n := parse(t, all[name])
		fmt.Fprintf(&got, "%s\n%s\n", name, n.Describe())
		for _, f := range n.Facts() {
			fmt.Fprintf(&got, "\t%s\t%s\t%s\n", f.Field, f.Value, f.Meaning)
		}
	}
	golden(t, "testdata/facts.golden", got.String())
}

func TestSamplesAreThoseOfTheDirectory(t *testing.T) {
	t.Parallel()
	all := samples(t)
	embedded := ncs.Samples()
	require.Len(t, embedded, len(all))
	for _, s := range embedded {
		require.Equal(t, string(all[s.Name+".json"]), string(s.Body()))
	}
}

// detailsOf returns what details of an event of Cloud Recording are said to state, by field.
func detailsOf(t testing.TB, eventType int, details string) map[string]string {
	t.Helper()
	n := parse(t, fmt.Appendf(nil, `{"noticeId":"n","productId":3,"eventType":%d,"payload":{"details":%s}}`, eventType, details))
	said := map[string]string{}
	for _, f := range n.Facts() {
		said[f.Field] = f.Value
		if f.Meaning != "" {
			said[f.Field] += " = " + f.Meaning
		}
	}
	return said
}

func TestFactsDecode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		eventType int
		details   string
		want      map[string]string
	}{
		{"a mask", 41, `{"leaveCode":6}`, map[string]string{"details.leaveCode": "6 = SIG: the service got SIGINT, NO_USERS: nobody was in the channel"}},
		{"a mask in quotes", 41, `{"leaveCode":"24"}`, map[string]string{"details.leaveCode": "24 = TIMER_CATCH: to be ignored, CLIENT_LEAVE: the recorder called leaveChannel"}},
		{"no bit", 41, `{"leaveCode":0}`, map[string]string{"details.leaveCode": "0 = INIT: initialisation failed"}},
		{"bits nobody published", 41, `{"leaveCode":35}`, map[string]string{"details.leaveCode": "35 = UNKNOWN_1, SIG: the service got SIGINT, UNKNOWN_32"}},
		{"the highest bit", 41, `{"leaveCode":4611686018427387904}`, map[string]string{"details.leaveCode": "4611686018427387904 = UNKNOWN_4611686018427387904"}},
		{"no mask", 41, `{"leaveCode":-7}`, map[string]string{"details.leaveCode": "-7"}},
		{"a mask beyond 64 bits", 41, `{"leaveCode":99999999999999999999}`, map[string]string{"details.leaveCode": "99999999999999999999"}},
		{"not stated is not normal", 40, `{"status":null}`, map[string]string{"details.status": "null"}},
		{"abnormal", 40, `{"status":3}`, map[string]string{"details.status": "3 = abnormal"}},
		{"an error of the uploader", 1, `{"module":1,"errorCode":32}`, map[string]string{
			"details.module": "1 = uploader", "details.errorCode": "32 = wrong configuration of the third-party cloud storage"}},
		{"the same number of the service", 1, `{"errorCode":"50","module":"2"}`, map[string]string{
			"details.module": "2 = cloud recording service", "details.errorCode": "50 = timeout uploading the recorded files"}},
		{"the same number of another module", 1, `{"module":0,"errorCode":32}`, map[string]string{"details.module": "0 = recorder", "details.errorCode": "32"}},
		{"a warning of the recorder", 2, `{"module":0,"warnCode":31}`, map[string]string{"details.module": "0 = recorder", "details.warnCode": "31"}},
		{"progress", 33, `{"progress":4750}`, map[string]string{"details.progress": "4750 = 47.50 %"}},
		{"0 is receiving", 43, `{"streamUid":0,"state":0,"utcMs":"1619172871089"}`, map[string]string{
			"details.streamUid": "0", "details.state": "0 = receiving", "details.utcMs": "1619172871089 = 2021-04-23T10:14:31.089Z"}},
		{"the field's name of 2019", 11, `{"leaveStatus":1}`, map[string]string{"details.leaveStatus": "1 = abnormal"}},
		{"times in seconds", 112, `{"createTs":1658112464,"updateTs":0}`, map[string]string{"details.createTs": "1658112464 = 2022-07-18T02:47:44Z", "details.updateTs": "0"}},
		{"files", 31, `{"fileList":[{"fileName":"a.m3u8","sliceStartTime":1619172871089},null,["b"]]}`, map[string]string{
			"details.fileList[0].fileName": "a.m3u8", "details.fileList[0].sliceStartTime": "1619172871089 = 2021-04-23T10:14:31.089Z",
			"details.fileList[1]": "null", "details.fileList[2][0]": "b"}},
		{"new members", 30, `{"later":{"status":1}}`, map[string]string{"details.later.status": "1"}},
		{"a credential", 100, `{"rtmpUrl":"rtmp://example.agora.io/live/key","status":"onhold"}`, map[string]string{"details.rtmpUrl": ncs.Hidden, "details.status": "onhold = paused"}},
		{"what would command a terminal", 71, `{"details":"a\nb\u001b[2Jc","\u001bx":1}`, map[string]string{"details.details": "a b [2Jc", "details. x": "1"}},
		{"a code of another type", 47, `{"status":0}`, map[string]string{"details.status": "0"}},
		{"details that are none", 41, `"x"`, map[string]string{"details": "x"}},
		{"too deep", 41, strings.Repeat(`{"a":`, 50) + "1" + strings.Repeat("}", 50), map[string]string{"details" + strings.Repeat(".a", 7): "..."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, detailsOf(t, test.eventType, test.details))
		})
	}
}

func TestFactsAreBounded(t *testing.T) {
	t.Parallel()
	many := detailsOf(t, 31, `{"fileList":["`+strings.Repeat(`a","`, 5000)+`"]}`)
	require.Len(t, many, 100)
	require.Equal(t, "and more", many["..."])
	require.Less(t, len(detailsOf(t, 71, `{"details":"`+strings.Repeat("a", 100_000)+`"}`)["details.details"]), 300)
	require.Empty(t, parse(t, []byte(`{"noticeId":"n","productId":3,"eventType":41}`)).Facts())
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"3-41-recorder_leave.json":              "leaveCode 6 (SIG: the service got SIGINT, NO_USERS: nobody was in the channel)",
		"3-31-uploaded-composite-mp4.json":      "fileList (2), status 0 (normal)",
		"3-61-vod_triggered.json":               "",
		"3-100-rtmp_publish_status-onhold.json": "status onhold (paused)",
		"17-112-turns_finished.json":            "agent_id xxxx, name support_agent_001, channel xxxx, total_turn_count 250, is_truncated true, labels.campaign_id test_campaign, labels.customer_group vip, turns (1)",
	} {
		require.Equal(t, want, parse(t, sample(t, file)).Describe(), file)
	}
	require.NotContains(t, parse(t, sample(t, "10-3-live_stream_aborted.json")).Describe(), "streamKey", "it may be a credential")
	require.Empty(t, parse(t, []byte(`{"noticeId":"n","productId":3,"eventType":41}`)).Describe())
}

func TestCodes(t *testing.T) {
	t.Parallel()
	require.Contains(t, ncs.Builtin().Lookup(3, 41).Codes(), ncs.Fact{Field: "details.leaveCode", Value: "4", Meaning: "NO_USERS: nobody was in the channel"})
	require.Contains(t, ncs.Builtin().Lookup(3, 1).Codes(), ncs.Fact{Field: "details.errorCode beside details.module=2", Value: "50", Meaning: "timeout uploading the recorded files"})
	require.Empty(t, ncs.Builtin().Lookup(99, 1).Codes())
	for _, i := range ncs.Builtin().Types() { // no table is for a type that is not there, and none has a value twice
		seen := map[string]bool{}
		for _, c := range i.Codes() {
			require.NotEmpty(t, c.Meaning, "%v", c)
			require.False(t, seen[c.Field+"="+c.Value], "%s.%s %v", i.Product, i.Event, c)
			seen[c.Field+"="+c.Value] = true
		}
	}
}
