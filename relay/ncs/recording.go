package ncs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Recording is the payload of an event of Cloud Recording or Cloud Transcoding. Source: callback page, "Fields in
// payload". Cloud Transcoding has TaskID and InstanceID in place of Cname, UID, SID and ServiceType.
type Recording struct {
	Cname       string      `json:"cname"` // channel that is recorded
	UID         string      `json:"uid"`   // of the recording client
	SID         string      `json:"sid"`   // recording id
	TaskID      string      `json:"taskId"`
	InstanceID  string      `json:"instanceId"`
	Sequence    int64       `json:"sequence"`    // from 0; NotStated when absent
	Sent        time.Time   `json:"sendts"`      // when the event happened
	ServiceType ServiceType `json:"serviceType"` // NotStated when absent
	Scene       string      `json:"serviceScene"`

	// MsgName is the event's name as the details state it (msgName, or event for Cloud Transcoding).
	MsgName string `json:"-"`

	// Details points to the struct of the event type: *Uploaded for 31 and so on. It is nil for types whose details are not
	// published (13, 34, 46, 47) and for unknown types.
	Details any `json:"-"`
}

// ErrNotRecording is returned by Notification.Recording for events of other products.
var ErrNotRecording = errors.New("not an event of cloud recording")

// Recording decodes the payload of an event of product 3.
//
// It takes what is known to differ between documentation, examples and reality: ids and numbers as strings or numbers,
// member names of details in any case (fileName and filename, UtcMs and utcMs), a file list that is a name, a list of
// names or a list of objects, members that are absent or null, times in seconds. What is absent is empty, false or
// the zero time, and NotStated for codes and numbers. Other types, such as an object where a status should be, are an error.
func (n *Notification) Recording() (*Recording, error) {
	if n.Info.ProductID != productRecording {
		return nil, ErrNotRecording
	}
	wire := struct {
		*Recording
		Details jsontext.Value `json:"details"`
	}{Recording: &Recording{Sequence: NotStated, ServiceType: NotStated}}
	if err := json.Unmarshal(n.Payload, &wire, tolerant); err != nil {
		return nil, fmt.Errorf("payload of %s: %w", n.Info.Event, err)
	}
	r := wire.Recording
	if len(wire.Details) == 0 || wire.Details.Kind() != '{' {
		wire.Details = jsontext.Value("{}")
	}
	var name struct{ MsgName, Event string }
	r.Details = newDetails(n.EventType)
	err := json.Unmarshal(wire.Details, &name, tolerantDetails)
	if r.MsgName = name.MsgName; r.MsgName == "" {
		r.MsgName = name.Event
	}
	if err == nil && r.Details != nil {
		err = json.Unmarshal(wire.Details, r.Details, tolerantDetails)
	}
	if err != nil {
		return nil, fmt.Errorf("details of %s: %w", n.Info.Event, err)
	}
	return r, nil
}

// newDetails gives the struct of an event type with what is not stated marked so.
func newDetails(eventType int) any {
	switch eventType {
	case 1:
		return &CloudRecordingError{Module: NotStated, Level: NotStated, Code: NotStated, Stat: NotStated}
	case 2:
		return &CloudRecordingWarning{Module: NotStated, Code: NotStated}
	case 3:
		return &CloudRecordingStatusUpdate{Status: NotStated, Mode: NotStated}
	case 4:
		return &CloudRecordingFileInfos{}
	case 11:
		return &SessionExit{Status: NotStated}
	case 12:
		return &SessionFailover{}
	case 30:
		return &UploaderStarted{Status: NotStated}
	case 31:
		return &Uploaded{Status: NotStated}
	case 32:
		return &Backuped{Status: NotStated}
	case 33:
		return &UploadingProgress{Progress: NotStated}
	case 40:
		return &RecorderStarted{Status: NotStated}
	case 41:
		return &RecorderLeave{Code: NotStated}
	case 42:
		return &RecorderSliceStart{}
	case 43:
		return &RecorderAudioStreamStateChanged{State: NotStated}
	case 44:
		return &RecorderVideoStreamStateChanged{State: NotStated}
	case 45:
		return &RecorderSnapshotFile{}
	case 60:
		return &VodStarted{}
	case 61:
		return &VodTriggered{}
	case 70:
		return &WebRecorderStarted{}
	case 71:
		return &WebRecorderStopped{Code: NotStated}
	case 72:
		return &WebRecorderCapabilityLimit{}
	case 73:
		return &WebRecorderReload{}
	case 80:
		return &TranscoderStarted{}
	case 81:
		return &TranscoderCompleted{}
	case 90:
		return &DownloadFailed{Vendor: NotStated, Region: NotStated}
	case 100:
		return &RTMPPublishStatus{}
	case 110:
		return &CloudTranscoderStarted{}
	case 111:
		return &CloudTranscoderStopped{}
	case 112:
		return &CloudTranscoderStatus{}
	case 113:
		return &CloudTranscoderUpdated{}
	case 1001:
		return &PostponeTranscodeFinalResult{}
	}
	return nil
}

// CloudRecordingError (1): an error occurred.
type CloudRecordingError struct {
	Module  Module     `json:"module"`
	Level   ErrorLevel `json:"errorLevel"`
	Code    ErrorCode  `json:"errorCode"`
	Stat    Status     `json:"stat"`
	Message string     `json:"errorMsg"`
}

// CloudRecordingWarning (2): a warning occurred.
type CloudRecordingWarning struct {
	Module Module   `json:"module"`
	Code   WarnCode `json:"warnCode"`
}

// CloudRecordingStatusUpdate (3): the status of the service changed (overview of the callback page), or a call did not fit
// it, such as a start when already started (section 3 of the same page).
type CloudRecordingStatusUpdate struct {
	Status ServiceStatus `json:"status"`
	Mode   RecordingMode `json:"recordingMode"`
	Files  Files         `json:"fileList"` // the M3U8 index; on the wire its bare name
}

// CloudRecordingFileInfos (4): the M3U8 index was uploaded for the first time. One captured session had it twice.
type CloudRecordingFileInfos struct {
	Files Files `json:"fileList"` // the M3U8 index; on the wire its bare name
}

// SessionExit (11): the service has ended its tasks.
type SessionExit struct {
	Status ExitStatus // exitStatus; leaveStatus on the page of 2019
}

// SessionFailover (12): another server takes over within 90 s, under a new uid.
type SessionFailover struct {
	NewUID string `json:"newUid"` // on the wire a number, unlike payload.uid
}

// UploaderStarted (30): the upload service started.
type UploaderStarted struct {
	Status Status `json:"status"`
}

// Uploaded (31): all files are in the customer's storage.
type Uploaded struct {
	Status Status `json:"status"`
	Files  Files  `json:"fileList"` // absent for web page recordings
	// UploadingStatus is "stranded" when files wait on the recording server to be uploaded later (individual recording v2,
	// not on the callback page).
	UploadingStatus string `json:"uploadingStatus"`
}

// Backuped (32): all files are uploaded, at least one of them to Agora Cloud Backup, which will pass it on.
type Backuped Uploaded

// UploadingProgress (33): sent every minute while recording.
type UploadingProgress struct {
	// Progress is 0 to 10,000: files uploaded out of files recorded. It never falls according to the callback page; the
	// Chinese page says that it may, as more files are recorded.
	Progress int `json:"progress"`
}

// RecorderStarted (40): the recording started.
type RecorderStarted struct {
	Status Status `json:"status"`
}

// RecorderLeave (41): the recorder left the channel.
type RecorderLeave struct {
	Code LeaveCode `json:"leaveCode"`
}

// RecorderSliceStart (42): the first slice began, or the first after an interruption.
type RecorderSliceStart struct {
	Start time.Time `json:"startUtcMs"`
	// Discontinue equals Start, except after an interruption: then it is the end of the last slice before it.
	Discontinue  time.Time `json:"discontinueUtcMs"`
	MixedAllUser bool      `json:"mixedAllUser"` // all users in one file
	StreamUID    string    `json:"streamUid"`    // "0" in composite mode
	TrackType    TrackType `json:"trackType"`
}

// RecorderAudioStreamStateChanged (43): a user's audio began or ceased to arrive.
type RecorderAudioStreamStateChanged struct {
	StreamUID string      `json:"streamUid"` // "0" is the mixed stream of composite mode
	State     StreamState `json:"state"`
	At        time.Time   `json:"UtcMs"` // receivers have seen utcMs
}

// RecorderVideoStreamStateChanged (44): a user's video began or ceased to arrive.
type RecorderVideoStreamStateChanged RecorderAudioStreamStateChanged

// RecorderSnapshotFile (45): a screenshot was taken and uploaded. Its serviceType is 1 on the callback page; a
// Chinese page lists it with the uploader, 2.
type RecorderSnapshotFile struct {
	FileName string `json:"fileName"` // path in the customer's storage
}

// VodStarted (60): the uploader to ApsaraVideo for VoD has its credential.
type VodStarted struct {
	AliVodInfo struct {
		VideoID string `json:"videoId"`
	} `json:"aliVodInfo"`
}

// VodTriggered (61): all files are in ApsaraVideo for VoD.
type VodTriggered struct{}

// WebRecorderStarted (70): a web page recording started.
type WebRecorderStarted struct {
	Start time.Time `json:"recorderStartTime"`
	// PageLoaded is stated with page load detection only; the callback page does not know it.
	PageLoaded time.Time `json:"pageLoadSuccessTime"`
}

// WebRecorderStopped (71): a web page recording stopped.
type WebRecorderStopped struct {
	Code    StopCode `json:"code"`
	Message string   `json:"message"` // the code's name; the callback page prints recorder_error with a blank at the end
	Details string   `json:"details"` // a string called details inside the object details
	Files   Files    `json:"fileList"`
}

// WebRecorderCapabilityLimit (72): the page uses something that cannot be recorded; the recording stops at once.
type WebRecorderCapabilityLimit struct {
	LimitType LimitType `json:"limitType"`
}

// WebRecorderReload (73): the page was loaded again.
type WebRecorderReload struct {
	Reason ReloadReason `json:"reason"`
}

// TranscoderStarted (80): transcoding started.
type TranscoderStarted struct{}

// TranscoderCompleted (81): transcoding ended.
type TranscoderCompleted struct {
	Result Result
	Users  []TranscodedUser
}

// TranscodedUser is what was transcoded of one user.
type TranscodedUser struct {
	UID    string `json:"uid"`
	Result Result `json:"result"` // "" when not stated
	Files  Files  `json:"fileList"`
}

// DownloadFailed (90): files could not be downloaded for transcoding. At most once per recording.
type DownloadFailed struct {
	Vendor    int       `json:"vendor"` // as in the start request
	Region    int       `json:"region"` // as in the start request
	Bucket    string    `json:"bucket"`
	FileNames FileNames `json:"fileName"`
}

// RTMPPublishStatus (100): pushing a web page recording to a CDN changed its state. The URL may hold a stream key.
type RTMPPublishStatus struct {
	URL    string     `json:"rtmpUrl"`
	Status RTMPStatus `json:"status"`
}

// PostponeTranscodeFinalResult (1001): the final result of postponed transcoding.
type PostponeTranscodeFinalResult struct {
	Result Result `json:"result"`
	Files  Files  `json:"fileList"`
}

// CloudTranscoderStarted (110). Source of 110 to 113: event page of Cloud Transcoding. Its times are seconds according to the
// page and milliseconds in its examples; both are understood.
type CloudTranscoderStarted struct {
	State      string     `json:"state"` // "Transcoder success"
	Created    time.Time  `json:"createTs"`
	Transcoder Transcoder `json:"transcoder"`
}

// CloudTranscoderStopped (111).
type CloudTranscoderStopped struct {
	StopReason string    `json:"stopReason"`
	Created    time.Time `json:"createTs"`
	Updated    time.Time `json:"updateTs"`
}

// CloudTranscoderStatus (112).
type CloudTranscoderStatus struct {
	State   string    `json:"state"` // "connecting", "running", "failed"
	Created time.Time `json:"createTs"`
	Updated time.Time `json:"updateTs"`
}

// CloudTranscoderUpdated (113).
type CloudTranscoderUpdated struct {
	State      string     `json:"state"` // "running"
	Created    time.Time  `json:"createTs"`
	Updated    time.Time  `json:"updateTs"`
	Transcoder Transcoder `json:"transcoder"`
}

// Transcoder is what a cloud transcoder takes and makes.
type Transcoder struct {
	Inputs           []TranscoderStream `json:"inputs"`
	Outputs          []TranscoderStream `json:"outputs"`
	UserConfigDetail string             `json:"userConfigDetail"` // the request's configuration
}

// TranscoderStream is a user's stream in a channel.
type TranscoderStream struct {
	Channel string `json:"rtcChannel"`
	UID     string `json:"rtcUid"` // on the wire a number
	Audio   bool   `json:"audio"`
	Video   bool   `json:"video"`
}

// File is a recorded file. Lists that only name files leave the other fields empty.
type File struct {
	Name         string    `json:"fileName"` // M3U8 or MP4; spelled filename in some examples and on Chinese pages
	TrackType    TrackType `json:"trackType"`
	UID          string    `json:"uid"`          // whose stream; "0" in composite mode
	MixedAllUser bool      `json:"mixedAllUser"` // all users in one file
	Playable     bool      `json:"isPlayable"`   // can be played online
	Start        time.Time `json:"sliceStartTime"`
}

// Files is a file list. On the wire it is a bare name (events 3 and 4) or a list of objects.
type Files []File

// FileNames are names that are joined with semicolons on the wire.
type FileNames []string

// UnmarshalJSONFrom reads exitStatus, or leaveStatus where that is absent.
func (d *SessionExit) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	wire := struct{ ExitStatus, LeaveStatus ExitStatus }{NotStated, NotStated}
	if err := json.UnmarshalDecode(dec, &wire); err != nil {
		return err
	}
	if d.Status = wire.ExitStatus; d.Status == NotStated {
		d.Status = wire.LeaveStatus
	}
	return nil
}

// UnmarshalJSONFrom reads the users with their files. The callback page prints uid and fileList as if they stood beside uids;
// what stands there is given to the user it names.
func (d *TranscoderCompleted) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	var wire struct {
		Result   Result
		UIDs     []TranscodedUser
		UID      string
		FileList Files
	}
	if err := json.UnmarshalDecode(dec, &wire); err != nil {
		return err
	}
	d.Result, d.Users = wire.Result, wire.UIDs
	if wire.UID == "" && len(wire.FileList) == 0 {
		return nil
	}
	for i, u := range d.Users {
		if u.UID == wire.UID {
			d.Users[i].Files = append(u.Files, wire.FileList...)
			return nil
		}
	}
	d.Users = append(d.Users, TranscodedUser{UID: wire.UID, Files: wire.FileList})
	return nil
}

// UnmarshalJSONFrom reads one name, one object, or a list of either.
func (f *Files) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '[' {
		return json.UnmarshalDecode(dec, (*[]File)(f))
	}
	var one File
	if err := json.UnmarshalDecode(dec, &one); err != nil {
		return err
	}
	*f = nil
	if one.Name != "" {
		*f = Files{one}
	}
	return nil
}

// UnmarshalJSONFrom reads an object, or a bare name.
func (f *File) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '{' {
		return json.UnmarshalDecode(dec, &f.Name)
	}
	type fields File // without this method
	return json.UnmarshalDecode(dec, (*fields)(f))
}

// UnmarshalJSONFrom splits the names.
func (f *FileNames) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == '[' {
		return json.UnmarshalDecode(dec, (*[]string)(f))
	}
	var joined string
	if err := json.UnmarshalDecode(dec, &joined); err != nil {
		return err
	}
	*f = nil
	for name := range strings.SplitSeq(joined, ";") {
		if name != "" {
			*f = append(*f, name)
		}
	}
	return nil
}

// tolerant says, once for all structs, which JSON values are taken for which Go types.
var tolerant = json.JoinOptions(
	jsontext.AllowDuplicateNames(true), // UtcMs beside utcMs; real duplicates were refused by Parse
	json.WithUnmarshalers(json.JoinUnmarshalers(
		readText[string](), readText[RTMPStatus](), readText[LimitType](), readText[ReloadReason](), readText[TrackType](), readText[Result](),
		readInteger[int](), readInteger[int64](), readInteger[Module](), readInteger[ServiceType](), readInteger[ErrorLevel](),
		readInteger[ErrorCode](), readInteger[WarnCode](), readInteger[Status](), readInteger[ExitStatus](), readInteger[ServiceStatus](),
		readInteger[RecordingMode](), readInteger[LeaveCode](), readInteger[StreamState](), readInteger[StopCode](),
		json.UnmarshalFromFunc(readTime),
	)),
)

// tolerantDetails also takes member names in any case, which the payload's own members do not need: Parse compares them
// exactly, and both must see the same sid.
var tolerantDetails = json.JoinOptions(tolerant, json.MatchCaseInsensitiveNames(true))

// readText takes a string, or a number as it is written.
func readText[T ~string]() *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(dec *jsontext.Decoder, p *T) error {
		s, _, err := readScalar(dec)
		if err == nil {
			*p = T(s)
		}
		return err
	})
}

// readInteger takes a whole number with or without quotes.
func readInteger[T ~int | ~int64]() *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(dec *jsontext.Decoder, p *T) error {
		s, ok, err := readScalar(dec)
		if err != nil || !ok {
			return err
		}
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || int64(T(v)) != v {
			return fmt.Errorf("%q is not a whole number of a sensible size", detail(s))
		}
		*p = T(v)
		return nil
	})
}

// readTime takes Unix seconds or milliseconds with or without quotes. A number that cannot be a time is left out.
func readTime(dec *jsontext.Decoder, p *time.Time) error {
	s, ok, err := readScalar(dec)
	if err != nil || !ok {
		return err
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not a Unix time", detail(s))
	}
	*p, _ = unixTime(v)
	return nil
}

// readScalar reads a string or number as text. ok is false for null and the empty string, which count as absent.
func readScalar(dec *jsontext.Decoder) (s string, ok bool, err error) {
	raw, err := dec.ReadValue()
	if err != nil {
		return "", false, err
	}
	switch raw.Kind() {
	case 'n':
		return "", false, nil
	case '0':
		return string(raw), true, nil
	case '"':
		b, err := jsontext.AppendUnquote(nil, raw)
		return string(b), len(b) > 0, err
	}
	return "", false, fmt.Errorf("want a string or a number, not %s", raw.Kind())
}
