package ncs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// freshIDs are the fields (names in lower case) with an id of its own for each event, session or task.
var freshIDs = setOf("noticeid notificationid sid taskid agent_id xrequestid id")

// Fresh returns the sample as Agora would send it for another event at now: ids are new and of the same form, and times stand to
// now as those of the sample to its notifyMs. It is no health test either. Everything else stays, the order of members included.
func (s Sample) Fresh(now time.Time) []byte {
	f := fresher{ids: map[string]string{}}
	if sent, ok := unixTime(s.NotifyMs); ok {
		f.later = now.Sub(sent)
	}
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out, passOn)
	dec := jsontext.NewDecoder(bytes.NewReader(s.body), passOn)
	for dec.PeekKind() != 0 { // the end: the body was parsed before
		f.copyToken(enc, dec)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// fresher renews the values of one body.
type fresher struct {
	later time.Duration
	ids   map[string]string // new ids by the old ones: an id that stands twice stays one
}

func (f *fresher) copyToken(enc *jsontext.Encoder, dec *jsontext.Decoder) {
	kind, name := dec.PeekKind(), memberName(dec)
	var err error
	if kind == '{' || kind == '}' || kind == '[' || kind == ']' {
		var token jsontext.Token
		if token, err = dec.ReadToken(); err == nil {
			err = enc.WriteToken(token)
		}
	} else {
		var value jsontext.Value
		if value, err = dec.ReadValue(); err == nil {
			err = enc.WriteValue(f.value(name, value))
		}
	}
	if err != nil {
		panic(fmt.Sprintf("BUG: a sample is no JSON: %v", err))
	}
}

// memberName is the name, in lower case, of the member whose value comes next; "" = none does, or an element of a list.
func memberName(dec *jsontext.Decoder) string {
	kind, length := dec.StackIndex(dec.StackDepth())
	if kind != '{' || length%2 == 0 {
		return ""
	}
	return strings.ToLower(dec.StackPointer().LastToken())
}

func (f *fresher) value(name string, v jsontext.Value) jsontext.Value {
	text := string(v)
	if v.Kind() == '"' {
		text = strings.Trim(text, `"`) // ids and times have nothing escaped
	}
	switch {
	case text == testChannel: // Agora's examples of RTC have it, and are then health tests
		return quoted(f.id(text))
	case freshIDs[name] && v.Kind() == '"' && !strings.Contains(text, `\`):
		return quoted(f.id(text))
	case v.Kind() == '0' && (times[name] || name == "notifyms" || name == "clientseq" || strings.HasSuffix(name, "_ms")):
		return jsontext.Value(f.moved(text))
	case name == "beginat" || name == "endat":
		if t, err := time.Parse(time.RFC3339, text); err == nil {
			return quoted(t.Add(f.later).UTC().Format(time.RFC3339))
		}
	}
	return v
}

func quoted(s string) jsontext.Value { return jsontext.Value(`"` + s + `"`) }

// moved is a Unix time, in seconds or milliseconds, later; another number stays.
func (f *fresher) moved(number string) string {
	v, err := strconv.ParseInt(number, 10, 64)
	t, ok := unixTime(v)
	if err != nil || !ok {
		return number
	}
	if t = t.Add(f.later); v == t.Add(-f.later).UnixMilli() {
		return strconv.FormatInt(t.UnixMilli(), 10)
	}
	return strconv.FormatInt(t.Unix(), 10)
}

func (f *fresher) id(old string) string {
	if f.ids[old] == "" {
		f.ids[old] = sameForm(old)
	}
	return f.ids[old]
}

// sameForm draws an id of the form of another one. Of three numbers with colons only the second counts events.
func sameForm(id string) string {
	if parts := strings.Split(id, ":"); len(parts) == 3 {
		return fmt.Sprintf("%s:%d:%s", parts[0], rand.IntN(1_000_000_000), parts[2])
	}
	letters := "abcdefghijklmnopqrstuvwxyz"
	if strings.Trim(id, "0123456789abcdef-") == "" {
		letters = "abcdef"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9':
			return '0' + rand.Int32N(10)
		case r >= 'a' && r <= 'z':
			return rune(letters[rand.IntN(len(letters))])
		case r >= 'A' && r <= 'Z':
			return 'A' + rand.Int32N(26)
		}
		return r
	}, id)
}
