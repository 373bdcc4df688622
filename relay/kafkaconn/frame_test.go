package kafkaconn

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/consumer"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
)

// listen serves connections one after the other until the test ends.
func listen(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-ended })
	return listener.Addr().String()
}

// request reads one request and returns its id.
func request(conn net.Conn) (id uint32) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil {
		return 0
	}
	_, _ = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head))-8)
	return binary.BigEndian.Uint32(head[8:])
}

// framed puts size and id before an answer.
func framed(size int, id uint32, body ...byte) []byte {
	frame := binary.BigEndian.AppendUint32(nil, uint32(size))
	return append(binary.BigEndian.AppendUint32(frame, id), body...)
}

func TestWhatDoesNotSpeakKafkaIsSaid(t *testing.T) {
	t.Parallel()
	one := []byte{0, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0, 8} // version 0: no error, one API
	for name, test := range map[string]struct {
		answer func(id uint32) []byte
		words  string
	}{
		"HTTP":                           {func(uint32) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, "it answers as HTTP servers do"},
		"SSH":                            {func(uint32) []byte { return []byte("SSH-2.0-x\r\n") }, "it answers as SSH servers do"},
		"a TLS alert":                    {func(uint32) []byte { return []byte("\x15\x03\x03\x00\x02\x02\x46") }, "is tls missing"},
		"another request's id":           {func(id uint32) []byte { return framed(4+len(one), id+1, one...) }, "it answers request 2, which was number 1"},
		"a size just beyond the bound":   {func(id uint32) []byte { return framed(small+1, id) }, "65537 bytes, which can have 4 to 65536"},
		"a size of less than its id":     {func(id uint32) []byte { return framed(3, id) }, "announces an answer of 3 bytes"},
		"a negative size":                {func(id uint32) []byte { return framed(-1, id) }, "announces an answer of -1 bytes"},
		"one element more than there is": {func(id uint32) []byte { return framed(4+len(one), id, append([]byte{0, 0, 0, 0, 0, 2}, one[6:]...)...) }, "its answer to ApiVersions is not whole"},
		"a frame that ends early":        {func(id uint32) []byte { return framed(4+2, id, 0, 0) }, "its answer to ApiVersions is not whole"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := listen(t, func(conn net.Conn) { _, _ = conn.Write(test.answer(request(conn))) })
			c := New(Config{Brokers: []string{address}, ClientID: "test"})
			defer c.Close()
			_, err := c.Topic(t.Context(), "t")
			t.Log(err)
			require.ErrorIs(t, err, ErrNotKafka)
			require.ErrorContains(t, err, address)
			require.ErrorContains(t, err, test.words)
			require.Equal(t, relay.ReasonConnection, relay.ReasonOf(Explain(err)))
			require.Empty(t, c.conns.open)
		})
	}
}

// The guard is there for every answer, not only for the first.
func TestEveryAnswerIsJudged(t *testing.T) {
	t.Parallel()
	address := listen(t, func(conn net.Conn) {
		id := request(conn)
		_, _ = conn.Write(framed(4+12, id, 0, 0, 0, 0, 0, 1, 0, byte(protocol.Metadata), 0, 0, 0, 1))
		request(conn)
		_, _ = conn.Write(framed(4+2*medium+1, id+1))
	})
	c := New(Config{Brokers: []string{address}, ClientID: "test"})
	defer c.Close()
	_, err := c.Topic(t.Context(), "t")
	require.ErrorIs(t, err, ErrNotKafka)
	require.ErrorContains(t, err, "announces an answer of 2097157 bytes, which can have 4 to 2097152")
}

// Servers of HTTP wait for the end of a line that never comes.
func TestAnHTTPServerAmongTheBrokersIsLoggedAndPassedOver(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "t"))
	require.NoError(t, err)
	defer fake.Close()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	strict := listen(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	for name, address := range map[string]string{"answers at once": strict, "waits": server.Listener.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			c := New(Config{Brokers: []string{address, fake.ListenAddrs()[0]}, ClientID: "test", Logger: slog.New(slog.NewTextHandler(&log, nil))})
			defer c.Close()
			found, err := c.Topic(t.Context(), "t")
			require.NoError(t, err)
			require.Len(t, found.Leaders, 3)
			require.Contains(t, log.String(), "broker="+address)
			require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
			problems := c.TrySeeds(t.Context())
			require.Len(t, problems, 1)
			require.ErrorContains(t, problems[0], address)
		})
	}
}

func TestABrokerThatIsAwayIsNoProblemOfTheOthers(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer fake.Close()
	c := New(Config{Brokers: []string{"127.0.0.1:1", fake.ListenAddrs()[0]}, ClientID: "test"})
	defer c.Close()
	require.Empty(t, c.TrySeeds(t.Context()))
}

// What is missing or unwanted shows as a connection that ends without a word, as brokers do it.
func TestAHangUpSaysWhatToLookAt(t *testing.T) {
	t.Parallel()
	hangUp := listen(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1000)) })
	versionsOnly := listen(t, func(conn net.Conn) {
		_, _ = conn.Write(framed(4+12, request(conn), 0, 0, 0, 0, 0, 1, 0, byte(protocol.Metadata), 0, 0, 0, 1))
		request(conn)
	})
	for name, test := range map[string]struct {
		address string
		tls     *keyfile.TLS
		words   string
	}{
		"at the first request": {hangUp, nil, "is tls missing in the configuration?"},
		"in TLS":               {hangUp, &keyfile.TLS{InsecureSkipVerify: true}, "is tls unwanted in the configuration?"},
		"after the versions":   {versionsOnly, nil, "is sasl missing in the configuration?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := New(Config{Brokers: []string{test.address}, ClientID: "test", TLS: test.tls})
			defer c.Close()
			_, err := c.Topic(t.Context(), "t")
			require.ErrorContains(t, err, test.words)
			require.Equal(t, relay.ReasonConnection, relay.ReasonOf(err))
		})
	}
}

func TestABrokerCannotAskForEndlessHashing(t *testing.T) {
	t.Parallel()
	c := &credentials{&SASL{Mechanism: "scram-sha-256", Username: "relay", Password: relay.NewSecret("secret")}}
	session, _, err := c.Start(t.Context())
	require.NoError(t, err)
	_, _, err = session.Next(t.Context(), []byte("r=x,s=AAAA,i=100001"))
	require.ErrorContains(t, err, "more than 100000 iterations")
}

// fill sets every exported field to something.
func fill(random *rand.Rand, v reflect.Value, version int16) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(strings.Repeat("ä", random.IntN(100)))
	case reflect.Slice:
		n := random.IntN(4)
		if v.Type().Elem().Kind() != reflect.Uint8 && n == 0 {
			n = 1
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(random, v.Index(i), version)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			switch f := v.Type().Field(i); {
			case f.IsExported() && isIn(f, version):
				fill(random, v.Field(i), version)
			case unsaid[f.Name] != 0:
				v.Field(i).SetInt(unsaid[f.Name])
			}
		}
	case reflect.Uint8:
		v.SetUint(uint64(random.IntN(256)))
	default:
		v.SetInt(random.Int64() >> (64 - 8*v.Type().Size()))
	}
}

// isOurs reports whether kafka-go has another answer to the request than we: TestRecordsAreReadAsTheyCame,
// TestAHeartbeatsErrorIsRead.
func isOurs(key protocol.ApiKey) bool { return key == protocol.Fetch || key == protocol.Heartbeat }

// Every answer, in every version we may agree on, is written by kafka-go and read by us.
func TestAnswersAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for key, a := range answers {
		if isOurs(key) {
			continue
		}
		for version := key.MinVersion(); version <= key.MaxVersion(); version++ {
			for range 3 {
				want, got := a.empty(), a.empty()
				fill(random, reflect.ValueOf(want).Elem(), version)
				var wire bytes.Buffer
				require.NoError(t, protocol.WriteResponse(&wire, version, 7, want))
				frame, err := readFrame(&wire, 7, wire.Len())
				require.NoError(t, err)
				require.NoError(t, decode(frame, version, got), "%s v%d", key, version)
				require.Empty(t, cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true }), cmp.Comparer(bytes.Equal)), "%s v%d", key, version)

				for range 20 { // whatever is missing at the end is noticed
					cut := random.IntN(len(frame))
					require.ErrorIs(t, decode(frame[:cut], version, a.empty()), ErrNotKafka, "%s v%d, %d of %d bytes", key, version, cut, len(frame))
				}
			}
		}
	}
}

func TestRecordsAreReadAsTheyCame(t *testing.T) {
	t.Parallel()
	for version := protocol.Fetch.MinVersion(); version <= protocol.Fetch.MaxVersion(); version++ {
		written := kmsg.NewPtrFetchResponse()
		written.Version = version
		topic, partition := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		topic.Topic, partition.HighWatermark, partition.RecordBatches = "t", 42, []byte("records")
		topic.Partitions = append(topic.Partitions, partition)
		written.Topics = append(written.Topics, topic)
		var read FetchResponse
		require.NoError(t, decode(written.AppendTo(nil), version, &read))
		require.Equal(t, "t", read.Topics[0].Topic)
		require.EqualValues(t, 42, read.Topics[0].Partitions[0].HighWatermark)
		require.Equal(t, []byte("records"), read.Topics[0].Partitions[0].Records)
	}
}

// kafka-go 0.4.51 takes the error for the time to wait.
func TestAHeartbeatsErrorIsRead(t *testing.T) {
	t.Parallel()
	for version := protocol.Heartbeat.MinVersion(); version <= protocol.Heartbeat.MaxVersion(); version++ {
		written := kmsg.NewPtrHeartbeatResponse()
		written.Version, written.ErrorCode = version, 27
		frame := written.AppendTo(nil)
		if written.IsFlexible() {
			frame = append([]byte{0}, frame...) // the head's optional fields
		}
		var read HeartbeatResponse
		require.NoError(t, decode(frame, version, &read))
		require.EqualValues(t, 27, read.ErrorCode, "v%d", version)
		require.Zero(t, read.ThrottleTimeMs, "v%d", version)
	}
}

func TestUnmarshalReadsWhatIsWhole(t *testing.T) {
	t.Parallel()
	want := consumer.Subscription{Version: 1, Topics: []string{"a", "b"}, UserData: []byte("data"),
		OwnedPartitions: []consumer.TopicPartition{{Topic: "a", Partitions: []int32{1, 2}}}}
	data, err := protocol.Marshal(1, want)
	require.NoError(t, err)
	var got consumer.Subscription
	require.NoError(t, Unmarshal(data, 1, &got))
	require.Equal(t, want, got)
	for cut := range data {
		require.ErrorContains(t, Unmarshal(data[:cut], 1, new(consumer.Subscription)), "not a whole")
	}
}

// FuzzDecode: whatever comes, the answer takes no more memory than a multiple of its frame, and nothing panics.
func FuzzDecode(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for key, a := range answers {
		for version := key.MinVersion(); !isOurs(key) && version <= key.MaxVersion(); version++ {
			answer := a.empty()
			fill(random, reflect.ValueOf(answer).Elem(), version)
			var wire bytes.Buffer
			require.NoError(f, protocol.WriteResponse(&wire, version, 7, answer))
			f.Add(int16(key), version, wire.Bytes()[8:])
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, frame []byte) {
		a, known := answers[protocol.ApiKey(key)]
		if !known || version < protocol.ApiKey(key).MinVersion() || version > protocol.ApiKey(key).MaxVersion() {
			return
		}
		answer := a.empty()
		_ = decode(frame, version, answer)
		require.LessOrEqual(t, elements(reflect.ValueOf(answer).Elem()), len(frame)+1)
	})
}

// elements counts the elements of all arrays in v.
func elements(v reflect.Value) (count int) {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			count += 1 + elements(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			count += elements(v.Field(i))
		}
	}
	return count
}

func TestABrokerWithoutACommonVersionIsNotAsked(t *testing.T) {
	t.Parallel()
	address := listen(t, func(conn net.Conn) { // only versions to come
		_, _ = conn.Write(framed(4+12, request(conn), 0, 0, 0, 0, 0, 1, 0, byte(protocol.Metadata), 0, 90, 0, 91))
		request(conn)
	})
	c := newConns("test", nil, nil)
	defer c.closeAll()
	_, err := c.roundTrip(t.Context(), address, &metadata.Request{})
	require.ErrorContains(t, err, "does not know Metadata as we do")
	_, err = c.roundTrip(t.Context(), address, new(apiversions.Request))
	require.Error(t, err)
}

func TestASlowAnswerEndsWithItsContext(t *testing.T) {
	t.Parallel()
	address := listen(t, func(conn net.Conn) {
		_, _ = conn.Write(framed(1000, request(conn)))
		_, _ = io.Copy(io.Discard, conn) // and never the rest
	})
	c := newConns("test", nil, nil)
	defer c.closeAll()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.roundTrip(ctx, address, new(apiversions.Request))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// kafka-go does not know our own form of metadata, so another library writes it.
func TestTopicsAreDescribedWithTheirIDs(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(2, "a", "b"))
	require.NoError(t, err)
	defer fake.Close()
	c := testCluster(t, fake)
	described, err := c.Describe(t.Context(), []string{"a", "b", "none"})
	require.NoError(t, err)
	byName := make(map[string]Described)
	for _, d := range described {
		byName[d.Name] = d
	}
	require.Len(t, byName, 3)
	require.Equal(t, kafka.UnknownTopicOrPartition, byName["none"].Err)
	require.Len(t, byName["a"].Partitions, 2)
	require.Equal(t, fake.LeaderFor("a", byName["a"].Partitions[0].Partition), byName["a"].Partitions[0].Leader)
	require.NotEmpty(t, byName["a"].Partitions[0].InSync)
	require.NotZero(t, byName["a"].ID)
	require.NotEqual(t, byName["a"].ID, byName["b"].ID)
	require.Equal(t, fake.TopicInfo("a").TopicID, [16]byte(byName["a"].ID))
}
