package httpsink_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ncs-relay/relay/keyfile"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

// http2Conn is the far side of one HTTP/2 connection, frame by frame.
type http2Conn struct {
	*http2.Framer
	net.Conn
	number int64 // of the connections of this server, from 1
	calls  int
}

func (c *http2Conn) Close() error { return c.Conn.Close() }

// headers are those of an answer, encoded.
func headers(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}

func (c *http2Conn) answer(stream uint32, end bool, pairs ...string) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, EndStream: end, BlockFragment: headers(pairs...)})
}

// listenHTTP2 runs serve for every call that has arrived whole, or, where the call may not come, for its headers.
func listenHTTP2(t *testing.T, settings []http2.Setting, whole bool, serve func(c *http2Conn, stream uint32)) (address string, a *authority) {
	a = newAuthority(t)
	return listen(t, http2Server(a, settings, whole, serve)), a
}

func http2Server(a *authority, settings []http2.Setting, whole bool, serve func(c *http2Conn, stream uint32)) func(net.Conn) {
	pair, err := tls.X509KeyPair(a.issue("far.test"))
	require.NoError(a.t, err)
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
	var connections atomic.Int64
	return func(plain net.Conn) {
		conn := tls.Server(plain, cfg)
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(conn, preface); err != nil {
			return
		}
		c := &http2Conn{Framer: http2.NewFramer(conn, conn), Conn: conn, number: connections.Add(1)}
		c.AllowIllegalWrites = true
		c.WriteSettings(settings...)
		for {
			frame, err := c.ReadFrame()
			if err != nil {
				return
			}
			switch f := frame.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					c.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				if !whole {
					serve(c, f.StreamID)
				}
			case *http2.DataFrame:
				if whole && f.StreamEnded() {
					serve(c, f.StreamID)
				}
			}
		}
	}
}

// TestMisbehavingHTTP2Servers is the table of TestMisbehavingServers for the ways in which HTTP/2 can fail. What the far side
// says it has not begun is sent again at once; of everything else the outcome is unknown, and it is tried again.
func TestMisbehavingHTTP2Servers(t *testing.T) {
	t.Parallel()
	// first runs fault on the first connection; the others are healthy.
	first := func(fault func(*http2Conn, uint32)) func(*http2Conn, uint32) {
		return func(c *http2Conn, stream uint32) {
			if c.number == 1 {
				fault(c, stream)
				return
			}
			c.answer(stream, true, ":status", "204")
		}
	}
	forever := func(write func() error) {
		for write() == nil {
		}
	}
	tests := []struct {
		name     string
		timeout  time.Duration
		settings []http2.Setting
		headers  bool // serve does not wait for the body
		serve    func(*http2Conn, uint32)
		want     string // of the error; "" = delivered
	}{
		{name: "GOAWAY before the call was begun", serve: first(func(c *http2Conn, _ uint32) {
			c.WriteGoAway(0, http2.ErrCodeNo, nil)
		})},
		{name: "GOAWAY, the call is finished", serve: first(func(c *http2Conn, stream uint32) {
			c.WriteGoAway(stream, http2.ErrCodeNo, nil)
			c.answer(stream, true, ":status", "200")
		})},
		{name: "GOAWAY after the call was begun, hangs up", serve: func(c *http2Conn, stream uint32) {
			c.WriteGoAway(stream, http2.ErrCodeInternal, []byte("\x1b[31m"))
			c.Close()
		}, want: "call to "},
		{name: "stream refused", serve: func() func(*http2Conn, uint32) {
			var refused atomic.Bool
			return func(c *http2Conn, stream uint32) {
				if refused.CompareAndSwap(false, true) {
					c.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
					return
				}
				c.answer(stream, true, ":status", "200")
			}
		}()},
		{name: "streams refused for ever", timeout: short, serve: func(c *http2Conn, stream uint32) {
			c.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		}, want: "no answer from "},
		{name: "reset", serve: func(c *http2Conn, stream uint32) {
			c.WriteRSTStream(stream, http2.ErrCodeInternal)
		}, want: "INTERNAL_ERROR"},
		{name: "reset after 200", serve: func(c *http2Conn, stream uint32) {
			c.answer(stream, false, ":status", "200")
			c.WriteRSTStream(stream, http2.ErrCodeInternal)
		}},
		{name: "reset after 503", serve: func(c *http2Conn, stream uint32) {
			c.answer(stream, false, ":status", "503")
			c.WriteRSTStream(stream, http2.ErrCodeInternal)
		}, want: "answered 503"},
		{name: "hangs up", serve: func(c *http2Conn, _ uint32) { c.Close() }, want: "call to "},
		{name: "silent", timeout: short, serve: func(*http2Conn, uint32) {}, want: "no answer from "},
		{name: "takes no byte of the body", timeout: short, headers: true,
			settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, serve: func(*http2Conn, uint32) {}, want: "no answer from "},
		{name: "allows no call", timeout: short, headers: true,
			settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}, serve: func(c *http2Conn, stream uint32) {}, want: "no answer from "},
		{name: "answers 413 to the headers", headers: true, serve: func(c *http2Conn, stream uint32) {
			c.answer(stream, true, ":status", "413")
			c.WriteRSTStream(stream, http2.ErrCodeNo)
		}, want: "answered 413"},
		{name: "no status", serve: func(c *http2Conn, stream uint32) { c.answer(stream, true, "x-a", "b") }, want: "call to "},
		{name: "odd status", serve: func(c *http2Conn, stream uint32) { c.answer(stream, true, ":status", "OK") }, want: "call to "},
		{name: "two statuses", serve: func(c *http2Conn, stream uint32) {
			c.answer(stream, true, ":status", "500", ":status", "200")
		}, want: "call to "},
		{name: "1xx flood", serve: func(c *http2Conn, stream uint32) {
			forever(func() error { return c.answer(stream, false, ":status", "103", "link", "</a>") })
		}, want: "call to "},
		{name: "endless headers", serve: func(c *http2Conn, stream uint32) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: headers(":status", "200")})
			more := headers("x-a", strings.Repeat("a", 10_000))
			forever(func() error { return c.WriteContinuation(stream, false, more) })
		}, want: "call to "},
		{name: "headers that unpack into many", serve: func(c *http2Conn, stream uint32) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: headers(":status", "200", "x-a", strings.Repeat("a", 4000))})
			again := bytes.Repeat([]byte{0xbe}, 10_000) // the last one, 10,000 times
			forever(func() error { return c.WriteContinuation(stream, false, again) })
		}, want: "call to "},
		{name: "endless body", serve: func(c *http2Conn, stream uint32) {
			c.answer(stream, false, ":status", "500")
			forever(func() error { return c.WriteData(stream, false, make([]byte, 1000)) })
		}, want: "answered 500"},
		{name: "ping flood", timeout: short, serve: func(c *http2Conn, _ uint32) {
			go io.Copy(io.Discard, c.Conn)
			forever(func() error { return c.WritePing(false, [8]byte{}) })
		}, want: "no answer from "},
		{name: "settings flood", timeout: short, serve: func(c *http2Conn, _ uint32) {
			go io.Copy(io.Discard, c.Conn)
			forever(func() error { return c.WriteSettings() })
		}, want: "no answer from "},
		{name: "garbage", serve: func(c *http2Conn, _ uint32) {
			forever(func() error { _, err := io.WriteString(c.Conn, "HTTP/1.1 200 OK\r\n\r\n"); return err })
		}, want: "call to "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr, ca := listenHTTP2(t, tt.settings, !tt.headers, tt.serve)
			s := newSink(t, config("https://"+addr, func(c *httpsink.Config) {
				c.Timeout = time.Minute
				if tt.timeout > 0 {
					c.Timeout = tt.timeout
				}
				c.TLS = &keyfile.TLS{CAFile: files(t, ca.pem)[0], ServerName: "far.test"}
			}))
			err := send(t, s, sinktest.Event(1, "sid"))
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			if !strings.Contains(tt.want, "413") {
				require.Equal(t, "tried again", verdict(err), err)
			}
			require.NotContains(t, err.Error(), "\x1b")
		})
	}
}

// TestNoCallIsLostOnHTTP2ConnectionsThatEnd: a server that takes ten calls a connection and says so when others are already on
// their way, as in a rolling update or at a limit of age. They are sent again on another connection, and none comes twice.
func TestNoCallIsLostOnHTTP2ConnectionsThatEnd(t *testing.T) {
	t.Parallel()
	const each = 10
	var taken, late atomic.Int64
	addr, ca := listenHTTP2(t, nil, true, func(c *http2Conn, stream uint32) {
		if c.calls++; c.calls > each {
			late.Add(1)
			return
		}
		taken.Add(1)
		c.answer(stream, true, ":status", "204")
		if c.calls == each {
			c.WriteGoAway(stream, http2.ErrCodeNo, nil)
		}
	})
	s := newSink(t, config("https://"+addr, func(c *httpsink.Config) {
		c.TLS = &keyfile.TLS{CAFile: files(t, ca.pem)[0], ServerName: "far.test"}
	}))
	const lanes, rounds = 8, 50
	var sends sync.WaitGroup
	for lane := range lanes {
		sends.Go(func() {
			for n := range rounds {
				e := sinktest.Event(n, strconv.Itoa(lane))
				// A call that meets several ending connections waits between them, and may reach its time-out.
				for attempt := 0; ; attempt++ {
					_, err := s.Send(t.Context(), s.Lane(e), sinktest.Batch(e))
					if err == nil {
						break
					}
					if attempt == 5 {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	sends.Wait()
	require.EqualValues(t, lanes*rounds, taken.Load(), "each once")
	require.Positive(t, late.Load(), "no call met an ending connection, so that nothing is proven")
}

// TestSilentHTTP2ConnectionIsLeft: a connection that is dead and does not say so takes the calls that were sent into it, not
// those of the next minutes, until TCP gives up.
func TestSilentHTTP2ConnectionIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		var ended atomic.Bool // the dead one
		serve := http2Server(ca, nil, true, func(c *http2Conn, stream uint32) {
			if c.number == 1 {
				io.Copy(io.Discard, c.Conn)
				ended.Store(true)
				return
			}
			c.answer(stream, true, ":status", "204")
		})
		s := newSink(t, config("https://far.test", func(c *httpsink.Config) { c.TLS = &keyfile.TLS{CAFile: files(t, ca.pem)[0]} }))
		s.Dial(func() net.Conn {
			near, far := net.Pipe()
			go func() { defer far.Close(); serve(buffered(far)) }()
			return buffered(near)
		})
		began := time.Now()
		attempts := 1
		for ; send(t, s, sinktest.Event(1, "sid")) != nil; attempts++ {
			require.Less(t, attempts, 4)
		}
		require.LessOrEqual(t, time.Since(began), 25*time.Second)
		require.NoError(t, s.Close())
		time.Sleep(time.Minute)
		require.True(t, ended.Load(), "the dead connection is kept")
	})
}

// bufferedConn is an end of a net.Pipe that takes what is written to it before it is read, as a socket does.
type bufferedConn struct {
	net.Conn
	arrived chan []byte
	left    []byte
}

func buffered(c net.Conn) net.Conn {
	b := &bufferedConn{Conn: c, arrived: make(chan []byte, 1000)}
	go func() {
		defer close(b.arrived)
		for {
			part := make([]byte, 16<<10)
			n, err := c.Read(part)
			if n > 0 {
				b.arrived <- part[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return b
}

func (b *bufferedConn) Read(p []byte) (int, error) {
	if len(b.left) == 0 {
		var ok bool
		if b.left, ok = <-b.arrived; !ok {
			return 0, io.EOF
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}
