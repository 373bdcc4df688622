package simulate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// Event is one event, ready to be sent any number of times.
type Event struct {
	ProductID int
	Type      int

	head, tail []byte // the body around the value of notifyMs
}

// Body is the event as NCS sends it at a time: everything but notifyMs stays the same in each sending.
func (e *Event) Body(notifyMs int64) []byte {
	b := slices.Grow([]byte(nil), len(e.head)+len(e.tail)+20)
	b = append(b, e.head...)
	b = strconv.AppendInt(b, notifyMs, 10)
	return append(b, e.tail...)
}

// newEvent builds the envelope in the key order of captured bodies of Cloud Recording and RTC.
func newEvent(productID, eventType int, noticeID, sid string, payload json.RawMessage) Event {
	return Event{
		ProductID: productID,
		Type:      eventType,
		head:      fmt.Appendf(nil, `{"noticeId":%q,"notifyMs":`, noticeID),
		tail:      fmt.Appendf(nil, `,"eventType":%d,"sid":%q,"payload":%s,"productId":%d}`, eventType, sid, payload, productID),
	}
}

// object encodes an object of names and values in the given order, without white space, as NCS does. Without
// json.Marshal a plan costs half, and the receiver under load shares the machine with it.
func object(namesAndValues ...any) json.RawMessage {
	b := append(make([]byte, 0, 256), '{')
	for i := 0; i < len(namesAndValues); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(b, namesAndValues[i])
		b = append(b, ':')
		b = appendValue(b, namesAndValues[i+1])
	}
	return append(b, '}')
}

func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return strconv.AppendQuote(b, v) // all of ours are plain ASCII, which Go and JSON quote alike
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case uint32:
		return strconv.AppendUint(b, uint64(v), 10)
	case bool:
		return strconv.AppendBool(b, v)
	case json.RawMessage:
		return append(b, v...)
	case []json.RawMessage:
		b = append(b, '[')
		for i, element := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, element...)
		}
		return append(b, ']')
	}
	panic(fmt.Sprintf("BUG: no encoding for %T", value))
}

// hexID draws an id of 32 hex digits, the form of recording ids and of their notice ids.
func hexID(rng *rand.Rand) string { return fmt.Sprintf("%016x%016x", rng.Uint64(), rng.Uint64()) }

// chance is true in a share of the cases.
func chance(rng *rand.Rand, share float64) bool { return rng.Float64() < share }

// between draws a duration.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}
