package ncs

import "strconv"

// NotStated is the value of a code or number that an event's details do not have. It is not 0, because 0 means normal
// for a status and a failed initialisation for a leave code.
const NotStated = -1

// naming gives the name of a code, which stays visible as a number where nobody has published a name for it.
func naming[T ~int](code T, names map[T]string) string {
	if name, ok := names[code]; ok {
		return name
	}
	if code == NotStated {
		return "not stated"
	}
	return "unknown (" + strconv.Itoa(int(code)) + ")"
}

// Module is where an error or a warning occurred (events 1 and 2). Source: callback page, section
// 1 cloud_recording_error.
type Module int

// Modules.
const (
	ModuleRecorder    Module = 0
	ModuleUploader    Module = 1
	ModuleService     Module = 2
	ModuleWebRecorder Module = 6
)

var moduleNames = map[Module]string{
	ModuleRecorder:    "recorder",
	ModuleUploader:    "uploader",
	ModuleService:     "cloud recording service",
	ModuleWebRecorder: "web page recording",
}

func (m Module) String() string { return naming(m, moduleNames) }

// ServiceType is the part of Cloud Recording that sent an event. Source: callback page, "Fields in payload"; 3 only on the
// callback page of REST API 1.2.0 and older.
type ServiceType int

// Service types.
const (
	ServiceRecording          ServiceType = 0
	ServiceRecorder           ServiceType = 1
	ServiceUploader           ServiceType = 2
	ServiceContentRecognition ServiceType = 3
	ServiceExtension          ServiceType = 4
	ServiceWebRecorder        ServiceType = 6
	ServiceDownload           ServiceType = 8
)

var serviceTypeNames = map[ServiceType]string{
	ServiceRecording:          "cloud recording service",
	ServiceRecorder:           "recorder",
	ServiceUploader:           "uploader",
	ServiceContentRecognition: "content recognition",
	ServiceExtension:          "extension services",
	ServiceWebRecorder:        "web page recording",
	ServiceDownload:           "download",
}

func (s ServiceType) String() string { return naming(s, serviceTypeNames) }

// ErrorLevel is how bad an error is (event 1). Source: callback page, section 1.
type ErrorLevel int

// Error levels.
const (
	LevelDebug  ErrorLevel = 1
	LevelMinor  ErrorLevel = 2
	LevelMedium ErrorLevel = 3
	LevelMajor  ErrorLevel = 4
	LevelFatal  ErrorLevel = 5 // the recording may exit
)

var errorLevelNames = map[ErrorLevel]string{
	LevelDebug:  "debug",
	LevelMinor:  "minor",
	LevelMedium: "medium",
	LevelMajor:  "major",
	LevelFatal:  "fatal",
}

func (l ErrorLevel) String() string { return naming(l, errorLevelNames) }

// ErrorCode is the code of an error (event 1); what it means depends on the module.
type ErrorCode int

// Codes of two modules have published tables on the callback page, "Upload error codes" and "Error codes for the Agora
// Cloud Recording service". The page refers to the common errors of the REST API for the recorder and all other modules; nothing
// is said of module 6, web page recording, in particular.
var (
	uploadErrors = map[ErrorCode]string{
		32: "wrong configuration of the third-party cloud storage",
		47: "a recorded file could not be uploaded",
		51: "the uploader could not process the recorded files",
	}
	serviceErrors = map[ErrorCode]string{
		50: "timeout uploading the recorded files",
		52: "timeout starting the cloud recording service",
	}
)

// Meaning says what the code means when it comes from a module; "" where that is not published.
func (c ErrorCode) Meaning(m Module) string {
	switch m {
	case ModuleUploader:
		return uploadErrors[c]
	case ModuleService:
		return serviceErrors[c]
	}
	return ""
}

// WarnCode is the code of a warning (event 2); what it means depends on the module.
type WarnCode int

// uploadWarnings is the table of the callback page, "Upload warning codes". For the recorder the page refers to the
// warnings of on-premise recording.
var uploadWarnings = map[WarnCode]string{
	31: "a slice was uploaded again to the specified cloud storage",
	32: "a slice was uploaded again to Agora Cloud Backup",
}

// Meaning says what the code means when it comes from a module; "" where that is not published.
func (c WarnCode) Meaning(m Module) string {
	if m == ModuleUploader {
		return uploadWarnings[c]
	}
	return ""
}

// Status tells whether a step went well (stat of event 1, status of 30, 31, 32 and 40): 0 is normal, anything else is not.
type Status int

func (s Status) String() string {
	switch s {
	case 0:
		return "normal"
	case NotStated:
		return "not stated"
	}
	return "abnormal (" + strconv.Itoa(int(s)) + ")"
}

// ExitStatus is how a session ended (event 11). Source: callback page, section 11.
type ExitStatus int

// Exit statuses.
const (
	ExitNormal   ExitStatus = 0 // the recording has ended and its files are uploaded
	ExitAbnormal ExitStatus = 1 // for example because of a wrong parameter
)

var exitStatusNames = map[ExitStatus]string{ExitNormal: "normal", ExitAbnormal: "abnormal"}

func (s ExitStatus) String() string { return naming(s, exitStatusNames) }

// ServiceStatus is the state of the cloud recording service (event 3). Source: callback page, "Status codes for the Agora
// Cloud Recording service".
type ServiceStatus int

var serviceStatusNames = map[ServiceStatus]string{
	0:  "not started",
	1:  "initialised",
	2:  "recorder starting",
	3:  "uploader ready",
	4:  "recorder ready",
	5:  "recording, first file uploaded", // stays 5 while the recording runs
	6:  "recording stopped",
	7:  "service stopped",
	8:  "ready to exit",
	20: "exited abnormally",
}

func (s ServiceStatus) String() string { return naming(s, serviceStatusNames) }

// RecordingMode is individual or composite (event 3), but sources contradict each other on which is which: 0 is individual
// and 1 composite on the callback page, the opposite on the Chinese page; the page of REST API 1.2.0 knows composite only
// and calls it 0. It therefore has no names to compare with.
type RecordingMode int

func (m RecordingMode) String() string {
	switch m {
	case 0:
		return "0 (individual; on the Chinese page composite)"
	case 1:
		return "1 (composite; on the Chinese page individual)"
	}
	return naming(m, nil)
}

// LeaveCode tells why the recorder left its channel (event 41): a bit mask of reasons. Source: callback page, section 41. The
// pages of REST API 1.2.0 and of 2019 have other bits: 1 signal, 2 no users, 4 signal error, 8 left by the application.
type LeaveCode int

// Reasons of a LeaveCode.
const (
	LeaveSignal      LeaveCode = 2  // LEAVE_CODE_SIG: AgoraCoreService got SIGINT
	LeaveNoUsers     LeaveCode = 4  // LEAVE_CODE_NO_USERS: nobody was in the channel
	LeaveTimerCatch  LeaveCode = 8  // LEAVE_CODE_TIMER_CATCH: to be ignored
	LeaveClientLeave LeaveCode = 16 // LEAVE_CODE_CLIENT_LEAVE: the recorder called leaveChannel
)

var leaveReasons = []struct {
	bit  LeaveCode
	name string
}{
	{LeaveSignal, "SIG"},
	{LeaveNoUsers, "NO_USERS"},
	{LeaveTimerCatch, "TIMER_CATCH"},
	{LeaveClientLeave, "CLIENT_LEAVE"},
}

// Reasons lists the reasons in the code, without LEAVE_CODE_ in front. The code 0 is INIT: initialisation failed. Bits that
// nobody has published are listed as "UNKNOWN_<value>". A code that is not stated, or negative, has no reasons.
func (c LeaveCode) Reasons() []string {
	switch {
	case c < 0:
		return nil
	case c == 0:
		return []string{"INIT"}
	}
	var names []string
	for _, r := range leaveReasons {
		if c&r.bit != 0 {
			names = append(names, r.name)
			c &^= r.bit
		}
	}
	for bit := LeaveCode(1); c != 0; bit <<= 1 {
		if c&bit != 0 {
			names = append(names, "UNKNOWN_"+strconv.Itoa(int(bit)))
			c &^= bit
		}
	}
	return names
}

// StreamState tells whether a stream is being received (events 43 and 44). Beware: 0 is receiving.
type StreamState int

// Stream states.
const (
	Receiving    StreamState = 0
	NotReceiving StreamState = 1
)

var streamStateNames = map[StreamState]string{Receiving: "receiving", NotReceiving: "not receiving"}

func (s StreamState) String() string { return naming(s, streamStateNames) }

// StopCode tells why a web page recording stopped (event 71). Source: callback page, section 71.
type StopCode int

// Stop codes; their names are the messages of the page.
const (
	StopOK                StopCode = 0 // stopped by the user
	StopMaxRecordingHour  StopCode = 1 // maxRecordingHour was reached
	StopCapabilityLimit   StopCode = 2 // the page uses something that cannot be recorded
	StopStartEngineFailed StopCode = 3
	StopPageLoadTimeout   StopCode = 4 // with page load detection only
	StopAccessURLFailed   StopCode = 5
	StopRecorderError     StopCode = 6 // the callback page prints its message with a blank at the end
)

var stopCodeNames = map[StopCode]string{
	StopOK:                "ok",
	StopMaxRecordingHour:  "max_recording_hour",
	StopCapabilityLimit:   "capability_limit",
	StopStartEngineFailed: "start_engine_failed",
	StopPageLoadTimeout:   "page_load_timeout",
	StopAccessURLFailed:   "access_url_failed",
	StopRecorderError:     "recorder_error",
}

func (c StopCode) String() string { return naming(c, stopCodeNames) }

// RTMPStatus is the state of pushing a web page recording to a CDN (event 100). The callback page declares it a number and
// lists these strings.
type RTMPStatus string

// States of a push.
const (
	RTMPConnecting   RTMPStatus = "connecting"
	RTMPPublishing   RTMPStatus = "publishing"
	RTMPOnHold       RTMPStatus = "onhold"       // paused
	RTMPDisconnected RTMPStatus = "disconnected" // could not connect; the page advises another CDN address
)

// LimitType is what a web page asked too much of (event 72). Source: callback page, section 72.
type LimitType string

// Limits. The callback page allows video of up to 1280 x 720, the release notes of February 2021 up to 1920 x 1080.
const (
	LimitResolution LimitType = "resolution"
	LimitWebGL      LimitType = "WebGL"
	LimitBandwidth  LimitType = "bandwidth" // above 10 M upstream or 1 G downstream
)

// ReloadReason is why a web page was loaded again (event 73). Source: callback page, section 73.
type ReloadReason string

// Reasons of a reload.
const (
	ReloadAudioSilence    ReloadReason = "audio_silence"
	ReloadPageLoadTimeout ReloadReason = "page_load_timeout" // with page load detection only
)

// TrackType is what a recorded file holds.
type TrackType string

// Track types.
const (
	TrackAudio         TrackType = "audio"
	TrackVideo         TrackType = "video" // without sound
	TrackAudioAndVideo TrackType = "audio_and_video"
)

// Result is how transcoding ended, in one of three vocabularies: all_success, partial_success, fail (event 81); success, fail
// (81, per user); total_success, partial_success, failed (1001). Compare its Outcome.
type Result string

// Outcome is a Result without its vocabulary.
type Outcome uint8

// Outcomes.
const (
	UnknownOutcome Outcome = iota
	Succeeded
	PartlySucceeded
	Failed
)

// Outcome gives what the result means.
func (r Result) Outcome() Outcome {
	switch r {
	case "all_success", "total_success", "success":
		return Succeeded
	case "partial_success":
		return PartlySucceeded
	case "fail", "failed":
		return Failed
	}
	return UnknownOutcome
}

func (o Outcome) String() string {
	switch o {
	case Succeeded:
		return "succeeded"
	case PartlySucceeded:
		return "partly succeeded"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// Scenes of Recording.Scene. Sources: the Chinese release notes of January 2021; individual recording migration guide (raw
// recording); event page of Cloud Transcoding. The callback page does not know the field.
const (
	SceneRTCRecord          = "rtc_record"
	SceneRTCSnapshot        = "rtc_snapshot"
	SceneRTCVod             = "rtc_vod"
	SceneWebRecord          = "web_record"
	ScenePostponedRecord    = "postpone_transcode::rtc_record"         // stage 1 of postponed transcoding
	ScenePostponedTranscode = "postpone_transcode::transcode"          // stage 2
	ScenePostponedFailover  = "postpone_transcode::transcode_failover" // transcoding failed
	SceneRawRecording       = "rtsc/raw-recording"                     // individual recording v2
	SceneCloudTranscoder    = "rtsc/cloud-transcoder"
)
