package kafkalog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go/compress"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn/batch"
)

// at returns a batch as a log has it: records beginning at the offset.
func at(offset int64, codec compress.Compression, values ...string) []byte {
	var b batch.Builder
	b.Reset()
	for i, value := range values {
		b.Add(appendRecord(nil, &Record{Key: []byte("k"), Value: []byte(value), Headers: []Header{{"h", []byte("v")}}}, i))
	}
	made, err := b.Build(batch.Head{Producer: 7, First: 1000, Newest: 2000}, codec)
	if err != nil {
		panic(err)
	}
	made = made[batch.SizeBytes:]
	binary.BigEndian.PutUint64(made, uint64(offset))
	return made
}

// with returns a batch whose head is changed, with its checksum right.
func with(b []byte, change func(head []byte)) []byte {
	b = bytes.Clone(b)
	change(b)
	return checked(b)
}

func checked(b []byte) []byte {
	if len(b) >= headSize {
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[checkEnd:], castagnoli))
	}
	return b
}

func attribute(bit uint16) func([]byte) {
	return func(head []byte) { binary.BigEndian.PutUint16(head[21:], binary.BigEndian.Uint16(head[21:])|bit) }
}

func offsetsIn(records []Record) []int64 {
	offsets := []int64{}
	for i := range records {
		offsets = append(offsets, records[i].Offset)
	}
	return offsets
}

func TestGapsAndMarkersArePassedOver(t *testing.T) {
	t.Parallel()
	none := compress.None
	empty := with(at(8, none, "x"), func(head []byte) { // what compaction leaves of a batch: its offsets
		binary.BigEndian.PutUint32(head[23:], 3)
		binary.BigEndian.PutUint32(head[57:], 0)
		binary.BigEndian.PutUint32(head[8:], headSize-sizeEnd)
	})
	empty = checked(empty[:headSize])
	longer := with(at(12, none, "l", "m"), func(head []byte) { binary.BigEndian.PutUint32(head[23:], 7) }) // its last ones are gone
	marker := with(at(5, none, "how it ended"), attribute(controlBit))
	whole := at(2, none, "a", "b", "c")
	for name, test := range map[string]struct {
		raw    []byte
		offset int64
		want   []int64
		next   int64
	}{
		"from within a batch":          {whole, 3, []int64{3, 4}, 5},
		"from before the first":        {whole, 0, []int64{2, 3, 4}, 5},
		"a batch before what is read":  {slices.Concat(at(0, none, "x", "y"), whole), 2, []int64{2, 3, 4}, 5},
		"a marker":                     {slices.Concat(whole, marker), 2, []int64{2, 3, 4}, 6},
		"only a marker":                {marker, 5, []int64{}, 6},
		"an empty batch":               {slices.Concat(whole, empty), 2, []int64{2, 3, 4}, 12},
		"only an empty batch":          {empty, 8, []int64{}, 12},
		"a batch without its last":     {longer, 12, []int64{12, 13}, 20},
		"only what was its last":       {longer, 16, []int64{}, 20},
		"the last cut off":             {slices.Concat(whole, at(5, none, "d")[:70]), 2, []int64{2, 3, 4}, 5},
		"the last cut off in its size": {slices.Concat(whole, at(5, none, "d")[:11]), 2, []int64{2, 3, 4}, 5},
		"the last cut off in its head": {slices.Concat(whole, at(5, none, "d")[:30]), 2, []int64{2, 3, 4}, 5},
		"nothing":                      {nil, 2, []int64{}, 2},
	} {
		records, next, err := decode(test.raw, test.offset, 1<<20)
		require.NoError(t, err, name)
		require.Equal(t, test.want, offsetsIn(records), name)
		require.Equal(t, test.next, next, name)
	}
}

func TestTheTimeOfAppendingCounts(t *testing.T) {
	t.Parallel()
	records, _, err := decode(at(0, compress.None, "x"), 0, 1)
	require.NoError(t, err)
	require.EqualValues(t, 1000, records[0].Time.UnixMilli())
	records, _, err = decode(with(at(0, compress.None, "x"), attribute(appendTimeBit)), 0, 1)
	require.NoError(t, err)
	require.EqualValues(t, 2000, records[0].Time.UnixMilli())
}

func TestWhatIsCorruptIsSaidWithItsOffset(t *testing.T) {
	t.Parallel()
	be := binary.BigEndian
	good := at(4, compress.None, "a", "b")
	plain := func(change func(b []byte)) []byte { b := bytes.Clone(good); change(b); return b }
	hostile := func(change func(head []byte)) []byte { return with(good, change) }
	for name, test := range map[string]struct {
		raw   []byte
		words string
	}{
		"a flipped bit":             {plain(func(b []byte) { b[70] ^= 1 }), "its checksum is"},
		"format 1":                  {plain(func(b []byte) { b[16] = 1 }), "its format is 1, and only 2 is known"},
		"a size below its head's":   {plain(func(b []byte) { be.PutUint32(b[8:], 48) }), "its size is 60"},
		"a negative size":           {plain(func(b []byte) { be.PutUint32(b[8:], 1<<31) }), "its size is -2147483636"},
		"cut off":                   {good[:len(good)-1], "it is cut off after"},
		"a negative offset":         {hostile(func(b []byte) { be.PutUint64(b, 1<<63) }), "records from"},
		"an offset that overflows":  {hostile(func(b []byte) { be.PutUint64(b, 1<<63-1) }), "records from"},
		"more records than offsets": {hostile(func(b []byte) { be.PutUint32(b[57:], 3) }), "it has 3 records from 4 to 5"},
		"more records than bytes":   {hostile(func(b []byte) { be.PutUint32(b[57:], 1<<30); be.PutUint32(b[23:], 1<<30) }), "bytes are 1073741824 records"},
		"one record more":           {hostile(func(b []byte) { be.PutUint32(b[57:], 3); be.PutUint32(b[23:], 2) }), "record 3 of 3 is none"},
		"one record less":           {hostile(func(b []byte) { be.PutUint32(b[57:], 1) }), "bytes follow its records"},
		"a record that is longer":   {hostile(func(b []byte) { b[headSize]++ }), "record 1 of 2 is none"},
		"a length that is none":     {hostile(func(b []byte) { copy(b[headSize:], bytes.Repeat([]byte{0xff}, 11)) }), "record 1 of 2 is none"},
		"a negative length":         {hostile(func(b []byte) { b[headSize] = 3 }), "record 1 of 2 is none"},
		"a key beyond the record":   {hostile(func(b []byte) { b[headSize+4] = 100 }), "record 1 of 2 is none"},
		"headers beyond the record": {hostile(func(b []byte) { b[headSize+8] = 100 }), "record 1 of 2 is none"},
		"an offset twice":           {hostile(func(b []byte) { b[headSize+14+3] = 0 }), "record 2 of 2 is none"},
		"an unknown codec":          {hostile(attribute(6)), "this compression is not known"},
		"what is not packed":        {hostile(attribute(uint16(compress.Gzip))), "unpack gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := decode(test.raw, 4, 1<<20)
			var corrupt *Corrupt
			require.ErrorAs(t, err, &corrupt)
			require.EqualValues(t, 4, corrupt.Offset)
			require.ErrorContains(t, err, "the batch at offset 4: ")
			require.ErrorContains(t, err, test.words)

			records, next, err := decode(slices.Concat(at(2, compress.None, "x", "y"), test.raw), 2, 1<<20)
			require.NoError(t, err, "what is before it can be read")
			require.Equal(t, []int64{2, 3}, offsetsIn(records))
			require.EqualValues(t, 4, next)
		})
	}
}

// A batch says how large it is unpacked, and a little can be said to be much.
func TestWhatIsUnpackedIsBounded(t *testing.T) {
	t.Parallel()
	zeros := string(make([]byte, mostUnpacked+1))
	for _, codec := range []compress.Compression{compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		_, _, err := decode(at(0, codec, zeros), 0, 1<<20)
		require.ErrorIs(t, err, errUnpacked, codec)
		require.ErrorContains(t, err, "unpack "+codec.String()+": it has more than 100663296 bytes unpacked")
		records, _, err := decode(at(0, codec, zeros[:mostUnpacked-100]), 0, 1<<20)
		require.NoError(t, err, codec)
		require.Len(t, records, 1)
	}
	for name, announced := range map[string][]byte{ // of these bytes nothing follows
		"snappy":            {0xff, 0xff, 0xff, 0xff, 0x0f},
		"snappy of a frame": append(slices.Concat(xerial, make([]byte, 8)), 0xff, 0xff, 0xff, 0xff),
	} {
		_, err := unpack(compress.Snappy, announced)
		require.Error(t, err, name)
	}
}

// Of a chunk that is much larger unpacked the rest is left for the next.
func TestAChunkIsBoundedUnpacked(t *testing.T) {
	t.Parallel()
	raw := slices.Concat(at(0, compress.Zstd, string(make([]byte, 5000))), at(1, compress.Zstd, "b"), at(2, compress.Zstd, "c"))
	records, next, err := decode(raw, 0, 1000)
	require.NoError(t, err)
	require.Equal(t, []int64{0}, offsetsIn(records))
	require.EqualValues(t, 1, next)
	records, _, err = decode(raw, 0, 10000)
	require.NoError(t, err)
	require.Len(t, records, 3)
}

// FuzzDecode: whatever a broker sends is an error or records in order, and takes memory in proportion to what came.
func FuzzDecode(f *testing.F) {
	for _, codec := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		f.Add(slices.Concat(at(3, codec, "a", "b", "c"), at(6, codec, "d")), true, int64(4))
	}
	f.Add(with(at(5, compress.None, "marker"), attribute(controlBit)), true, int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, check bool, offset int64) {
		if check { // else a checksum would keep nearly all from being read
			raw = checked(bytes.Clone(raw))
		}
		records, next, err := decode(raw, offset, 1<<20)
		if err != nil {
			require.ErrorAs(t, err, new(*Corrupt))
			return
		}
		require.GreaterOrEqual(t, next, offset)
		for i, r := range records {
			require.GreaterOrEqual(t, r.Offset, offset)
			require.Less(t, r.Offset, next)
			require.True(t, i == 0 || records[i-1].Offset < r.Offset)
		}
	})
}

// BenchmarkDecode reads a batch of 50 notifications of 700 bytes with ten headers each.
func BenchmarkDecode(b *testing.B) {
	for _, codec := range []compress.Compression{compress.None, compress.Lz4, compress.Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			var builder batch.Builder
			builder.Reset()
			record := Record{Value: bytes.Repeat([]byte(`{"noticeId":"x"}`), 44)}
			for i := range 10 {
				record.Headers = append(record.Headers, Header{fmt.Sprint("header-", i), []byte("some value")})
			}
			for i := range 50 {
				builder.Add(appendRecord(nil, &record, i))
			}
			made, err := builder.Build(batch.Head{}, codec)
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := decode(made[batch.SizeBytes:], 0, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*50), "ns/record")
		})
	}
}
