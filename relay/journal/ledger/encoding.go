package ledger

import (
	"encoding/binary"
	"errors"
	"time"

	"ncs-relay/relay/journal"
)

// ErrMalformed is what a Decoder reports.
var ErrMalformed = errors.New("malformed record")

// Decoder takes values off the front of B; after the first fault all further values are zero.
type Decoder struct {
	B   []byte
	Err error
}

// Uvarint takes an unsigned number.
func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.B)
	return v * d.advance(n)
}

// Varint takes a number.
func (d *Decoder) Varint() int64 {
	v, n := binary.Varint(d.B)
	return v * int64(d.advance(n))
}

func (d *Decoder) advance(n int) uint64 {
	if n <= 0 {
		d.Err, d.B = ErrMalformed, nil
		return 0
	}
	d.B = d.B[n:]
	return 1
}

// Text takes a string.
func (d *Decoder) Text() string {
	n := d.Uvarint()
	if n > uint64(len(d.B)) {
		d.Err, d.B = ErrMalformed, nil
		return ""
	}
	s := string(d.B[:n])
	d.B = d.B[n:]
	return s
}

// Time takes a time in milliseconds.
func (d *Decoder) Time() time.Time {
	if ms := d.Varint(); ms != 0 {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

// AppendTime appends what Decoder.Time takes.
func AppendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(b, 0)
	}
	return binary.AppendVarint(b, t.UnixMilli())
}

// maxText is what is kept of a reason or an error.
const maxText = 1024

// AppendText appends what Decoder.Text takes, up to 1 KiB of it.
func AppendText(b []byte, s string) []byte {
	s = s[:min(len(s), maxText)]
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// AppendTally appends what Decoder.Tally takes.
func AppendTally(b []byte, t *Tally) []byte {
	for _, v := range t.fields() {
		b = binary.AppendUvarint(b, *v)
	}
	return b
}

// Tally takes a tally.
func (d *Decoder) Tally() (t Tally) {
	for _, v := range t.fields() {
		*v = d.Uvarint()
	}
	return t
}

// AppendPending appends what Decoder.Pending takes: deliveries, ascending.
func AppendPending(b []byte, pending []Delivery) []byte {
	b = binary.AppendUvarint(b, uint64(len(pending)))
	var last Delivery
	for _, d := range pending {
		b = binary.AppendUvarint(b, uint64(d.At-last.At))
		b = binary.AppendVarint(b, d.Received-last.Received)
		last = d
		hasRetry := uint64(0)
		if d.Retry != nil {
			hasRetry = 1
		}
		b = binary.AppendUvarint(b, uint64(d.Size)<<1|hasRetry)
		if d.Retry != nil {
			b = AppendRetry(b, d.Retry)
		}
	}
	return b
}

// Pending takes deliveries.
func (d *Decoder) Pending() []Delivery {
	n := d.Uvarint()
	list := make([]Delivery, 0, min(n, uint64(len(d.B))/2)) // each takes two bytes at least
	var last Delivery
	for ; n > 0 && d.Err == nil; n-- {
		last.At += Offset(d.Uvarint())
		last.Received += d.Varint()
		size := d.Uvarint()
		last.Size, last.Retry = int64(size>>1), nil
		if size&1 == 1 {
			r := d.Retry()
			last.Retry = &r
		}
		list = append(list, last)
	}
	return list
}

// AppendRetry appends what Decoder.Retry takes.
func AppendRetry(b []byte, r *journal.Retry) []byte {
	b = binary.AppendUvarint(b, uint64(r.Attempts))
	b = AppendText(AppendText(b, r.FirstError), r.LastError)
	for _, t := range [...]time.Time{r.FirstFailed, r.LastFailed, r.Next} {
		b = AppendTime(b, t)
	}
	return b
}

// Retry takes the history of a delivery that failed.
func (d *Decoder) Retry() journal.Retry {
	return journal.Retry{Attempts: int(d.Uvarint()), FirstError: d.Text(), LastError: d.Text(),
		FirstFailed: d.Time(), LastFailed: d.Time(), Next: d.Time()}
}

// LetterOverhead is what a letter takes besides its body, roughly.
const LetterOverhead = 256

// EncodeLetter encodes all of a letter but its position.
func EncodeLetter(l *journal.DeadLetter) []byte {
	b := binary.AppendUvarint(nil, uint64(l.Size))
	b = AppendTime(AppendText(b, l.Reason), l.At)
	return AppendText(AppendRetry(b, &l.Retry), l.Cause)
}

// DecodeLetter is the opposite of EncodeLetter.
func DecodeLetter(pos journal.Position, b []byte) (journal.DeadLetter, error) {
	d := Decoder{B: b}
	l := journal.DeadLetter{Position: pos, Size: int64(d.Uvarint()), Reason: d.Text(), At: d.Time(), Retry: d.Retry()}
	if len(d.B) > 0 { // earlier versions end here
		l.Cause = d.Text()
	}
	return l, d.Err
}
