package kafkaconn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ncs-relay/relay"
)

// ErrNotKafka says that what answers at an address is no Kafka broker.
var ErrNotKafka = relay.Because(relay.ReasonConnection, errors.New("does not speak Kafka"))

// firstRead is how much memory an answer gets before its bytes have come.
const firstRead = 64 << 10

// readFrame reads the answer to the request of the given id, of at most most bytes, and returns it without size and id. What
// it reads is bounded before memory is asked for: any service may listen at the address of a broker.
func readFrame(r io.Reader, id int32, most int) ([]byte, error) {
	var head [8]byte
	if n, err := io.ReadFull(r, head[:]); err != nil {
		if n > 0 && foreign(head[:n]) != "" {
			return nil, fmt.Errorf("%w: %s", ErrNotKafka, foreign(head[:n]))
		}
		return nil, err
	}
	size, found := int32(binary.BigEndian.Uint32(head[:])), int32(binary.BigEndian.Uint32(head[4:]))
	switch {
	case foreign(head[:]) != "":
		return nil, fmt.Errorf("%w: %s", ErrNotKafka, foreign(head[:]))
	case size < 4 || int64(size) > int64(most):
		return nil, fmt.Errorf("%w: it announces an answer of %d bytes, which can have 4 to %d", ErrNotKafka, size, most)
	case found != id:
		return nil, fmt.Errorf("%w: it answers request %d, which was number %d", ErrNotKafka, found, id)
	}
	var body bytes.Buffer
	body.Grow(min(int(size), firstRead))
	_, err := io.CopyN(&body, r, int64(size)-4)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return body.Bytes(), err
}

// foreign says what an answer looks like that begins with the bytes and is none of Kafka; "" = nothing known.
func foreign(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte("HTTP")):
		return "it answers as HTTP servers do; is the port right?"
	case bytes.HasPrefix(head, []byte("SSH-")):
		return "it answers as SSH servers do; is the port right?"
	case len(head) >= 3 && (head[0] == 0x15 || head[0] == 0x16) && head[1] == 3: // a record of TLS: alert or handshake
		return "it wants TLS; is tls missing in the configuration?"
	}
	return ""
}
