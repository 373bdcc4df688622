package ncs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
)

// EventID identifies an event: the first 16 bytes of SHA-256 over key and fingerprint. Every copy of an event has the
// same id, on every relay and in any order of arrival. It is also the trace id of the event's trace.
type EventID [16]byte

// String returns 32 lower-case hex digits.
func (id EventID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns what String gives.
func (id EventID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads what MarshalText gives.
func (id *EventID) UnmarshalText(b []byte) error {
	parsed, err := ParseEventID(string(b))
	if err == nil {
		*id = parsed
	}
	return err
}

// ParseEventID reads 32 hex digits, of either case.
func ParseEventID(s string) (EventID, error) {
	var id EventID
	if len(s) != hex.EncodedLen(len(id)) {
		return EventID{}, fmt.Errorf("event id %q: want %d hex digits", detail(s), hex.EncodedLen(len(id)))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return EventID{}, fmt.Errorf("event id %q: want %d hex digits", s, hex.EncodedLen(len(id)))
	}
	return id, nil
}

// Key is what duplicates are recognised by; two events may share it and differ in ID (a conflict).
type Key [16]byte

// Identity says which event a notification reports. As ID is derived from key and fingerprint, two notifications of the
// same Key report the same event exactly if their IDs are equal; nobody needs the fingerprint itself.
type Identity struct {
	Key Key
	ID  EventID
}

// column is one field of a line of the identity table.
type column struct {
	field field
	// optional fields may be absent and then count as absent. They are those that the product's documentation does not
	// promise in each such event.
	optional bool
}

// line is one line of the identity table: which fields are the key and which the fingerprint of an event.
//
// A line holds for a notification only if each of its fields has a value of its class (see classes), optional ones or
// none. Otherwise the notification is identified by its notice id: passing a copy is better than losing an event
// because a field did not mean what it usually means.
type line struct {
	tag         string // part of the key, so that lines never share one; changing it changes the ids of all its events
	key         []column
	fingerprint []column
}

var (
	// recordingLine: sequence counts per recording, perhaps per module, and may start again after a failover, which is
	// why sendts is demanded. uid and serviceType are not demanded: no page states a serviceType for 80 and 81, and to the
	// millisecond the others tell events apart without them.
	recordingLine = line{
		tag:         "recording",
		key:         []column{{field: fSID}, {field: fSequence}},
		fingerprint: []column{{field: fUID, optional: true}, {field: fSendTs}, {field: fServiceType, optional: true}},
	}
	transcoderLine = line{
		tag: "cloud_transcoder",
		key: []column{{field: fTaskID}, {field: fSequence}, {field: fSendTs}},
	}
	// rtcUserLine: the session id is not in every project's notifications; clientSeq and ts tell a user's events apart without
	// it. Joins have no reason and no duration.
	rtcUserLine = line{
		tag:         "rtc_user",
		key:         []column{{field: fEnvelopeSID, optional: true}, {field: fChannelName}, {field: fUID}, {field: fClientSeq}},
		fingerprint: []column{{field: fTs}, {field: fReason, optional: true}, {field: fDuration, optional: true}},
	}
	// rtcChannelLine demands the session id: ts has only seconds, and a channel that is created, left and created again
	// within one differs by its session alone.
	rtcChannelLine = line{
		tag: "rtc_channel",
		key: []column{{field: fEnvelopeSID}, {field: fChannelName}, {field: fTs}},
	}
	playerLine    = line{tag: "player", key: []column{{field: fPlayerID}, {field: fLts}}}
	converterLine = line{tag: "converter", key: []column{{field: fConverterID}, {field: fLts}}}
	gatewayLine   = line{tag: "gateway", key: []column{{field: fSID}}}
	// agentJoinedLine: an agent that has just joined has neither stop_ts nor status.
	agentJoinedLine = line{
		tag:         "agent",
		key:         []column{{field: fAgentID}, {field: fStartTs}, {field: fStopTs, optional: true}},
		fingerprint: []column{{field: fStatus, optional: true}},
	}
	agentLeftLine = line{
		tag:         "agent",
		key:         []column{{field: fAgentID}, {field: fStartTs}, {field: fStopTs}},
		fingerprint: []column{{field: fStatus, optional: true}},
	}
	callLine   = line{tag: "call", key: []column{{field: fAgentID}, {field: fState}, {field: fReportMs}}}
	noticeLine = line{tag: "notice", key: []column{{field: fNoticeID}}}
)

// tableLine returns the line that the table has for an event type.
func tableLine(product, eventType int) *line {
	switch product {
	case productRecording:
		if isCloudTranscoder(eventType) {
			return &transcoderLine
		}
		return &recordingLine
	case productRTC:
		switch eventType {
		case 101, 102:
			return &rtcChannelLine
		case 103, 104, 105, 106, 107, 108, 111, 112:
			return &rtcUserLine
		}
	case productMediaPull:
		if eventType == 1 || eventType == 3 {
			return &playerLine
		}
	case productMediaPush:
		if eventType == 1 || eventType == 4 {
			return &converterLine
		}
	case productMediaGateway:
		if eventType == 1 || eventType == 2 {
			return &gatewayLine
		}
	case productConversationalAI, productSpeechToText:
		switch {
		case eventType == 101:
			return &agentJoinedLine
		case eventType == 102:
			return &agentLeftLine
		case product == productConversationalAI && (eventType == 201 || eventType == 202):
			return &callLine
		}
	}
	return &noticeLine
}

// identityLine returns the line that holds for this notification.
func (n *Notification) identityLine() *line {
	l := tableLine(n.Info.ProductID, n.EventType)
	if n.fits(l.key) && n.fits(l.fingerprint) {
		return l
	}
	return &noticeLine
}

func (n *Notification) fits(columns []column) bool {
	var scratch [128]byte
	for _, c := range columns {
		_, state := n.value(c.field, scratch[:0])
		if state == odd || state == absent && !c.optional {
			return false
		}
	}
	return true
}

// Identify says which event the notification reports, as received at a source. It depends on productId, eventType and the
// fields of the event's line only: never on notifyMs, which changes with each resend, nor on the order of members, white space or
// the way strings are escaped. A whole number is the same value with and without quotes.
func (n *Notification) Identify(source string) Identity {
	var stack [512]byte
	b := appendString(stack[:0], n.line.tag)
	b = appendString(b, source)
	b = appendInt(b, n.Info.ProductID)
	b = appendInt(b, n.EventType)
	key := digest(n.appendColumns(b, n.line.key))
	b = append(stack[:0], key[:]...)
	return Identity{Key: key, ID: digest(n.appendColumns(b, n.line.fingerprint))}
}

// IdentifyOpaque identifies a body that is no notification by its bytes: a copy of exactly the same bytes is the same.
func IdentifyOpaque(source string, body []byte) Identity {
	sum := sha256.Sum256(body)
	var stack [256]byte
	b := appendString(stack[:0], "opaque")
	b = appendString(b, source)
	key := digest(append(b, sum[:]...))
	return Identity{Key: key, ID: digest(key[:])}
}

func digest(b []byte) [16]byte {
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// appendColumns appends the canonical text of each column with its length in front, which keeps ("ab", "c") from looking
// like ("a", "bc"). An absent value has length 0, which no present one has.
func (n *Notification) appendColumns(b []byte, columns []column) []byte {
	for _, c := range columns {
		at := len(b)
		b = append(b, 0, 0, 0, 0)
		b, _ = n.value(c.field, b)
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func appendInt(b []byte, v int) []byte { return appendString(b, strconv.Itoa(v)) }
