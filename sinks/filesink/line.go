package filesink

import (
	"encoding/json"
	"unicode/utf8"

	"ncs-relay/relay"
)

const (
	rfc3339Milli = "2006-01-02T15:04:05.000Z07:00"
	lineStart    = `{"id":"` // of every line; tells our torn line from a file that is not ours
)

// line is one event. The small fields come first, so that the start of a line says what it is about.
type line struct {
	ID         string  `json:"id"`
	Product    string  `json:"product"`
	Event      string  `json:"event"`
	EventType  int     `json:"event_type"`
	Category   string  `json:"category"`
	Entity     string  `json:"entity"`
	Source     string  `json:"source"`
	ReceivedAt string  `json:"received_at"`
	Replay     uint32  `json:"replay,omitempty"`
	Test       bool    `json:"test,omitempty"`
	Headers    headers `json:"headers"`
	Body       *string `json:"body,omitempty"` // a pointer: an empty body is there too
	BodyBase64 []byte  `json:"body_base64,omitempty"`
}

type headers struct {
	ContentType string `json:"content-type,omitempty"`
	SignatureV1 string `json:"agora-signature,omitempty"`
	SignatureV2 string `json:"agora-signature-v2,omitempty"`
}

// writeLine adds a's line to out.
func writeLine(out *json.Encoder, a relay.Attempt) error {
	l := line{
		ID:         a.ID.String(),
		Product:    a.Info.Product,
		Event:      a.Info.Event,
		EventType:  a.Info.EventType,
		Category:   a.Info.Category,
		Entity:     a.Entity,
		Source:     a.Source,
		ReceivedAt: a.ReceivedAt.UTC().Format(rfc3339Milli),
		Replay:     a.Replay,
		Test:       a.Test,
		Headers:    headers{ContentType: a.ContentType, SignatureV1: a.SignatureV1, SignatureV2: a.SignatureV2},
	}
	// The encoder puts U+FFFD for what is not UTF-8; such a body would not come back as it was.
	if utf8.Valid(a.Body) {
		text := string(a.Body)
		l.Body = &text
	} else {
		l.BodyBase64 = a.Body
	}
	return out.Encode(l)
}
