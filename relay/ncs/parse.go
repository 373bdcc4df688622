package ncs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MalformedError says why a body is not a notification.
type MalformedError struct {
	Reason string // one of the Reason constants: bounded, fit for a metric label
	Detail string // for people; may quote a little of the body, at most about 200 bytes; "" = nothing to add
}

func (e *MalformedError) Error() string {
	if e.Detail == "" {
		return "malformed notification: " + e.Reason
	}
	return "malformed notification: " + e.Reason + ": " + e.Detail
}

// Reasons of a MalformedError.
const (
	ReasonEmpty            = "empty"              // no JSON value at all
	ReasonNotJSON          = "not_json"           // a syntax error, or nesting beyond 10,000 levels
	ReasonInvalidUTF8      = "invalid_utf8"       // a syntax error in what is not UTF-8 either
	ReasonDuplicateName    = "duplicate_name"     // a member that is read here stands there twice: readers differ on which one counts
	ReasonTrailingData     = "trailing_data"      // something follows the object
	ReasonNotObject        = "not_object"         // another JSON value
	ReasonTooLarge         = "too_large"          // 2 GiB or more
	ReasonNoEventType      = "no_event_type"      // no eventType
	ReasonBadEventType     = "bad_event_type"     // not a plain whole number of 0 to 2147483647
	ReasonNoProduct        = "no_product"         // no productId, and not the retired format either
	ReasonBadProduct       = "bad_product"        // as for bad_event_type
	ReasonNoPayload        = "no_payload"         // no payload, and no notice id that would identify the event without one
	ReasonPayloadNotObject = "payload_not_object" // another JSON value, and no notice id
	ReasonNoNoticeID       = "no_notice_id"       // needed, because the payload does not identify the event
)

// Reasons lists the reasons a MalformedError can have.
func Reasons() []string {
	return []string{
		ReasonEmpty, ReasonNotJSON, ReasonInvalidUTF8, ReasonDuplicateName, ReasonTrailingData, ReasonNotObject, ReasonTooLarge,
		ReasonNoEventType, ReasonBadEventType, ReasonNoProduct, ReasonBadProduct, ReasonNoPayload, ReasonPayloadNotObject, ReasonNoNoticeID,
	}
}

// field is a place in the body whose value is kept while the body is walked.
type field uint8

const (
	fNone field = iota
	fNoticeID
	fNotificationID
	fProductID
	fEventType
	fNotifyMs
	fEnvelopeSID
	fPayload
	fSID
	fSequence
	fUID
	fLastUID
	fSendTs
	fServiceType
	fTaskID
	fCname
	fChannelName
	fChannel
	fClientSeq
	fTs
	fReason
	fDuration
	fLts
	fPlayer
	fPlayerID
	fPlayerChannel
	fConverter
	fConverterID
	fTranscodeOptions
	fTranscodeChannel
	fRawOptions
	fRawChannel
	fRTCInfo
	fRTCInfoChannel
	fBeginAt
	fEndAt
	fAgentID
	fStartTs
	fStopTs
	fStatus
	fState
	fReportMs
	fEntryPoint
	fStreamName
	fieldCount
)

// span is where a field's raw JSON value stands in the body; the zero span means absent.
type span struct{ start, end uint32 }

// scope is an object of the body in which fields are looked for.
type scope uint8

const (
	noScope scope = iota
	envelope
	payload
	player
	converter
	transcodeOptions
	rawOptions
	rtcInfo
)

// member says what a member of an object is: a field, an object to look into, or neither.
func (s scope) member(name []byte) (field, scope) {
	switch s {
	case envelope:
		return envelopeMember(name)
	case payload:
		return payloadMember(name)
	case player:
		switch string(name) {
		case "id":
			return fPlayerID, noScope
		case "channelName":
			return fPlayerChannel, noScope
		}
	case converter:
		switch string(name) {
		case "id":
			return fConverterID, noScope
		case "transcodeOptions":
			return fTranscodeOptions, transcodeOptions
		case "rawOptions":
			return fRawOptions, rawOptions
		}
	case transcodeOptions:
		if string(name) == "rtcChannel" {
			return fTranscodeChannel, noScope
		}
	case rawOptions:
		if string(name) == "rtcChannel" {
			return fRawChannel, noScope
		}
	case rtcInfo:
		if string(name) == "channel" {
			return fRTCInfoChannel, noScope
		}
	}
	return fNone, noScope
}

func envelopeMember(name []byte) (field, scope) {
	switch string(name) {
	case "noticeId":
		return fNoticeID, noScope
	case "notificationId":
		return fNotificationID, noScope
	case "productId":
		return fProductID, noScope
	case "eventType":
		return fEventType, noScope
	case "notifyMs":
		return fNotifyMs, noScope
	case "sid":
		return fEnvelopeSID, noScope
	case "payload":
		return fPayload, payload
	}
	return fNone, noScope
}

func payloadMember(name []byte) (field, scope) {
	switch string(name) {
	case "sid":
		return fSID, noScope
	case "sequence":
		return fSequence, noScope
	case "uid":
		return fUID, noScope
	case "lastUid":
		return fLastUID, noScope
	case "sendts":
		return fSendTs, noScope
	case "serviceType":
		return fServiceType, noScope
	case "taskId":
		return fTaskID, noScope
	case "cname":
		return fCname, noScope
	case "channelName":
		return fChannelName, noScope
	case "channel":
		return fChannel, noScope
	case "clientSeq":
		return fClientSeq, noScope
	case "ts":
		return fTs, noScope
	case "reason":
		return fReason, noScope
	case "duration":
		return fDuration, noScope
	case "lts":
		return fLts, noScope
	case "beginAt":
		return fBeginAt, noScope
	case "endAt":
		return fEndAt, noScope
	case "agent_id":
		return fAgentID, noScope
	case "start_ts":
		return fStartTs, noScope
	case "stop_ts":
		return fStopTs, noScope
	case "status":
		return fStatus, noScope
	case "state":
		return fState, noScope
	case "report_ms":
		return fReportMs, noScope
	case "entryPoint":
		return fEntryPoint, noScope
	case "streamName":
		return fStreamName, noScope
	case "player":
		return fPlayer, player
	case "converter":
		return fConverter, converter
	case "rtcInfo":
		return fRTCInfo, rtcInfo
	}
	return fNone, noScope
}

// Parse reads the body of one call. It is strict about what says which event it is, because a lenient reading could make two
// readers see two different events: data after the object, nesting beyond 10,000 levels, and a member twice that is read
// here (also when one is written with escapes) are refused, and member names are compared exactly. eventType and
// productId must be plain whole numbers: 31, but not 31.0, 3e1, -1, "31" or anything above 2147483647.
//
// What it does not read, it passes on: members it does not know may come twice, hold lone surrogates (\ud83d, where a text
// was cut inside an emoji; legal JSON) or bytes that are not UTF-8. Where such text stands in a field of the identity, the
// event is identified by its notice id; in Entity and Channel U+FFFD stands for it.
//
// noticeId is demanded only of events whose payload does not identify them; with it, even the payload may be missing or
// something else than an object. The retired format of Cloud Recording before REST API 1.3.0 (notificationId, no
// productId, payload.sid) is read as product 3 with notificationId as notice id.
//
// The catalogue decides on names, and on the entity of types that an overlay adds; it never changes which event it is.
//
// Every error is a *MalformedError. The Notification keeps body.
func (c *Catalogue) Parse(body []byte) (*Notification, error) {
	if len(body) > math.MaxInt32 { // spans are 32 bits wide
		return nil, &MalformedError{Reason: ReasonTooLarge}
	}
	n := &Notification{body: body, ServiceType: -1}
	if !n.scan() {
		w := walkers.Get().(*walker)
		err := w.walk(n)
		w.release()
		if err != nil {
			return nil, err
		}
	}
	if err := n.readEnvelope(c); err != nil {
		return nil, err
	}
	if v, ok := n.integer(fServiceType); ok && v >= 0 && v <= math.MaxInt32 {
		n.ServiceType = int(v)
	}
	n.Entity = n.entity()
	n.Channel = n.channel()
	n.line = n.identityLine()
	if n.line == &noticeLine && n.NoticeID == "" {
		return nil, &MalformedError{Reason: n.whyUnidentified()}
	}
	return n, nil
}

func (n *Notification) readEnvelope(c *Catalogue) error {
	raw := n.raw(fEventType)
	if raw == nil {
		return &MalformedError{Reason: ReasonNoEventType}
	}
	var ok bool
	if n.EventType, ok = wholeNumber(raw); !ok {
		return &MalformedError{Reason: ReasonBadEventType, Detail: detail(string(raw))}
	}
	var product int
	switch raw := n.raw(fProductID); {
	case raw != nil:
		if product, ok = wholeNumber(raw); !ok {
			return &MalformedError{Reason: ReasonBadProduct, Detail: detail(string(raw))}
		}
	case n.text(fNotificationID) != "" && n.text(fSID) != "": // the retired format
		product = productRecording
		n.spans[fNoticeID] = n.spans[fNotificationID]
	default:
		return &MalformedError{Reason: ReasonNoProduct}
	}
	n.Payload = n.raw(fPayload)
	if ms, ok := n.integer(fNotifyMs); ok && ms > 0 {
		n.NotifyMs = ms
	}
	var scratch [128]byte
	if id, state := n.value(fNoticeID, scratch[:0]); state == present {
		n.NoticeID = string(id)
	}
	n.SID = n.text(fEnvelopeSID)
	n.Info = c.Lookup(product, n.EventType)
	return nil
}

func (n *Notification) whyUnidentified() string {
	switch {
	case n.Payload == nil:
		return ReasonNoPayload
	case n.Payload[0] != '{':
		return ReasonPayloadNotObject
	}
	return ReasonNoNoticeID
}

// wholeNumber reads a number of 0 to 2147483647 written as digits alone.
func wholeNumber(digits []byte) (int, bool) {
	if !isInteger(digits, integer) || digits[0] == '-' || len(digits) > len("2147483647") {
		return 0, false
	}
	v := 0
	for _, d := range digits {
		v = v*10 + int(d-'0')
	}
	return v, v <= math.MaxInt32
}

// walker walks over a body once, checks it and notes where the fields are.
type walker struct {
	dec  jsontext.Decoder
	in   bytes.Buffer
	name []byte // scratch for names with escapes
}

// passOn lets the decoder take what Parse passes on.
var passOn = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

var walkers = sync.Pool{New: func() any { return new(walker) }}

func (w *walker) release() {
	w.in = bytes.Buffer{} // the pool must not keep the body
	w.dec.Reset(&w.in)
	walkers.Put(w)
}

func (w *walker) walk(n *Notification) error {
	// The decoder reads a bytes.Buffer in place: nothing is copied.
	w.in = *bytes.NewBuffer(n.body)
	w.dec.Reset(&w.in, passOn)
	switch w.dec.PeekKind() {
	case '{':
	case jsontext.KindInvalid:
		_, err := w.dec.ReadToken()
		return syntaxError(n.body, err)
	default:
		return &MalformedError{Reason: ReasonNotObject}
	}
	if err := w.object(n, envelope); err != nil {
		return syntaxError(n.body, err)
	}
	// One more read must find the end. Anything else, even a second good object, is trailing data.
	if _, err := w.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return &MalformedError{Reason: ReasonTrailingData}
	}
	return nil
}

// object walks over the members of the object that comes next. It recurses only into scopes, whose depth is fixed; the
// depth of everything else is the decoder's business.
func (w *walker) object(n *Notification, s scope) error {
	if _, err := w.dec.ReadToken(); err != nil {
		return err
	}
	for w.dec.PeekKind() != '}' {
		name, err := w.memberName()
		if err != nil {
			return err
		}
		f, inner := s.member(name)
		if f != fNone && n.spans[f].end != 0 {
			return fmt.Errorf("%w %q", jsontext.ErrDuplicateName, name)
		}
		if err := w.value(n, f, inner); err != nil {
			return err
		}
	}
	_, err := w.dec.ReadToken()
	return err
}

func (w *walker) memberName() ([]byte, error) {
	raw, err := w.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	// A member name that is no string is refused by the decoder, so raw has its quotes.
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	w.name, _ = jsontext.AppendUnquote(w.name[:0], raw) // an error would mean that it is no Unicode, and so none of our names
	return w.name, nil
}

func (w *walker) value(n *Notification, f field, inner scope) error {
	if inner != noScope && w.dec.PeekKind() == '{' {
		return w.inner(n, f, inner)
	}
	raw, err := w.dec.ReadValue() // also to skip it: SkipValue would go token by token
	if err != nil || f == fNone {
		return err
	}
	end := uint32(w.dec.InputOffset())
	n.spans[f] = span{end - uint32(len(raw)), end}
	return nil
}

func (w *walker) inner(n *Notification, f field, s scope) error {
	// PeekKind does not move InputOffset, which stands behind the name: the object starts at the next brace, as only a
	// colon and white space can come before it.
	after := w.dec.InputOffset()
	start := after + int64(bytes.IndexByte(n.body[after:], '{'))
	if err := w.object(n, s); err != nil {
		return err
	}
	if f != fNone {
		n.spans[f] = span{uint32(start), uint32(w.dec.InputOffset())}
	}
	return nil
}

func syntaxError(body []byte, err error) error {
	reason := ReasonNotJSON
	switch {
	case errors.Is(err, io.EOF):
		return &MalformedError{Reason: ReasonEmpty}
	case errors.Is(err, jsontext.ErrDuplicateName):
		reason = ReasonDuplicateName
	case !utf8.Valid(body):
		reason = ReasonInvalidUTF8
	}
	return &MalformedError{Reason: reason, Detail: detail(strings.TrimPrefix(err.Error(), "jsontext: "))}
}

// detail bounds what an error says about a body, which may be large and may hold anything.
func detail(s string) string {
	const most = 200
	if len(s) <= most {
		return strings.ToValidUTF8(s, "?")
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:most], "?"), len(s))
}
