package kafkalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
)

// mostUnpacked is how many bytes a batch may have unpacked: at most the largest batch, and many times what a topic takes packed.
const mostUnpacked = 96 << 20

var errUnpacked = fmt.Errorf("it has more than %d bytes unpacked", mostUnpacked)

// unpack returns the records of a batch as they were before compression. A packed batch says itself how much memory it needs,
// and kafka-go's readers of zstd and snappy ask for as much as it says.
func unpack(codec compress.Compression, packed []byte) ([]byte, error) {
	switch codec {
	case compress.None:
		return packed, nil
	case compress.Zstd:
		return unpackZstd(packed)
	case compress.Snappy:
		return unpackSnappy(packed)
	}
	known := codec.Codec()
	if known == nil {
		return nil, errors.New("this compression is not known")
	}
	r := known.NewReader(bytes.NewReader(packed))
	defer r.Close()
	unpacked, err := io.ReadAll(io.LimitReader(r, mostUnpacked+1))
	if err == nil && len(unpacked) > mostUnpacked {
		err = errUnpacked
	}
	return unpacked, err
}

var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(mostUnpacked), zstd.WithDecoderMaxWindow(mostUnpacked))
})

func unpackZstd(packed []byte) ([]byte, error) {
	decoder, err := zstdDecoder()
	if err != nil {
		return nil, err
	}
	unpacked, err := decoder.DecodeAll(packed, nil)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = errUnpacked
	}
	return unpacked, err
}

// xerial begins snappy as Java writes it: then come two versions of four bytes, and blocks with their size in front. Others
// write a single block, and nothing else.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func unpackSnappy(packed []byte) (unpacked []byte, err error) {
	if !bytes.HasPrefix(packed, xerial) {
		return appendSnappy(nil, packed)
	}
	f := fields{rest: packed}
	f.take(int64(len(xerial)) + 8)
	for len(f.rest) > 0 {
		var size [4]byte
		copy(size[:], f.take(4))
		block := f.take(int64(binary.BigEndian.Uint32(size[:])))
		if f.bad {
			return nil, io.ErrUnexpectedEOF
		}
		if unpacked, err = appendSnappy(unpacked, block); err != nil {
			return nil, err
		}
	}
	return unpacked, nil
}

func appendSnappy(dst, block []byte) ([]byte, error) {
	size, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if size > mostUnpacked-len(dst) {
		return nil, errUnpacked
	}
	unpacked, err := snappy.Decode(nil, block)
	if dst == nil {
		return unpacked, err
	}
	return append(dst, unpacked...), err
}
