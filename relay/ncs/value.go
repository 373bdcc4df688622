package ncs

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// class says which JSON types a field's value may have and what its canonical text is. Two values with the same
// canonical text are the same value to the identity of an event.
type class uint8

const (
	// text is a string; its canonical text is the string with its escapes resolved.
	text class = iota
	// id is a string, or a whole number in its place: uid is a string in one product and a number in another.
	id
	// integer is a whole number, or a string that holds one: the retired format writes sequence as a string. No sign but a minus,
	// no leading zero, no fraction, no exponent, any length.
	integer
	// positive is an integer above zero.
	positive
)

// classes of the fields; what is not named is text.
var classes = [fieldCount]class{
	fUID: id, fLastUID: id,
	fNotifyMs: integer, fSequence: integer, fSendTs: integer, fServiceType: integer, fTs: integer, fReason: integer, fDuration: integer,
	fLts: integer, fStartTs: integer, fStopTs: integer, fReportMs: integer,
	fClientSeq: positive,
}

// state of a field's value.
type state uint8

const (
	absent  state = iota // no such member, null, or an empty string
	present              // of the field's class
	odd                  // of another JSON type or form, or no Unicode
)

// raw returns the JSON value of a field; nil = no such member.
func (n *Notification) raw(f field) []byte {
	s := n.spans[f]
	if s.end == 0 {
		return nil
	}
	return n.body[s.start:s.end]
}

// value appends the canonical text of a field to dst, if it has one (see canonical for what is odd).
func (n *Notification) value(f field, dst []byte) ([]byte, state) {
	return canonical(dst, n.raw(f), classes[f])
}

// canonical appends the canonical text of a value. It appends text that is no Unicode too, with U+FFFD in its place: to order
// events by, not to tell them apart.
func canonical(dst, raw []byte, c class) ([]byte, state) {
	if len(raw) == 0 || string(raw) == "null" || string(raw) == `""` {
		return dst, absent
	}
	start := len(dst)
	switch jsontext.Kind(raw[0]) {
	case '"':
		if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
			dst = append(dst, raw[1:len(raw)-1]...)
		} else {
			var notUnicode error // raw was checked by the decoder
			if dst, notUnicode = jsontext.AppendUnquote(dst, raw); notUnicode != nil {
				return dst, odd
			}
		}
		if c == text || c == id || isInteger(dst[start:], c) {
			return dst, present
		}
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		if c != text && isInteger(raw, c) {
			return append(dst, raw...), present
		}
	}
	return dst[:start], odd
}

// isInteger reports whether b is a whole number in the only form in which it can be written: digits without leading
// zero, with a minus before all but zero.
func isInteger(b []byte, c class) bool {
	if len(b) > 0 && b[0] == '-' {
		if c == positive {
			return false
		}
		b = b[1:]
		if len(b) > 0 && b[0] == '0' {
			return false
		}
	}
	switch {
	case len(b) == 0:
		return false
	case b[0] == '0':
		return len(b) == 1 && c != positive
	}
	for _, d := range b {
		if d < '0' || d > '9' {
			return false
		}
	}
	return true
}

// text returns a field's string; "" when it is absent or no string.
func (n *Notification) text(f field) string { return n.string(f, text) }

// id returns a field's string or whole number as text; "" when it is absent or odd.
func (n *Notification) id(f field) string { return n.string(f, id) }

func (n *Notification) string(f field, c class) string {
	var scratch [128]byte
	b, _ := canonical(scratch[:0], n.raw(f), c)
	return string(b)
}

// firstID returns the first of some fields that has an id.
func (n *Notification) firstID(fields ...field) string {
	for _, f := range fields {
		if s := n.id(f); s != "" {
			return s
		}
	}
	return ""
}

// idAt is the id at a place below payload; "" when there is none. Of a member that stands there twice the last counts, as in rules.
func (n *Notification) idAt(place []string) string {
	if len(place) == 0 {
		return ""
	}
	raw := n.Payload
	for _, name := range place {
		raw = memberOf(raw, name)
	}
	id, _ := canonical(nil, raw, id)
	return string(id)
}

// memberOf is the JSON value of an object's last member of a name; nil when it is no object or has none.
func memberOf(object []byte, name string) (value []byte) {
	dec := jsontext.NewDecoder(bytes.NewReader(object), passOn)
	if dec.PeekKind() != '{' {
		return nil
	}
	for _, err := dec.ReadToken(); err == nil && dec.PeekKind() != '}'; {
		member, err := dec.ReadToken()
		if err != nil {
			break
		}
		named := member.String() == name
		raw, err := dec.ReadValue()
		if err != nil {
			break
		}
		if named {
			value = bytes.Clone(raw)
		}
	}
	return value
}

func (n *Notification) firstPresent(fields ...field) field {
	for _, f := range fields {
		if n.raw(f) != nil {
			return f
		}
	}
	return fNone
}

// integer returns a field's whole number.
func (n *Notification) integer(f field) (int64, bool) {
	var scratch [32]byte
	b, state := canonical(scratch[:0], n.raw(f), integer)
	if state != present {
		return 0, false
	}
	v, err := strconv.ParseInt(string(b), 10, 64)
	return v, err == nil
}
