package kafkaconn

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testCluster(t *testing.T, fake *kfake.Cluster) *Cluster {
	c := newCluster(fake.ListenAddrs(), newConns("test", nil, nil))
	t.Cleanup(c.Close)
	return c
}

func TestLanesShareALook(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.SeedTopics(1, "t"))
	require.NoError(t, err)
	defer fake.Close()
	var looks atomic.Int32
	fake.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		looks.Add(1)
		return nil, nil, false
	})
	c := testCluster(t, fake)

	failed := time.Now()
	require.NoError(t, c.Look(t.Context(), failed))
	require.NoError(t, c.Look(t.Context(), failed))
	require.EqualValues(t, 1, looks.Load(), "two lanes failed before the look began")
	require.NoError(t, c.Look(t.Context(), time.Now()))
	require.EqualValues(t, 2, looks.Load(), "one failed since")
}

// A broker that hangs takes connections and answers nothing.
func TestABrokerThatHangsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "t"))
	require.NoError(t, err)
	defer fake.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	c := newCluster([]string{silent.Addr().String(), fake.ListenAddrs()[0]}, newConns("test", nil, nil))
	defer c.Close()

	for range 4 { // each broker comes first now and then
		require.NoError(t, c.Look(t.Context(), time.Now()), "it must not take lookTimeout")
		c.layout.brokers = nil // as if only the seeds were known
	}
	found, err := c.Topic(t.Context(), "t")
	require.NoError(t, err)
	require.Len(t, found.Leaders, 3)
}

func TestAllBrokersHangIsSaidInTime(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	c := newCluster([]string{silent.Addr().String()}, newConns("test", nil, nil))
	defer c.Close()
	_, err = c.Topic(t.Context(), "t")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, relay.ReasonTimeout, relay.ReasonOf(Explain(err)))
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer fake.Close()
	address := fake.ListenAddrs()[0]
	c := newConns("test", nil, nil)
	var last *conn
	for range maxConns {
		last, err = c.get(t.Context(), address)
		require.NoError(t, err)
	}
	_, err = c.get(t.Context(), address)
	require.ErrorContains(t, err, "open already")

	c.put(last)
	again, err := c.get(t.Context(), address)
	require.NoError(t, err)
	require.Same(t, last, again, "an idle connection is used again")
	c.close(again)
	_, err = c.get(t.Context(), address)
	require.NoError(t, err, "a closed connection makes room")

	c.closeAll()
	_, err = c.get(t.Context(), address)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestFailedDialsMakeRoom(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	c := newConns("test", nil, nil)
	for range maxConns + 1 {
		_, err := c.get(t.Context(), address)
		require.ErrorContains(t, err, "refused")
	}
}

func TestConnectionsThatAreTooOldAreNotUsed(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer fake.Close()
	c := newConns("test", nil, nil)
	defer c.closeAll()
	first, err := c.get(t.Context(), fake.ListenAddrs()[0])
	require.NoError(t, err)
	first.session = time.Now().Add(-time.Second) // as if its SASL session ended
	c.put(first)
	second, err := c.get(t.Context(), fake.ListenAddrs()[0])
	require.NoError(t, err)
	require.NotSame(t, first, second)
	require.Len(t, c.open, 1)
}

func TestABrokerThatIsBehindMovesNoEntity(t *testing.T) {
	t.Parallel()
	with := func(partitions int32) layout {
		topic := Topic{Leaders: make(map[int32]int32)}
		for p := range partitions {
			topic.Leaders[p] = 1
		}
		return layout{topics: map[string]Topic{"t": topic}}
	}
	c := newCluster(nil, nil)
	partitions := func(said int32) int {
		c.adopt(with(said))
		return len(c.current().topics["t"].Leaders)
	}
	require.Equal(t, 3, partitions(3))
	require.Equal(t, 12, partitions(12), "partitions were added")
	require.Equal(t, 12, partitions(3), "a broker that does not know it yet")
	require.Equal(t, 12, partitions(12))
	require.Equal(t, 12, partitions(3))
	require.Equal(t, 3, partitions(3), "the topic was made again")
}

// kafka-go's Transport has no deadline here: a broker that stalls while it authenticates stops it for good.
func TestABrokerThatStallsInItsHandshakeIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]kmsg.Key{"versions": kmsg.ApiVersions, "handshake": kmsg.SASLHandshake, "authentication": kmsg.SASLAuthenticate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "relay", "secret"))
			require.NoError(t, err)
			defer fake.Close()
			stalled := make(chan struct{}, 100)
			fake.ControlKey(int16(request), func(kmsg.Request) (kmsg.Response, error, bool) {
				fake.KeepControl()
				stalled <- struct{}{}
				return nil, nil, true // never answered
			})
			sasl := &SASL{Mechanism: "plain", Username: "relay", Password: relay.NewSecret("secret")}
			c := newConns("test", nil, sasl.mechanism())
			defer c.closeAll()
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-stalled; cancel() }()
			_, err = c.get(ctx, fake.ListenAddrs()[0])
			require.ErrorIs(t, err, context.Canceled)

			_, err = c.get(t.Context(), fake.ListenAddrs()[0])
			require.ErrorIs(t, err, context.DeadlineExceeded, "after connectTimeout")
			require.Zero(t, c.opening)
			require.Empty(t, c.open)
		})
	}
}

func TestCloseEndsWhatIsOpen(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	require.NoError(t, err)
	defer fake.Close()
	c := newCluster(fake.ListenAddrs(), newConns("test", nil, nil))
	asked := make(chan struct{})
	fake.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(asked)
		return nil, nil, true // never answered
	})
	go func() { <-asked; c.Close() }()
	require.Error(t, c.Look(t.Context(), time.Now()))
	require.Empty(t, c.conns.open)
	require.Empty(t, c.conns.idle)
	require.ErrorIs(t, c.Look(t.Context(), time.Now()), net.ErrClosed)
}

func TestAnAnswerDoesNotWaitForALookAtTheCluster(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	require.NoError(t, err)
	defer fake.Close()
	fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.SleepControl(func() { time.Sleep(2 * lookAgain) }) // a slow broker
		return nil, nil, false
	})
	c := testCluster(t, fake)
	_, err = c.Topic(t.Context(), "t")
	require.NoError(t, err)
	last := <-c.looks // somebody looks, and has no answer yet
	defer func() { c.looks <- last }()
	ctx, cancel := context.WithTimeout(t.Context(), RequestTimeout)
	defer cancel()
	_, err = c.ToLeader(ctx, "t", 0, &rawproduce.Request{Acks: -1, Timeout: 1000, Topics: []rawproduce.RequestTopic{{Topic: "t",
		Partitions: []rawproduce.RequestPartition{{RecordSet: protocol.RawRecordSet{Reader: strings.NewReader("\x00\x00\x00\x00")}}}}}})
	require.NoError(t, err)
	require.NoError(t, ctx.Err(), "the answer was there")
}

func TestALeaderThatHangsInItsHandshakeIsLeftWhenItIsReplaced(t *testing.T) {
	t.Parallel()
	for name, secured := range map[string]*keyfile.TLS{"plain": nil, "TLS": {InsecureSkipVerify: true}} {
		t.Run(name, func(t *testing.T) {
			silent, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer silent.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				conn, err := silent.Accept()
				cancel(ErrMoved)
				if err == nil {
					defer conn.Close()
					_, _ = io.Copy(io.Discard, conn) // until the other side has gone
				}
			}()
			_, err = newConns("test", secured, nil).get(ctx, silent.Addr().String())
			require.True(t, Leaderless(err), "%v", err)
		})
	}
}

// Brokers that move, as in clusters of containers, leave their old addresses for good.
func TestConnectionsToAnAddressThatIsNotUsedAnyMoreAreClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newConns("test", nil, nil)
		defer c.closeAll()
		use := func(address string) {
			conn := &conn{raw: nowhere(t), address: address}
			c.open[conn] = struct{}{}
			c.put(conn)
		}
		use("10.0.0.1:9092")
		time.Sleep(2 * idleTimeout)
		use("10.0.0.2:9092")
		require.Len(t, c.open, 1)
		require.Len(t, c.idle, 1)
	})
}

func TestIdleConnectionsMakeRoomForOneThatIsNeeded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newConns("test", nil, nil)
		defer c.closeAll()
		for i := range maxConns {
			conn := &conn{raw: nowhere(t), address: fmt.Sprintf("10.0.0.%d:9092", i%16)}
			c.open[conn] = struct{}{}
			if i > 0 {
				c.put(conn)
			}
		}
		conn, err := c.takeIdle("10.0.1.1:9092", time.Now())
		require.NoError(t, err)
		require.Nil(t, conn, "a new one is to be made")
		require.Len(t, c.open, maxConns-1)
		for i := 1; i < maxConns-1; i++ {
			_, err = c.takeIdle("10.0.1.1:9092", time.Now())
			require.NoError(t, err)
		}
		_, err = c.takeIdle("10.0.1.1:9092", time.Now())
		require.ErrorContains(t, err, "open already")
	})
}

// nowhere is a connection that is only opened and closed.
func nowhere(t *testing.T) net.Conn {
	here, there := net.Pipe()
	t.Cleanup(func() { there.Close() })
	return here
}

func TestReconnectMakesNewConnections(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer fake.Close()
	c := newConns("test", nil, nil)
	defer c.closeAll()
	get := func() *conn {
		conn, err := c.get(t.Context(), fake.ListenAddrs()[0])
		require.NoError(t, err)
		return conn
	}
	idle, busy := get(), get()
	c.put(idle)
	c.reconnect()
	require.Len(t, c.open, 1, "the idle one is closed, the busy one goes on")
	c.put(busy)
	require.Empty(t, c.open, "it is not kept")
	require.NotSame(t, idle, get())
}

func TestConnectionsHaveAGreatestAge(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	defer fake.Close()
	c := newConns("test", nil, nil)
	defer c.closeAll()
	made, err := c.get(t.Context(), fake.ListenAddrs()[0])
	require.NoError(t, err)
	require.InDelta(t, maxAge.Seconds(), time.Until(made.session).Seconds(), maxAge.Seconds()/10+30)
}

func TestAnotherClusterIsNoticed(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := New(Config{Brokers: []string{"k1:9092"}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	defer c.Close()
	for _, id := range []string{"one", "one", "", "one"} {
		c.adopt(layoutOf(&metadata.Response{ClusterID: id}))
	}
	require.Empty(t, log.String())
	c.adopt(layoutOf(&metadata.Response{ClusterID: "two"}))
	require.Contains(t, log.String(), `is another one than before`)
	require.Contains(t, log.String(), `cluster id two, was one`)
	require.Contains(t, log.String(), "k1:9092")
}
