package kafkaconn

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/segmentio/kafka-go/protocol"
)

// Answers are decoded here and not by kafka-go, whose decoder asks for as much memory as an array or a string says that it
// needs, and goes on after its bytes have ended. Here nothing is longer than what is left of its frame. The form of an answer
// is that of kafka-go's types, whose tags say in which versions a field is there.

// decode reads an answer of the given version, without its id, into the value that answer points to. Fields of bytes stay
// parts of frame.
func decode(frame []byte, version int16, answer protocol.Message) error {
	target := reflect.ValueOf(answer).Elem()
	flexible := isFlexible(target.Type(), version)
	d := &decoder{rest: frame}
	if flexible {
		d.skipTagged() // of the answer's head
	}
	formOf(target.Type(), version, flexible)(d, target)
	if d.cut {
		return fmt.Errorf("%w: its answer to %s is not whole", ErrNotKafka, answer.ApiKey())
	}
	return nil
}

// Unmarshal reads what kafka-go's protocol.Marshal has written into the value that v points to, as answers are read: it takes
// no more memory than data has room for, and notices what is missing. Fields of bytes stay parts of data.
func Unmarshal(data []byte, version int16, v any) error {
	target := reflect.ValueOf(v).Elem()
	d := &decoder{rest: data}
	formOf(target.Type(), version, false)(d, target)
	if d.cut {
		return fmt.Errorf("%d bytes are not a whole %T of version %d", len(data), v, version)
	}
	return nil
}

// decoder is what is left of a frame.
type decoder struct {
	rest []byte
	cut  bool // something was longer than the rest; all that follows is zero
}

// take returns the next n bytes, or nil if there are fewer.
func (d *decoder) take(n uint64) []byte {
	if d.cut || n > uint64(len(d.rest)) {
		d.cut, d.rest = true, nil
		return nil
	}
	taken := d.rest[:n:n]
	d.rest = d.rest[n:]
	return taken
}

// integer reads a number of the given bytes.
func (d *decoder) integer(size uint64) int64 {
	taken := d.take(size)
	if d.cut {
		return 0
	}
	n := int64(int8(taken[0])) // the first byte has the sign
	for _, b := range taken[1:] {
		n = n<<8 | int64(b)
	}
	return n
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		size = len(d.rest) + 1
	}
	d.take(uint64(size))
	return n
}

// length reads how many bytes or elements follow; null is 0. Each takes at least a byte, so there cannot be more than those.
func (d *decoder) length(flexible bool, size uint64) int {
	n := int64(0)
	if flexible {
		n = int64(min(d.uvarint(), uint64(len(d.rest))+2)) - 1
	} else {
		n = d.integer(size)
	}
	if n > int64(len(d.rest)) {
		d.cut, d.rest = true, nil
		return 0
	}
	return int(max(n, 0))
}

// skipTagged skips optional fields, of which we know none.
func (d *decoder) skipTagged() {
	for n := d.uvarint(); n > 0 && !d.cut; n-- {
		d.uvarint() // which field it is
		d.take(d.uvarint())
	}
}

// form reads a value of one type.
type form func(d *decoder, v reflect.Value)

type formKey struct {
	of       reflect.Type
	version  int16
	flexible bool
}

var forms sync.Map // of form by formKey: there are as many as answers and versions in use

func formOf(t reflect.Type, version int16, flexible bool) form {
	key := formKey{t, version, flexible}
	if known, found := forms.Load(key); found {
		return known.(form)
	}
	made := makeForm(t, version, flexible)
	forms.Store(key, made)
	return made
}

func makeForm(t reflect.Type, version int16, flexible bool) form {
	switch t.Kind() {
	case reflect.Bool:
		return func(d *decoder, v reflect.Value) { v.SetBool(d.integer(1) != 0) }
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		size := uint64(t.Size())
		return func(d *decoder, v reflect.Value) { v.SetInt(d.integer(size)) }
	case reflect.String:
		return func(d *decoder, v reflect.Value) { v.SetString(string(d.take(uint64(d.length(flexible, 2))))) }
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return func(d *decoder, v reflect.Value) { v.SetBytes(d.take(uint64(d.length(flexible, 4)))) }
		}
		return arrayForm(t, formOf(t.Elem(), version, flexible), flexible)
	case reflect.Struct:
		return structForm(t, version, flexible)
	}
	panic("BUG: answers with a field of type " + t.String() + " are not known")
}

// arrayForm takes memory for elements as they come, not as they are announced.
func arrayForm(t reflect.Type, element form, flexible bool) form {
	return func(d *decoder, v reflect.Value) {
		n := d.length(flexible, 4)
		v.Set(reflect.MakeSlice(t, 0, min(n, 16)))
		for i := 0; i < n && !d.cut; i++ {
			v.Grow(1)
			v.SetLen(i + 1)
			before := len(d.rest)
			element(d, v.Index(i))
			d.cut = d.cut || len(d.rest) == before // elements of no bytes could be any number
		}
	}
}

// unsaid are the values of fields in versions of an answer that do not have them, where that is not zero, as in Kafka's own
// description of its messages. What was not said must not look like something that was.
var unsaid = map[string]int64{
	"ClusterAuthorizedOperations": math.MinInt32,
	"TopicAuthorizedOperations":   math.MinInt32,
	"ControllerID":                -1,
	"LeaderEpoch":                 -1,
	"ComittedLeaderEpoch":         -1,
	"LogAppendTime":               -1,
	"LogStartOffset":              -1,
	"LastStableOffset":            -1,
	"PreferredReadReplica":        -1,
	"NumPartitions":               -1,
	"ReplicationFactor":           -1,
}

func structForm(t reflect.Type, version int16, flexible bool) form {
	var indices []int
	var fields []form
	for i := range t.NumField() {
		field := t.Field(i)
		switch value, special := unsaid[field.Name]; {
		case !field.IsExported():
			continue
		case isIn(field, version):
			fields = append(fields, formOf(field.Type, version, flexible))
		case special:
			fields = append(fields, func(_ *decoder, v reflect.Value) { v.SetInt(value) })
		default:
			continue
		}
		indices = append(indices, i)
	}
	return func(d *decoder, v reflect.Value) {
		for i, field := range fields {
			field(d, v.Field(indices[i]))
		}
		if flexible {
			d.skipTagged()
		}
	}
}

// versions are the beginning of each part of a field's tag, such as min=v0,max=v5|min=v6,max=v7,compact.
var versions = regexp.MustCompile(`^min=v(\d+),max=v(\d+)`)

// isIn reports whether a field is in answers of the version.
func isIn(field reflect.StructField, version int16) bool {
	for part := range strings.SplitSeq(field.Tag.Get("kafka"), "|") {
		if found := versions.FindStringSubmatch(part); found != nil && number(found[1]) <= version && version <= number(found[2]) {
			return true
		}
	}
	return false
}

// isFlexible reports whether answers of the version have optional fields, and with them shorter lengths.
func isFlexible(t reflect.Type, version int16) bool {
	for i := range t.NumField() {
		for part := range strings.SplitSeq(t.Field(i).Tag.Get("kafka"), "|") {
			if found := versions.FindStringSubmatch(part); found != nil && strings.Contains(part, ",tag") && number(found[1]) <= version {
				return true
			}
		}
	}
	return false
}

func number(digits string) int16 {
	n, err := strconv.ParseInt(digits, 10, 16)
	if err != nil {
		panic("BUG: the version of a field is not a number: " + err.Error())
	}
	return int16(n)
}
