// Package ncs knows the protocol of Agora's notification service (NCS): it checks signatures, reads notifications
// strictly, says which event a notification reports, what the event is about and what it is called, and decodes for people
// what its payload states. It has sample bodies of all published event types.
//
// It promises that the same event has the same identity whenever and wherever it arrives, that two events are never
// taken for one on the word of a field that may lie, and that no input makes it panic. It does no I/O and holds no
// state besides pools of buffers; every function may be called concurrently. What to do with an event, and what to
// do with a body it refuses, is left to its callers.
//
// Facts about the protocol are cited as in the public documentation of Agora: "callback page" is "Cloud Recording API
// callback service" (https://docs.agora.io/en/cloud-recording/reference/rest-api-overview), "event page" the product's
// page on its notification events.
package ncs

import "time"

// Notification is one parsed call. It keeps the body it was parsed from: the body must not be changed while the
// Notification is in use. It is read only, so it may be shared.
type Notification struct {
	NoticeID    string // the sender's id of the notification; "" when absent and not needed for the identity
	EventType   int
	NotifyMs    int64  // time of sending, Unix ms, renewed on each resend; 0 when absent
	SID         string // the envelope's sid
	Payload     []byte // the payload object, a sub-slice of the body
	Info        Info
	Entity      string // unit of order; "" = none
	Channel     string // channel the event is about; "" = none
	ServiceType int    // payload.serviceType; -1 = none

	body  []byte
	spans [fieldCount]span
	line  *line // of the identity table
}

// entityField returns the field that names the entity of a catalogued event: what the product's events are ordered by.
//
// For RTC that is the channel and not the user, so that everything that happens in a channel stays in order. For
// Cloud Recording it is the recording id and not the channel, as one channel can be recorded several times at once.
func entityField(i Info) field {
	switch i.ProductID {
	case productRTC:
		return fChannelName
	case productRecording:
		if isCloudTranscoder(i.EventType) {
			return fTaskID
		}
		return fSID
	case productMediaPull:
		return fPlayerID
	case productMediaPush:
		return fConverterID
	case productMediaGateway:
		return fSID
	case productSpeechToText:
		if isLegacySpeechToText(i.EventType) {
			return fTaskID
		}
		return fAgentID
	case productConversationalAI:
		return fAgentID
	}
	return fNone
}

// entity names what the event is about. An event type that the catalogue does not know, or one whose own field is
// missing, is ordered by the first id that such payloads usually have.
func (n *Notification) entity() string {
	if added := n.Info.added; added != nil {
		if s := n.idAt(added.entity); s != "" {
			return s
		}
	} else if n.Info.Known {
		if n.Info.ProductID == productFusionCDN {
			if point, stream := n.id(fEntryPoint), n.id(fStreamName); point != "" && stream != "" {
				return point + "/" + stream
			}
		}
		if s := n.id(entityField(n.Info)); s != "" {
			return s
		}
	}
	return n.firstID(fSID, fEnvelopeSID, fChannelName, fCname)
}

// channel names the RTC channel the event is about. The places are those of different products, so their order does
// not matter. streamName of Fusion CDN is not among them: a stream of a CDN is no channel, and a rule for a channel must
// not catch it; it is part of the entity.
func (n *Notification) channel() string {
	return n.firstID(fChannelName, fCname, fChannel, fPlayerChannel, fRTCInfoChannel, fTranscodeChannel, fRawChannel)
}

// Values of the health test that Agora's Console sends for RTC channel events and Conversational AI; those of other products
// are not published.
const (
	testChannel = "test_webhook"
	testUID     = "12121212"
)

// IsTest reports whether this is the health test of Agora's Console: channelName or channel is test_webhook, and uid and
// lastUid, where present, are 12121212. Source: "Enable Notifications" of Agora's documentation.
//
// The test for Cloud Recording is said to have the channel in cname. Its only source is the code of somebody's receiver, so
// the uid must be there too: a recording of a channel that happens to be called so is not swallowed.
func (n *Notification) IsTest() bool {
	recordingTest := n.id(fCname) == testChannel && n.id(fUID) == testUID
	if n.id(fChannelName) != testChannel && n.id(fChannel) != testChannel && !recordingTest {
		return false
	}
	var scratch [32]byte
	for _, f := range []field{fUID, fLastUID} {
		if uid, state := n.value(f, scratch[:0]); state != absent && string(uid) != testUID {
			return false
		}
	}
	return true
}

// OccurredAt returns the time the payload states for the event itself, in UTC, and whether it states one. It is the
// sender's clock, at best to the millisecond; RTC's ts has only seconds.
func (n *Notification) OccurredAt() (time.Time, bool) {
	f := timeField(n.Info)
	if f == fNone && (!n.Info.Known || n.Info.added != nil) {
		f = n.firstPresent(fSendTs, fReportMs, fLts, fTs)
	}
	switch f {
	case fNone:
		return time.Time{}, false
	case fBeginAt, fEndAt:
		t, err := time.Parse(time.RFC3339, n.id(f))
		return t.UTC(), err == nil
	}
	v, ok := n.integer(f)
	if !ok {
		return time.Time{}, false
	}
	return unixTime(v)
}

// timeField returns the field with the time of a catalogued event. Events of which only the beginning of their session is
// stated have none: a session's start says nothing about when an error in it happened.
func timeField(i Info) field {
	if !i.Known {
		return fNone
	}
	switch i.ProductID {
	case productRTC:
		return fTs
	case productRecording:
		return fSendTs
	case productMediaPull, productMediaPush:
		return fLts
	case productMediaGateway:
		switch i.EventType {
		case 1:
			return fBeginAt
		case 2:
			return fEndAt
		}
	case productConversationalAI, productSpeechToText:
		switch i.EventType {
		case 101:
			return fStartTs
		case 102, 103, 111, 112:
			return fStopTs
		case 201, 202:
			return fReportMs
		case 4, 30, 31, 32, 33:
			return fSendTs
		}
	}
	return fNone
}

// unixTime reads a Unix time whose unit is not certain: documentation and examples differ on seconds or milliseconds for
// lts of Media Push, start_ts and stop_ts, and sendts of speech-to-text. Numbers below 100,000,000,000 are seconds (as
// milliseconds they would lie before March 1973). What then lies outside 2001 to 2100 is no time.
func unixTime(v int64) (time.Time, bool) {
	const (
		firstMillis = 100_000_000_000
		earliest    = 1_000_000_000 // 2001-09-09
		latest      = 4_102_444_800 // 2100-01-01
	)
	switch {
	case v < earliest:
		return time.Time{}, false
	case v < firstMillis:
		v *= 1000
	}
	if v < earliest*1000 || v >= latest*1000 {
		return time.Time{}, false
	}
	return time.UnixMilli(v).UTC(), true
}
