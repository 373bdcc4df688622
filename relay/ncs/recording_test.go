package ncs_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

func ms(v int64) time.Time { return time.UnixMilli(v).UTC() }

func vodStarted(videoID string) *ncs.VodStarted {
	d := new(ncs.VodStarted)
	d.AliVodInfo.VideoID = videoID
	return d
}

// detailsOf is what each sample of product 3 decodes to, and how it is described.
var detailsOf = []struct {
	file     string
	want     any
	describe string
}{
	{
		"3-1-cloud_recording_error.json",
		&ncs.CloudRecordingError{
			Module: ncs.ModuleUploader, Level: ncs.LevelFatal, Code: 32, Stat: 1, Message: "third-party cloud storage configuration error",
		},
		"cloud_recording_error: fatal, uploader 32 (wrong configuration of the third-party cloud storage): third-party cloud storage configuration error",
	},
	{
		"3-2-cloud_recording_warning.json", &ncs.CloudRecordingWarning{Module: ncs.ModuleUploader, Code: 31},
		"cloud_recording_warning: uploader 31 (a slice was uploaded again to the specified cloud storage)",
	},
	{
		"3-3-cloud_recording_status_update.json",
		&ncs.CloudRecordingStatusUpdate{Status: 5, Mode: 1, Files: ncs.Files{{Name: "d12fdce9024d37862a8f3a88e387c817_Testing2.m3u8"}}},
		"cloud_recording_status_update: recording, first file uploaded",
	},
	{
		"3-4-cloud_recording_file_infos.json", &ncs.CloudRecordingFileInfos{Files: ncs.Files{{Name: "d12fdce9024d37862a8f3a88e387c817_Testing2.m3u8"}}},
		"cloud_recording_file_infos: d12fdce9024d37862a8f3a88e387c817_Testing2.m3u8",
	},
	{"3-11-session_exit.json", &ncs.SessionExit{Status: ncs.ExitNormal}, "session_exit: normal"},
	{"3-11-session_exit-abnormal.json", &ncs.SessionExit{Status: ncs.ExitAbnormal}, "session_exit: abnormal"},
	{"3-12-session_failover.json", &ncs.SessionFailover{NewUID: "726519823"}, "session_failover: new uid 726519823"},
	{"3-30-uploader_started.json", &ncs.UploaderStarted{Status: 0}, "uploader_started: normal"},
	{
		"3-31-uploaded-individual.json",
		&ncs.Uploaded{Files: ncs.Files{
			{Name: "xxx.m3u8", TrackType: ncs.TrackAudio, UID: "57297", Playable: true, Start: ms(1619172871089)},
			{Name: "xxx.m3u8", TrackType: ncs.TrackAudio, UID: "10230", Playable: true, Start: ms(1619172871099)},
		}},
		"uploaded: normal, 2 files",
	},
	{
		"3-31-uploaded-composite-mp4.json",
		&ncs.Uploaded{Files: ncs.Files{
			{Name: "xxx.mp4", TrackType: ncs.TrackAudioAndVideo, UID: "0", MixedAllUser: true, Playable: true, Start: ms(1619172632080)},
			{Name: "xxx.m3u8", TrackType: ncs.TrackAudioAndVideo, UID: "0", MixedAllUser: true, Playable: true, Start: ms(1619172632080)},
		}},
		"uploaded: normal, 2 files",
	},
	{"3-31-uploaded-webpage.json", &ncs.Uploaded{}, "uploaded: normal"},
	{
		"3-31-uploaded-raw-recording.json",
		&ncs.Uploaded{Files: ncs.Files{{
			Name:      "d12fdce9024d37862a8f3a88e387c817_Testing2__uid_s_57297__uid_e_h264.m3u8",
			TrackType: ncs.TrackAudioAndVideo, UID: "57297", Playable: true, Start: ms(1619172871089),
		}}},
		"uploaded: normal, d12fdce9024d37862a8f3a88e387c817_Testing2__uid_s_57297__uid_e_h264.m3u8",
	},
	{
		"3-32-backuped-composite-no-mp4.json",
		&ncs.Backuped{Files: ncs.Files{
			{Name: "xxx.m3u8", TrackType: ncs.TrackAudioAndVideo, UID: "0", MixedAllUser: true, Playable: true, Start: ms(1619170461821)},
		}},
		"backuped: normal, xxx.m3u8",
	},
	{"3-32-backuped-webpage.json", &ncs.Backuped{}, "backuped: normal"},
	{"3-33-uploading_progress-partial.json", &ncs.UploadingProgress{Progress: 5000}, "uploading_progress: 50.00 %"},
	{"3-40-recorder_started.json", &ncs.RecorderStarted{Status: 0}, "recorder_started: normal"},
	{"3-40-recorder_started-legacy-1.2.json", &ncs.RecorderStarted{Status: 0}, "recorder_started: normal"},
	{"3-41-recorder_leave.json", &ncs.RecorderLeave{Code: ncs.LeaveSignal | ncs.LeaveNoUsers}, "recorder_leave: SIG, NO_USERS"},
	{"3-41-recorder_leave-24.json", &ncs.RecorderLeave{Code: 24}, "recorder_leave: TIMER_CATCH, CLIENT_LEAVE"},
	{
		"3-42-recorder_slice_start.json",
		&ncs.RecorderSliceStart{
			Start: ms(1619172871089), Discontinue: ms(1619172871089), MixedAllUser: true, StreamUID: "0", TrackType: ncs.TrackAudioAndVideo,
		},
		"recorder_slice_start: uid 0",
	},
	{
		"3-42-recorder_slice_start-resumed.json",
		&ncs.RecorderSliceStart{Start: ms(1619172931089), Discontinue: ms(1619172911089), StreamUID: "57297", TrackType: ncs.TrackAudio},
		"recorder_slice_start: uid 57297, after a gap of 20s",
	},
	{
		"3-43-recorder_audio_stream_state_changed.json",
		&ncs.RecorderAudioStreamStateChanged{StreamUID: "57297", State: ncs.Receiving, At: ms(1619172871089)},
		"recorder_audio_stream_state_changed: uid 57297, receiving",
	},
	{
		"3-43-recorder_audio_stream_state_changed-utcMs.json",
		&ncs.RecorderAudioStreamStateChanged{StreamUID: "57297", State: ncs.NotReceiving, At: ms(1619172981089)},
		"recorder_audio_stream_state_changed: uid 57297, not receiving",
	},
	{
		"3-44-recorder_video_stream_state_changed.json",
		&ncs.RecorderVideoStreamStateChanged{StreamUID: "57297", State: ncs.NotReceiving, At: ms(1619172971089)},
		"recorder_video_stream_state_changed: uid 57297, not receiving",
	},
	{
		"3-44-recorder_video_stream_state_changed-utcMs.json",
		&ncs.RecorderVideoStreamStateChanged{StreamUID: "0", State: ncs.Receiving, At: ms(1619172991089)},
		"recorder_video_stream_state_changed: uid 0, receiving",
	},
	{
		"3-45-recorder_snapshot_file.json",
		&ncs.RecorderSnapshotFile{FileName: "dir1/dir2/d12fdce9024d37862a8f3a88e387c817_Testing2__uid_s_57297__uid_e_video_20210730093300123.jpg"},
		"recorder_snapshot_file: dir1/dir2/d12fdce9024d37862a8f3a88e387c817_Testing2__uid_s_57297__uid_e_video_20210730093300123.jpg",
	},
	{"3-60-vod_started.json", vodStarted("93ab850b4f6f44eab54b6e91d24d81d4"), "vod_started: video 93ab850b4f6f44eab54b6e91d24d81d4"},
	{"3-61-vod_triggered.json", &ncs.VodTriggered{}, "vod_triggered"},
	{"3-70-web_recorder_started.json", &ncs.WebRecorderStarted{Start: ms(1627613641393)}, "web_recorder_started"},
	{
		"3-71-web_recorder_stopped.json",
		&ncs.WebRecorderStopped{
			Code: ncs.StopMaxRecordingHour, Message: "max_recording_hour", Details: "max recording hour is 4", Files: ncs.Files{
				{Name: "test_p1627613634_www.m3u8", Start: ms(1627613641393)}, {Name: "test_p1627613634_www_0.mp4", Start: ms(1627613641393)},
			},
		},
		"web_recorder_stopped: max_recording_hour, max recording hour is 4",
	},
	{
		"3-71-web_recorder_stopped-ok.json",
		&ncs.WebRecorderStopped{Code: ncs.StopOK, Message: "ok", Files: ncs.Files{{Name: "test_p1627613634_www.m3u8", Start: ms(1627613641393)}}},
		"web_recorder_stopped: ok",
	},
	{"3-72-web_recorder_capability_limit.json", &ncs.WebRecorderCapabilityLimit{LimitType: ncs.LimitResolution}, "web_recorder_capability_limit: resolution"},
	{"3-73-web_recorder_reload.json", &ncs.WebRecorderReload{Reason: ncs.ReloadPageLoadTimeout}, "web_recorder_reload: page_load_timeout"},
	{"3-80-transcoder_started.json", &ncs.TranscoderStarted{}, "transcoder_started"},
	{
		"3-81-transcoder_completed.json",
		&ncs.TranscoderCompleted{Result: "partial_success", Users: []ncs.TranscodedUser{
			{UID: "57297", Result: "success", Files: ncs.Files{{Name: "xxx.mp4"}}}, {UID: "10230", Result: "fail", Files: ncs.Files{}},
		}},
		"transcoder_completed: partly succeeded, 2 users",
	},
	{
		"3-81-transcoder_completed-flat.json",
		&ncs.TranscoderCompleted{Result: "all_success", Users: []ncs.TranscodedUser{{UID: "57297", Files: ncs.Files{{Name: "xxx.mp4"}}}}},
		"transcoder_completed: succeeded, 1 user",
	},
	{
		"3-90-download_failed.json",
		&ncs.DownloadFailed{Vendor: 1, Region: 3, Bucket: "example-bucket", FileNames: ncs.FileNames{"a.m3u8", "a_20210730093300123.ts"}},
		"download_failed: 2 files from bucket example-bucket",
	},
	{
		"3-100-rtmp_publish_status-onhold.json", &ncs.RTMPPublishStatus{URL: "rtmp://example.agora.io/live/show68", Status: ncs.RTMPOnHold},
		"rtmp_publish_status: onhold",
	},
	{
		"3-1001-postpone_transcode_final_result.json",
		&ncs.PostponeTranscodeFinalResult{Result: "total_success", Files: ncs.Files{{Name: "xxx.mp4"}}},
		"postpone_transcode_final_result: succeeded, xxx.mp4",
	},
	{
		"3-1001-postpone_transcode_final_result-failed.json", &ncs.PostponeTranscodeFinalResult{Result: "failed", Files: ncs.Files{}},
		"postpone_transcode_final_result: failed",
	},
	{
		"3-110-cloud_transcoder_started.json",
		&ncs.CloudTranscoderStarted{
			State: "Transcoder success", Created: ms(1658112464000), Transcoder: ncs.Transcoder{
				Inputs: []ncs.TranscoderStream{
					{Channel: "test01", UID: "123", Audio: true}, {Channel: "test01", UID: "456", Audio: true, Video: true},
				},
				Outputs:          []ncs.TranscoderStream{{Channel: "test01", UID: "1000", Audio: true, Video: true}},
				UserConfigDetail: "{XXXX}",
			},
		},
		"cloud_transcoder_started: Transcoder success",
	},
	{
		"3-111-cloud_transcoder_stopped.json",
		&ncs.CloudTranscoderStopped{StopReason: "Stop request", Created: ms(1658112464000), Updated: ms(1658112464000)},
		"cloud_transcoder_stopped: Stop request",
	},
	{
		"3-112-cloud_transcoder_status.json",
		&ncs.CloudTranscoderStatus{State: "running", Created: ms(1658112464000), Updated: ms(1658112464000)},
		"cloud_transcoder_status: running",
	},
	{
		"3-113-cloud_transcoder_updated.json",
		&ncs.CloudTranscoderUpdated{
			State: "running", Created: ms(1658112464000), Updated: ms(1658112464000), Transcoder: ncs.Transcoder{
				Inputs: []ncs.TranscoderStream{
					{Channel: "test01", UID: "123", Audio: true}, {Channel: "test01", UID: "456", Audio: true, Video: true},
				},
				Outputs:          []ncs.TranscoderStream{{Channel: "test01", UID: "1000", Audio: true, Video: true}},
				UserConfigDetail: "json_string",
			},
		},
		"cloud_transcoder_updated: running",
	},
}

func TestRecordingDetails(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for _, test := range detailsOf {
		n := parse(t, sample(t, test.file))
		seen[n.EventType] = true
		r, err := n.Recording()
		require.NoError(t, err, test.file)
		require.Empty(t, cmp.Diff(test.want, r.Details), test.file)
		require.Equal(t, n.Info.Event, r.MsgName, test.file)
		require.Equal(t, test.describe, n.Describe(), test.file)
	}
	// The 27 types of the callback page and the 4 of Cloud Transcoding, all in structs of their own.
	require.Len(t, seen, 31)
	for name, body := range samples(t) {
		n := parse(t, body)
		r, err := n.Recording()
		if n.Info.Product != "cloud_recording" {
			require.ErrorIs(t, err, ncs.ErrNotRecording, name)
			require.Equal(t, n.Info.Event, n.Describe(), name)
			continue
		}
		require.NoError(t, err, name)
		require.NotNil(t, r.Details, name)
		require.True(t, seen[n.EventType], name)
		require.True(t, strings.HasSuffix(strings.ToLower(fmt.Sprintf("%T", r.Details)), strings.ReplaceAll(n.Info.Event, "_", "")), name)
	}
}

func TestRecordingPayload(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		file string
		want ncs.Recording
	}{
		{"3-40-recorder_started.json", ncs.Recording{
			Cname: "Testing2", UID: "1001", SID: "d12fdce9024d37862a8f3a88e387c817", Sequence: 1, Sent: ms(1596555306257),
			ServiceType: ncs.ServiceRecorder, MsgName: "recorder_started", Details: &ncs.RecorderStarted{},
		}},
		{"3-40-recorder_started-legacy-1.2.json", ncs.Recording{ // sequence is a string there
			Cname: "Testing2", UID: "1001", SID: "d12fdce9024d37862a8f3a88e387c817", Sequence: 1, Sent: ms(1560408533099),
			ServiceType: ncs.ServiceRecording, MsgName: "recorder_started", Details: &ncs.RecorderStarted{},
		}},
		{"3-112-cloud_transcoder_status.json", ncs.Recording{
			TaskID: "1234", InstanceID: "123", Sequence: 123, Sent: ms(1656573243385), ServiceType: ncs.NotStated, Scene: ncs.SceneCloudTranscoder,
			MsgName: "cloud_transcoder_status", Details: &ncs.CloudTranscoderStatus{State: "running", Created: ms(1658112464000), Updated: ms(1658112464000)},
		}},
	} {
		r, err := parse(t, sample(t, test.file)).Recording()
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(&test.want, r), test.file)
	}
	r, err := parse(t, sample(t, "3-31-uploaded-raw-recording.json")).Recording()
	require.NoError(t, err)
	require.Equal(t, ncs.SceneRawRecording, r.Scene)
}

// decodeDetails decodes details of an event type as they might come.
func decodeDetails(t testing.TB, eventType int, details string) (*ncs.Recording, error) {
	t.Helper()
	return parse(t, fmt.Appendf(nil, `{"noticeId":"n","productId":3,"eventType":%d,"payload":{"details":%s}}`, eventType, details)).Recording()
}

func TestRecordingTolerates(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		eventType int
		details   string
		want      any
	}{
		{"numbers in quotes", 41, `{"leaveCode":"6"}`, &ncs.RecorderLeave{Code: 6}},
		{"numbers in quotes, several", 1, `{"module":"2","errorLevel":"4","errorCode":"50","stat":"0","errorMsg":"m"}`, &ncs.CloudRecordingError{Module: 2, Level: 4, Code: 50, Message: "m"}},
		{"ids as numbers", 43, `{"streamUid":0,"state":1,"UtcMs":"1619172871089"}`, &ncs.RecorderAudioStreamStateChanged{StreamUID: "0", State: 1, At: ms(1619172871089)}},
		{"ids as strings", 12, `{"newUid":"726519823"}`, &ncs.SessionFailover{NewUID: "726519823"}},
		{"ids beyond a float", 12, `{"newUid":9007199254740993}`, &ncs.SessionFailover{NewUID: "9007199254740993"}},
		{"both spellings of the time", 43, `{"UtcMs":1619172871089,"utcMs":1619172871089}`, &ncs.RecorderAudioStreamStateChanged{State: ncs.NotStated, At: ms(1619172871089)}},
		{"leaveStatus", 11, `{"leaveStatus":1}`, &ncs.SessionExit{Status: 1}},
		{"exitStatus before leaveStatus", 11, `{"leaveStatus":1,"exitStatus":0}`, &ncs.SessionExit{Status: 0}},
		{"neither status", 11, `{}`, &ncs.SessionExit{Status: ncs.NotStated}},
		{"status of a push as a number", 100, `{"status":3}`, &ncs.RTMPPublishStatus{Status: "3"}},
		{"a list of names", 1001, `{"fileList":["a.mp4","b.mp4"]}`, &ncs.PostponeTranscodeFinalResult{Files: ncs.Files{{Name: "a.mp4"}, {Name: "b.mp4"}}}},
		{"a list in event 4", 4, `{"fileList":[{"filename":"a.m3u8"}]}`, &ncs.CloudRecordingFileInfos{Files: ncs.Files{{Name: "a.m3u8"}}}},
		{"one object in place of a list", 31, `{"fileList":{"fileName":"a"}}`, &ncs.Uploaded{Status: ncs.NotStated, Files: ncs.Files{{Name: "a"}}}},
		{"a name in place of a list", 31, `{"status":0,"fileList":"a.m3u8"}`, &ncs.Uploaded{Files: ncs.Files{{Name: "a.m3u8"}}}},
		{"no name in place of a list", 31, `{"status":0,"fileList":""}`, &ncs.Uploaded{}},
		{"null for everything", 71, `{"code":null,"message":null,"details":null,"fileList":null}`, &ncs.WebRecorderStopped{Code: ncs.NotStated}},
		{"null in a list", 71, `{"code":0,"fileList":[null,{"fileName":null}]}`, &ncs.WebRecorderStopped{Files: ncs.Files{{}, {}}}},
		{"a blank behind the message", 71, `{"code":6,"message":"recorder_error "}`, &ncs.WebRecorderStopped{Code: ncs.StopRecorderError, Message: "recorder_error "}},
		{"stranded upload", 31, `{"status":0,"uploadingStatus":"stranded"}`, &ncs.Uploaded{UploadingStatus: "stranded"}},
		{"page load time", 70, `{"recorderStartTime":1627613641393,"pageLoadSuccessTime":1627613642}`, &ncs.WebRecorderStarted{Start: ms(1627613641393), PageLoaded: ms(1627613642000)}},
		{"times in seconds", 112, `{"state":"failed","createTs":1658112464,"updateTs":0}`, &ncs.CloudTranscoderStatus{State: "failed", Created: ms(1658112464000)}},
		{"names as a list", 90, `{"fileName":["a","b"]}`, &ncs.DownloadFailed{Vendor: ncs.NotStated, Region: ncs.NotStated, FileNames: ncs.FileNames{"a", "b"}}},
		{"filename, and empty names", 90, `{"filename":";a;;b;"}`, &ncs.DownloadFailed{Vendor: ncs.NotStated, Region: ncs.NotStated, FileNames: ncs.FileNames{"a", "b"}}},
		{"a flat user beside others", 81, `{"uids":[{"uid":1,"result":"success","fileList":["a"]}],"uid":2,"fileList":["b"]}`, &ncs.TranscoderCompleted{Users: []ncs.TranscodedUser{{UID: "1", Result: "success", Files: ncs.Files{{Name: "a"}}}, {UID: "2", Files: ncs.Files{{Name: "b"}}}}}},
		{"new members", 30, `{"status":0,"later":{"status":1}}`, &ncs.UploaderStarted{Status: 0}},
		{"no details", 40, `null`, &ncs.RecorderStarted{Status: ncs.NotStated}},
		{"details of another type", 40, `"x"`, &ncs.RecorderStarted{Status: ncs.NotStated}},
		{"a type whose details are not published", 34, `{"msgName":"x"}`, nil},
		{"an unknown type", 999, `{"a":1}`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, err := decodeDetails(t, test.eventType, test.details)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(test.want, r.Details))
		})
	}
}

func TestRecordingRefusesOtherTypes(t *testing.T) {
	t.Parallel()
	for eventType, details := range map[int]string{
		41: `{"leaveCode":{}}`, 40: `{"status":"connecting"}`, 33: `{"progress":99999999999999999999}`, 31: `{"fileList":[[]]}`,
		42: `{"mixedAllUser":"yes"}`, 12: `{"newUid":[1]}`, 11: `{"exitStatus":true}`, 43: `{"UtcMs":"yesterday"}`, 81: `{"uids":{}}`, 90: `{"fileName":{}}`,
	} {
		_, err := decodeDetails(t, eventType, details)
		require.ErrorContains(t, err, "details of "+ncs.Lookup(3, eventType).Event, details)
	}
	n := parse(t, []byte(`{"noticeId":"n","productId":3,"eventType":40,"payload":{"sequence":"many"}}`))
	_, err := n.Recording()
	require.ErrorContains(t, err, "payload of recorder_started")
	require.Equal(t, "recorder_started", n.Describe())
}

// Nothing that is not stated must look like a normal status or a failed initialisation.
func TestAbsentCodesAreNotZero(t *testing.T) {
	t.Parallel()
	for _, i := range ncs.Catalogue() {
		if i.ProductID != 3 {
			continue
		}
		r, err := decodeDetails(t, i.EventType, `{}`)
		require.NoError(t, err)
		require.EqualValues(t, ncs.NotStated, r.Sequence)
		require.EqualValues(t, ncs.NotStated, r.ServiceType)
		if r.Details == nil {
			continue
		}
		details := reflect.ValueOf(r.Details).Elem()
		for f, v := range details.Fields() {
			require.False(t, v.CanInt() && v.IsZero(), "%s.%s", i.Event, f.Name)
		}
	}
}

func TestDescribeIsOneLineWithoutURLs(t *testing.T) {
	t.Parallel()
	body := edit(t, sample(t, "3-71-web_recorder_stopped.json"), "payload.details.details", `"a\nb\u001b[2Jc"`)
	require.Equal(t, "web_recorder_stopped: max_recording_hour, a b [2Jc", parse(t, body).Describe())
	for name, body := range samples(t) {
		require.NotContains(t, parse(t, body).Describe(), "rtmp://", name)
	}
}

func TestLeaveCodeReasons(t *testing.T) {
	t.Parallel()
	for code, want := range map[ncs.LeaveCode][]string{
		0: {"INIT"}, 2: {"SIG"}, 4: {"NO_USERS"}, 6: {"SIG", "NO_USERS"}, 24: {"TIMER_CATCH", "CLIENT_LEAVE"},
		30: {"SIG", "NO_USERS", "TIMER_CATCH", "CLIENT_LEAVE"}, 1: {"UNKNOWN_1"}, 35: {"SIG", "UNKNOWN_1", "UNKNOWN_32"},
		1 << 62: {"UNKNOWN_4611686018427387904"}, ncs.NotStated: nil, -7: nil,
	} {
		require.Equal(t, want, code.Reasons(), int(code))
	}
}

func TestCodeNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code fmt.Stringer
		want string
	}{
		{ncs.Module(0), "recorder"},
		{ncs.Module(1), "uploader"},
		{ncs.Module(2), "cloud recording service"},
		{ncs.Module(6), "web page recording"},
		{ncs.Module(5), "unknown (5)"},
		{ncs.Module(ncs.NotStated), "not stated"},
		{ncs.ServiceType(0), "cloud recording service"},
		{ncs.ServiceType(1), "recorder"},
		{ncs.ServiceType(2), "uploader"},
		{ncs.ServiceType(3), "content recognition"},
		{ncs.ServiceType(4), "extension services"},
		{ncs.ServiceType(6), "web page recording"},
		{ncs.ServiceType(8), "download"},
		{ncs.ErrorLevel(1), "debug"},
		{ncs.ErrorLevel(2), "minor"},
		{ncs.ErrorLevel(3), "medium"},
		{ncs.ErrorLevel(4), "major"},
		{ncs.ErrorLevel(5), "fatal"},
		{ncs.Status(0), "normal"},
		{ncs.Status(3), "abnormal (3)"},
		{ncs.ExitStatus(0), "normal"},
		{ncs.ExitStatus(1), "abnormal"},
		{ncs.ServiceStatus(0), "not started"},
		{ncs.ServiceStatus(1), "initialised"},
		{ncs.ServiceStatus(2), "recorder starting"},
		{ncs.ServiceStatus(3), "uploader ready"},
		{ncs.ServiceStatus(4), "recorder ready"},
		{ncs.ServiceStatus(5), "recording, first file uploaded"},
		{ncs.ServiceStatus(6), "recording stopped"},
		{ncs.ServiceStatus(7), "service stopped"},
		{ncs.ServiceStatus(8), "ready to exit"},
		{ncs.ServiceStatus(9), "unknown (9)"},
		{ncs.ServiceStatus(20), "exited abnormally"},
		{ncs.StreamState(0), "receiving"},
		{ncs.StreamState(1), "not receiving"},
		{ncs.StopCode(0), "ok"},
		{ncs.StopCode(1), "max_recording_hour"},
		{ncs.StopCode(2), "capability_limit"},
		{ncs.StopCode(3), "start_engine_failed"},
		{ncs.StopCode(4), "page_load_timeout"},
		{ncs.StopCode(5), "access_url_failed"},
		{ncs.StopCode(6), "recorder_error"},
		{ncs.RecordingMode(0), "0 (individual; on the Chinese page composite)"},
		{ncs.RecordingMode(1), "1 (composite; on the Chinese page individual)"},
		{ncs.RecordingMode(2), "unknown (2)"},
		{ncs.Kind(1), "v1"},
		{ncs.Kind(2), "v2"},
	} {
		require.Equal(t, test.want, test.code.String(), "%T(%d)", test.code, test.code)
	}

	for code, want := range map[ncs.ErrorCode]string{
		32: "wrong configuration of the third-party cloud storage", 47: "a recorded file could not be uploaded",
		51: "the uploader could not process the recorded files", 50: "", 52: "",
	} {
		require.Equal(t, want, code.Meaning(ncs.ModuleUploader), int(code))
	}
	for code, want := range map[ncs.ErrorCode]string{50: "timeout uploading the recorded files", 52: "timeout starting the cloud recording service", 47: ""} {
		require.Equal(t, want, code.Meaning(ncs.ModuleService), int(code))
	}
	require.Empty(t, ncs.ErrorCode(32).Meaning(ncs.ModuleService), "32 is a code of the uploader")
	require.Empty(t, ncs.ErrorCode(32).Meaning(ncs.ModuleRecorder))
	require.Equal(t, "a slice was uploaded again to the specified cloud storage", ncs.WarnCode(31).Meaning(ncs.ModuleUploader))
	require.Equal(t, "a slice was uploaded again to Agora Cloud Backup", ncs.WarnCode(32).Meaning(ncs.ModuleUploader))
	require.Empty(t, ncs.WarnCode(31).Meaning(ncs.ModuleRecorder))
}

func TestResultOutcomes(t *testing.T) {
	t.Parallel()
	for result, want := range map[ncs.Result]ncs.Outcome{
		"all_success": ncs.Succeeded, "total_success": ncs.Succeeded, "success": ncs.Succeeded, "partial_success": ncs.PartlySucceeded,
		"fail": ncs.Failed, "failed": ncs.Failed, "": ncs.UnknownOutcome, "other": ncs.UnknownOutcome,
	} {
		require.Equal(t, want, result.Outcome(), result)
	}
}
