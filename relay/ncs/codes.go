package ncs

import (
	"slices"
	"strconv"
	"strings"
)

// hidden are the fields (names in lower case) that may hold a credential.
var hidden = setOf("rtmpurl streamurl streamkey token userconfigdetail")

// times are the fields with a Unix time, in seconds or milliseconds (see unixTime).
var times = setOf("sendts startutcms discontinueutcms utcms slicestarttime recorderstarttime pageloadsuccesstime createts updatets " +
	"playts ts lts start_ts stop_ts report_ms start_at end_at starttime endtime")

// codeTable says what the values of a field mean.
type codeTable struct {
	product int
	types   []int  // nil = every type of the product
	field   string // below payload, without indexes; compared in any case, as receivers have seen other spellings
	beside  string // "details.module=1": holds only beside this fact; "" = always
	how     reading
	values  []codeValue
}

type codeValue struct{ value, meaning string }

// reading is how the values of a field are read.
type reading int

const (
	plain   reading = iota
	bits            // a sum of values; 0 by itself
	percent         // hundredths of a per cent
)

// codeTables holds the published codes. Sources: of product 3 the callback page ("Fields in payload", sections of the event
// types, and its tables of codes), except where another one is named; of the others the product's event page.
var codeTables = []codeTable{
	{product: productRTC, field: "platform", values: values("0=other; 1=Android; 2=iOS; 5=Windows; 6=Linux; 7=web; 8=macOS")},
	{product: productRTC, field: "clientType", values: values("3=on-premise recording; 8=mini program; 10=cloud recording")},
	{product: productRTC, types: []int{104, 106, 108}, field: "reason", values: values("0=other; 1=left normally; " +
		"2=timeout: nothing heard of the client for 10 s; 3=removed, for example by an administrator; 4=internal to Agora, the client reconnects; " +
		"5=joined with another device; 9=the client has several IP addresses, it reconnects; 10=network trouble, the client reconnects; " +
		"12=wrong or expired token; 99=unknown network trouble, the client reconnects; 999=joins and leaves too often: remove the user after 60 s")},

	// serviceType 3 only on the callback page of REST API 1.2.0 and older.
	{product: productRecording, field: "serviceType", values: values("0=cloud recording service; 1=recorder; 2=uploader; 3=content recognition; " +
		"4=extension services; 6=web page recording; 8=download")},
	// Sources: the Chinese release notes of January 2021; individual recording migration guide; event page of Cloud Transcoding.
	{product: productRecording, field: "serviceScene", values: values("rtc_record=recording; rtc_snapshot=screenshots; " +
		"rtc_vod=recording for ApsaraVideo for VoD; web_record=web page recording; postpone_transcode::rtc_record=postponed transcoding, recording; " +
		"postpone_transcode::transcode=postponed transcoding, transcoding; postpone_transcode::transcode_failover=postponed transcoding failed; " +
		"rtsc/raw-recording=individual recording v2; rtsc/cloud-transcoder=cloud transcoding")},
	{product: productRecording, types: []int{1, 2}, field: "details.module", values: values("0=recorder; 1=uploader; 2=cloud recording service; 6=web page recording")},
	{product: productRecording, types: []int{1}, field: "details.errorLevel", values: values("1=debug; 2=minor; 3=medium; 4=major; 5=fatal: the recording may exit")},
	// Other modules have the common errors of the REST API; of module 6 nothing is said in particular.
	{product: productRecording, types: []int{1}, field: "details.errorCode", beside: "details.module=1",
		values: values("32=wrong configuration of the third-party cloud storage; 47=a recorded file could not be uploaded; 51=the uploader could not process the recorded files")},
	{product: productRecording, types: []int{1}, field: "details.errorCode", beside: "details.module=2",
		values: values("50=timeout uploading the recorded files; 52=timeout starting the cloud recording service")},
	{product: productRecording, types: []int{1}, field: "details.stat", values: values("0=normal; *=abnormal")},
	{product: productRecording, types: []int{2}, field: "details.warnCode", beside: "details.module=1",
		values: values("31=a slice was uploaded again to the specified cloud storage; 32=a slice was uploaded again to Agora Cloud Backup")},
	{product: productRecording, types: []int{3}, field: "details.status", values: values("0=not started; 1=initialised; 2=recorder starting; 3=uploader ready; " +
		"4=recorder ready; 5=recording, first file uploaded; 6=recording stopped; 7=service stopped; 8=ready to exit; 20=exited abnormally")},
	{product: productRecording, types: []int{3}, field: "details.recordingMode",
		values: values("0=individual (on the Chinese page composite); 1=composite (on the Chinese page individual)")},
	{product: productRecording, types: []int{11}, field: "details.exitStatus", values: values("0=normal; 1=abnormal")},
	{product: productRecording, types: []int{11}, field: "details.leaveStatus", values: values("0=normal; 1=abnormal")}, // page of 2019
	{product: productRecording, types: []int{30, 31, 32, 40}, field: "details.status", values: values("0=normal; *=abnormal")},
	// Individual recording v2; not on the callback page.
	{product: productRecording, types: []int{31, 32}, field: "details.uploadingStatus", values: values("stranded=files wait to be uploaded later, which is no failure")},
	{product: productRecording, types: []int{33}, field: "details.progress", how: percent, values: values("10000=all files recorded so far are uploaded")},
	// The pages of REST API 1.2.0 and of 2019 have other bits: 1 signal, 2 no users, 4 signal error, 8 left by the application.
	{product: productRecording, types: []int{41}, field: "details.leaveCode", how: bits, values: values("0=INIT: initialisation failed; 2=SIG: the service got SIGINT; " +
		"4=NO_USERS: nobody was in the channel; 8=TIMER_CATCH: to be ignored; 16=CLIENT_LEAVE: the recorder called leaveChannel")},
	{product: productRecording, types: []int{43, 44}, field: "details.state", values: values("0=receiving; 1=not receiving")},
	{product: productRecording, types: []int{71}, field: "details.code", values: values("0=stopped by the user; 1=maxRecordingHour was reached; " +
		"2=the page uses something that cannot be recorded; 3=the engine did not start; 4=the page took too long to load; 5=the page could not be opened; 6=recording could not go on")},
	// The release notes of February 2021 allow 1920 x 1080.
	{product: productRecording, types: []int{72}, field: "details.limitType",
		values: values("resolution=a video above 1280 x 720; bandwidth=above 10 M upstream or 1 G downstream")},
	{product: productRecording, types: []int{100}, field: "details.status", values: values("onhold=paused; disconnected=could not connect, another CDN address is advised")},

	{product: productMediaGateway, types: []int{3}, field: "errorCode", values: values("1=malformed stream key; 2=expired or deleted stream key; " +
		"3=stream key not allowed here; 4=too many streams at once; 5=conflict; 6=bitrate limit; 7=no data for 10 s; 8=joining the channel failed; " +
		"9=disconnected from the network; 10=internal")},
	{product: productSpeechToText, types: []int{30, 31, 32}, field: "details.status", values: values("0=normal; *=abnormal")},
	{product: productSpeechToText, types: []int{33}, field: "details.progress", how: percent, values: values("10000=all files are uploaded")},
}

// values reads "value=meaning; value=meaning". The value * stands for all others.
func values(s string) (list []codeValue) {
	for pair := range strings.SplitSeq(s, "; ") {
		value, meaning, _ := strings.Cut(pair, "=")
		list = append(list, codeValue{value, meaning})
	}
	return list
}

func setOf(names string) map[string]bool {
	set := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		set[name] = true
	}
	return set
}

func (t *codeTable) holdsFor(i Info) bool {
	return t.product == i.ProductID && (t.types == nil || slices.Contains(t.types, i.EventType))
}

func (t *codeTable) standsBeside(facts []Fact) bool {
	return t.beside == "" || slices.ContainsFunc(facts, func(f Fact) bool { return strings.EqualFold(f.Field+"="+f.Value, t.beside) })
}

func (t *codeTable) meaning(value string) string {
	number, err := strconv.Atoi(value)
	switch {
	case t.how == percent && err == nil && number >= 0:
		return strconv.FormatFloat(float64(number)/100, 'f', 2, 64) + " %"
	case t.how == bits && err == nil && number > 0:
		return t.sum(number)
	}
	for _, v := range t.values {
		if v.value == value || v.value == "*" && value != "null" {
			return v.meaning
		}
	}
	return ""
}

// sum lists the values that a mask is made of; bits that nobody has published are listed as UNKNOWN_<value>.
func (t *codeTable) sum(mask int) string {
	var names []string
	for bit := 1; mask != 0; bit <<= 1 {
		if mask&bit != 0 {
			mask &^= bit
			name := "UNKNOWN_" + strconv.Itoa(bit)
			if i := slices.IndexFunc(t.values, func(v codeValue) bool { return v.value == strconv.Itoa(bit) }); i >= 0 {
				name = t.values[i].meaning
			}
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}
