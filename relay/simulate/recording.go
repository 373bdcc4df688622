package simulate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// Modules of Cloud Recording (serviceType). Source: callback page.
const (
	service     = 0
	recorderSvc = 1
	uploader    = 2
	webRecorder = 6
)

const productRecording = 3

// recorder writes the events of one recording. Its clock is the recording's, not that of sending.
type recorder struct {
	rng   *rand.Rand
	e     Entity
	clock time.Time

	sid, cname string
	uid        string // of the recording client; a failover brings a new one
	sequence   int
	users      []string // whose streams are recorded; "0" = all, mixed
}

// recording writes a whole recording: half of them composite, the others individual or of a web page.
func recording(rng *rand.Rand, i int, at time.Time, failoverRate float64) Entity {
	sid := hexID(rng)
	r := &recorder{
		rng: rng, e: Entity{Name: sid}, clock: at,
		sid: sid, cname: fmt.Sprintf("class-%d", i+1), uid: strconv.Itoa(900_000 + i), users: []string{"0"},
	}
	failover := chance(rng, failoverRate)
	switch rng.IntN(4) {
	case 0:
		r.users = []string{strconv.Itoa(10_000 + rng.IntN(40_000)), strconv.Itoa(50_000 + rng.IntN(40_000))}
		r.play(failover)
	case 1:
		r.playWebPage(failover)
	default:
		r.play(failover)
	}
	return r.e
}

func (r *recorder) play(failover bool) {
	r.startRecorder()
	r.add(4, service, "cloud_recording_file_infos", "fileList", r.file(".m3u8"))
	minutes := 1 + r.rng.IntN(4)
	for minute := range minutes {
		r.pass(time.Minute - 10*time.Second)
		if failover && minute == minutes/2 {
			r.failover()
			r.startRecorder()
		}
		r.streamChange(1)
		r.streamChange(0)
		r.incidents()
		r.progress(9000 + 100*min(minute, 9))
	}
	leaveCode := 24 // the recorder was told to leave
	if chance(r.rng, 0.2) {
		leaveCode = 6 // nobody was left in the channel
	}
	r.add(41, recorderSvc, "recorder_leave", "leaveCode", leaveCode)
	r.finish(r.fileList())
}

func (r *recorder) startRecorder() {
	r.addDetails(40, recorderSvc, object("status", 0, "msgName", "recorder_started")) // in the order of a captured body
	r.add(30, uploader, "uploader_started", "status", 0)
	for _, user := range r.users {
		r.add(44, recorderSvc, "recorder_video_stream_state_changed", "streamUid", user, "state", 0, "UtcMs", r.ms())
		r.add(43, recorderSvc, "recorder_audio_stream_state_changed", "streamUid", user, "state", 0, "UtcMs", r.ms())
		r.add(42, recorderSvc, "recorder_slice_start", "startUtcMs", r.ms(), "discontinueUtcMs", r.ms(),
			"mixedAllUser", r.mixed(), "streamUid", user, "trackType", "audio_and_video")
	}
}

func (r *recorder) playWebPage(failover bool) {
	started := r.ms()
	r.add(70, webRecorder, "web_recorder_started", "recorderStartTime", started)
	r.add(30, uploader, "uploader_started", "status", 0)
	publishes := chance(r.rng, 0.3)
	if publishes {
		r.publish("connecting")
		r.publish("publishing")
	}
	r.add(4, service, "cloud_recording_file_infos", "fileList", r.file(".m3u8"))
	minutes := 1 + r.rng.IntN(4)
	for minute := range minutes {
		r.pass(time.Minute - 10*time.Second)
		if failover && minute == minutes/2 {
			r.failover()
			r.add(70, webRecorder, "web_recorder_started", "recorderStartTime", r.ms())
			r.add(30, uploader, "uploader_started", "status", 0)
		}
		if chance(r.rng, 0.1) {
			r.add(73, webRecorder, "web_recorder_reload", "reason", "audio_silence")
		}
		r.incidents()
		r.progress(9000 + 100*min(minute, 9))
	}
	if publishes {
		r.publish("disconnected")
	}
	r.add(71, webRecorder, "web_recorder_stopped", "code", 0, "message", "ok", "details", "",
		"fileList", []json.RawMessage{object("fileName", r.file(".m3u8"), "sliceStartTime", started)})
	r.finish(nil)
}

func (r *recorder) publish(status string) {
	r.add(100, webRecorder, "rtmp_publish_status", "rtmpUrl", "rtmp://live.example.com/app/"+r.cname, "status", status)
}

// failover lets another recorder take over: it joins with a uid of its own and counts its notifications from 0 again,
// so that some of them share sid, type and sequence with those of the first recorder and still are other events.
func (r *recorder) failover() {
	newUID := r.rng.Uint32()>>1 | 1<<20
	r.add(12, service, "session_failover", "newUid", newUID)
	r.pass(time.Duration(10+r.rng.IntN(80)) * time.Second)
	r.uid, r.sequence = strconv.FormatUint(uint64(newUID), 10), 0
}

func (r *recorder) streamChange(state int) {
	user := r.users[r.rng.IntN(len(r.users))]
	if chance(r.rng, 0.5) {
		r.add(43, recorderSvc, "recorder_audio_stream_state_changed", "streamUid", user, "state", state, "UtcMs", r.ms())
	} else {
		r.add(44, recorderSvc, "recorder_video_stream_state_changed", "streamUid", user, "state", state, "UtcMs", r.ms())
	}
}

// incidents are what goes wrong now and then.
func (r *recorder) incidents() {
	switch r.rng.IntN(30) {
	case 0:
		r.add(1, service, "cloud_recording_error", "module", 1, "errorLevel", 2+r.rng.IntN(4), "errorCode", 47, "stat", 1,
			"errorMsg", "file upload failed")
	case 1:
		r.add(2, service, "cloud_recording_warning", "module", 1, "warnCode", 31)
	case 2:
		r.add(3, service, "cloud_recording_status_update", "status", 5, "recordingMode", 1, "fileList", r.file(".m3u8"))
	}
}

func (r *recorder) progress(share int) {
	r.add(33, uploader, "uploading_progress", "progress", share)
}

// finish ends the recording. That the upload ends after the session was observed as well as the order documented.
func (r *recorder) finish(files []json.RawMessage) {
	exit := func() { r.add(11, service, "session_exit", "exitStatus", 0) }
	exitFirst := chance(r.rng, 0.3)
	if exitFirst {
		exit()
	}
	r.progress(10_000)
	eventType, name := 31, "uploaded"
	if chance(r.rng, 0.1) {
		eventType, name = 32, "backuped"
	}
	if files == nil {
		r.add(eventType, uploader, name, "status", 0)
	} else {
		r.add(eventType, uploader, name, "fileList", files, "status", 0)
	}
	if !exitFirst {
		exit()
	}
}

func (r *recorder) fileList() []json.RawMessage {
	suffixes := []string{".m3u8"}
	if r.mixed() && chance(r.rng, 0.5) {
		suffixes = []string{"_0.mp4", ".m3u8"}
	}
	var files []json.RawMessage
	for _, user := range r.users {
		for _, suffix := range suffixes {
			if !r.mixed() {
				suffix = "__uid_s_" + user + "__uid_e_av" + suffix
			}
			files = append(files, object("fileName", r.file(suffix), "trackType", "audio_and_video", "uid", user,
				"mixedAllUser", r.mixed(), "isPlayable", true, "sliceStartTime", r.ms()))
		}
	}
	return files
}

// mixed reports whether all streams go into one file (composite mode).
func (r *recorder) mixed() bool { return r.users[0] == "0" }

func (r *recorder) file(suffix string) string { return r.sid + "_" + r.cname + suffix }

func (r *recorder) add(eventType, serviceType int, name string, details ...any) {
	r.addDetails(eventType, serviceType, object(append([]any{"msgName", name}, details...)...))
}

func (r *recorder) addDetails(eventType, serviceType int, details json.RawMessage) {
	payload := object("serviceType", serviceType, "uid", r.uid, "sequence", r.sequence, "sendts", r.ms(), "cname", r.cname,
		"details", details, "sid", r.sid)
	r.e.Events = append(r.e.Events, newEvent(productRecording, eventType, hexID(r.rng), r.sid, payload))
	r.sequence++
	r.pass(between(r.rng, 20*time.Millisecond, 2*time.Second))
}

func (r *recorder) ms() int64 { return r.clock.UnixMilli() }

func (r *recorder) pass(d time.Duration) { r.clock = r.clock.Add(d) }
