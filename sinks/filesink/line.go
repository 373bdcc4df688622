package filesink

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"ncs-relay/relay"
)

const (
	rfc3339Milli = "2006-01-02T15:04:05.000Z07:00"
	lineStart    = `{"id":"` // of every line; tells our torn line from a file that is not ours
)

// appendLine adds a's line to b, byte for byte as encoding/json would, which takes half as much again and leaves garbage. The small
// fields come first, so that the start of a line says what it is about.
func appendLine(b []byte, a *relay.Attempt) []byte {
	b = hex.AppendEncode(append(b, lineStart...), a.ID[:])
	b = appendText(append(b, `","product":`...), a.Info.Product)
	b = appendText(append(b, `,"event":`...), a.Info.Event)
	b = strconv.AppendInt(append(b, `,"event_type":`...), int64(a.Info.EventType), 10)
	b = appendText(append(b, `,"category":`...), a.Info.Category)
	b = appendText(append(b, `,"entity":`...), a.Entity)
	b = appendText(append(b, `,"source":`...), a.Source)
	b = a.ReceivedAt.UTC().AppendFormat(append(b, `,"received_at":"`...), rfc3339Milli)
	b = append(b, '"')
	if a.Replay != 0 {
		b = strconv.AppendUint(append(b, `,"replay":`...), uint64(a.Replay), 10)
	}
	if a.Test {
		b = append(b, `,"test":true`...)
	}
	b = appendHeaders(append(b, `,"headers":{`...), a)
	// U+FFFD would stand for what is not UTF-8; such a body would not come back as it was.
	if utf8.Valid(a.Body) {
		b = appendText(append(b, `},"body":`...), a.Body)
	} else {
		b = base64.StdEncoding.AppendEncode(append(b, `},"body_base64":"`...), a.Body)
		b = append(b, '"')
	}
	return append(b, "}\n"...)
}

func appendHeaders(b []byte, a *relay.Attempt) []byte {
	separator := ""
	for _, h := range [...][2]string{{"content-type", a.ContentType}, {"agora-signature", a.SignatureV1}, {"agora-signature-v2", a.SignatureV2}} {
		if h[1] != "" {
			b = appendText(append(append(append(b, separator...), '"'), h[0]+`":`...), h[1])
			separator = ","
		}
	}
	return b
}

// appendText quotes a text. U+2028 and U+2029, at which some readers would end a line, are escaped.
func appendText[T string | []byte](b []byte, text T) []byte {
	start := len(b)
	b, _ = jsontext.AppendQuote(b, text) // its error is that of invalid UTF-8, for which it writes the replacement character
	if bytes.Contains(b[start:], []byte("\u2028"[:2])) {
		b = append(b[:start], lineEnds.Replace(string(b[start:]))...)
	}
	return b
}

var lineEnds = strings.NewReplacer("\u2028", `\u2028`, "\u2029", `\u2029`)
