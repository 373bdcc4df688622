package httpsink_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

// TestRate measures the least time that calls may take; a busy machine makes it longer.
func TestRate(t *testing.T) {
	t.Parallel()
	far := newReceiver(t)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.Rate, c.Burst = 100, 5 }))
	began := time.Now()
	for i := range 25 { // 5 at once, then one each 10 ms
		require.NoError(t, send(t, s, sinktest.Event(i, "sid")))
	}
	require.GreaterOrEqual(t, time.Since(began), 199*time.Millisecond)
	require.Len(t, far.all(t), 25)

	slow := newSink(t, config(far.URL, func(c *httpsink.Config) { c.Rate, c.Burst = 1, 1 }))
	require.NoError(t, send(t, slow, sinktest.Event(1, "sid")))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	e := sinktest.Event(2, "sid")
	taken, err := slow.Send(ctx, slow.Lane(e), sinktest.Batch(e))
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, taken)
}

// TestAPartOfTheRate measures the least time, too: a quarter of 100 calls a second, and of a burst of 8.
func TestAPartOfTheRate(t *testing.T) {
	t.Parallel()
	far := newReceiver(t)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.Rate, c.Burst = 100, 8 }))
	s.Share(1, 4)
	began := time.Now()
	for i := range 10 { // 2 at once, then one each 40 ms
		require.NoError(t, send(t, s, sinktest.Event(i, "sid")))
	}
	require.GreaterOrEqual(t, time.Since(began), 319*time.Millisecond)

	s = newSink(t, config(far.URL, func(c *httpsink.Config) { c.Rate = 1 }))
	s.Share(1, 100)
	require.NoError(t, send(t, s, sinktest.Event(0, "sid")))
	require.Less(t, time.Since(began), 30*time.Second, "a share is never nothing")
}

// TestNoCallIsLostOnClosingConnections: a server that closes each connection after its answer, without a word, as one whose
// idle time-out is about to end. Every second call meets a dead connection.
func TestNoCallIsLostOnClosingConnections(t *testing.T) {
	t.Parallel()
	var calls, open atomic.Int64
	addr := listen(t, func(c net.Conn) {
		open.Add(1)
		defer open.Add(-1)
		if head, _ := readCall(c); len(head) > 0 {
			calls.Add(1)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	s := newSink(t, config("http://"+addr))
	for i := range 300 {
		require.NoError(t, send(t, s, sinktest.Event(i, "sid")))
	}
	require.GreaterOrEqual(t, calls.Load(), int64(300))
	require.NoError(t, s.Close())
	require.Eventually(t, func() bool { return open.Load() == 0 }, 10*time.Second, time.Millisecond, "connections leak")
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 10)
	far := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	far.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	far.Start()
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.IdleTimeout = 20 * time.Millisecond }))
	require.NoError(t, send(t, s, sinktest.Event(1, "sid")))
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		require.Fail(t, "the connection stays")
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	type seen struct{ target, credentials string }
	calls := make(chan seen, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls <- seen{r.RequestURI, r.Header.Get("Proxy-Authorization")}
		w.WriteHeader(http.StatusProxyAuthRequired)
		io.WriteString(w, "canary-password is wrong")
	}))
	t.Cleanup(proxy.Close)
	address := "http://relay:canary-password@" + proxy.Listener.Addr().String()
	s := newSink(t, config("http://billing.internal/hooks", func(c *httpsink.Config) { c.Proxy = relay.NewSecret(address) }))
	err := send(t, s, sinktest.Event(1, "sid"))
	require.Equal(t, seen{"http://billing.internal/hooks", "Basic cmVsYXk6Y2FuYXJ5LXBhc3N3b3Jk"}, <-calls)
	require.ErrorContains(t, err, "407 Proxy Authentication Required")
	require.NotContains(t, err.Error(), "canary")

	// A tunnel that is refused: the status is shown and counts as the reason, the proxy's words are not shown.
	tunnel := newSink(t, config("https://billing.internal/hooks", func(c *httpsink.Config) { c.Proxy = relay.NewSecret(address) }))
	err = send(t, tunnel, sinktest.Event(1, "sid"))
	require.Equal(t, seen{"billing.internal:443", "Basic cmVsYXk6Y2FuYXJ5LXBhc3N3b3Jk"}, <-calls)
	require.ErrorContains(t, err, "the proxy answered 407 Proxy Authentication Required")
	require.Equal(t, relay.ReasonAuth, relay.ReasonOf(err))
	require.Equal(t, "tried again", verdict(err))

	// The policy sees the proxy's address: that is all it can see.
	denied := newSink(t, config("http://billing.internal/hooks", func(c *httpsink.Config) {
		c.Proxy = relay.NewSecret(address)
		c.Egress.Deny = []string{"127.0.0.0/8"}
	}))
	require.ErrorContains(t, send(t, denied, sinktest.Event(1, "sid")), "egress policy refuses")

	direct := newReceiver(t)
	require.NoError(t, send(t, newSink(t, config(direct.URL, func(c *httpsink.Config) { c.Proxy = relay.NewSecret("none") })), sinktest.Event(1, "sid")))
}

// TestTunnels: TLS goes through a proxy from end to end, so the proxy sees neither bodies nor credentials, and the receiver's
// certificate is checked.
func TestTunnels(t *testing.T) {
	t.Parallel()
	far := newReceiver(t)
	ca := newAuthority(t)
	pair, err := tls.X509KeyPair(ca.issue("billing.internal"))
	require.NoError(t, err)
	secure := httptest.NewUnstartedServer(far)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)

	tunnel := func(client net.Conn) {
		server, err := net.Dial("tcp", secure.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		go func() { io.Copy(server, client); server.Close() }()
		io.Copy(client, server)
		client.Close()
	}
	var asked atomic.Value
	proxies := map[string]string{
		"http": listen(t, func(c net.Conn) {
			head, _ := readCall(c)
			if len(head) > 0 {
				asked.Store(strings.Fields(head[0])[1])
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				tunnel(c)
			}
		}),
		"socks5": listen(t, func(c net.Conn) {
			read := func(n int) []byte { b := make([]byte, n); io.ReadFull(c, b); return b }
			read(int(read(2)[1])) // methods of authentication
			c.Write([]byte{5, 0})
			name := read(int(read(5)[4]))
			port := binary.BigEndian.Uint16(read(2))
			asked.Store(fmt.Sprintf("%s:%d", name, port))
			c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
			tunnel(c)
		}),
	}
	for scheme, address := range proxies {
		s := newSink(t, config("https://billing.internal/hooks", func(c *httpsink.Config) {
			c.Proxy = relay.NewSecret(scheme + "://" + address)
			c.TLS = &keyfile.TLS{CAFile: files(t, ca.pem)[0]}
		}))
		for i := range 3 {
			require.NoError(t, send(t, s, sinktest.Event(i, scheme)))
		}
		require.Equal(t, "billing.internal:443", asked.Load(), scheme)
		untrusting := newSink(t, config("https://billing.internal/hooks", func(c *httpsink.Config) { c.Proxy = relay.NewSecret(scheme + "://" + address) }))
		require.ErrorContains(t, send(t, untrusting, sinktest.Event(9, scheme)), "certificate", scheme)
	}
	require.Len(t, far.all(t), 6)
}

// TestAReceiverWhoseNameMovesIsFoundAgain: the old one goes on answering, calls come one after the other, so no connection is
// ever idle; only its age ends it, or Reconnect.
func TestAReceiverWhoseNameMovesIsFoundAgain(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, byAge := range []bool{false, true} {
			t.Run(fmt.Sprintf("http2 %v, by age %v", http2, byAge), func(t *testing.T) {
				t.Parallel()
				ca := newAuthority(t)
				var calls [2]atomic.Int64
				var port string
				for i, address := range []string{"127.0.0.1", "127.0.0.2"} {
					far := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						if http2 == (r.ProtoMajor == 2) {
							calls[i].Add(1)
						}
					}))
					pair, err := tls.X509KeyPair(ca.issue("moving.test"))
					require.NoError(t, err)
					far.Listener.Close()
					far.Listener, err = net.Listen("tcp", net.JoinHostPort(address, port))
					require.NoError(t, err)
					_, port, err = net.SplitHostPort(far.Listener.Addr().String())
					require.NoError(t, err)
					far.EnableHTTP2, far.TLS = http2, &tls.Config{Certificates: []tls.Certificate{pair}}
					far.StartTLS()
					t.Cleanup(far.Close)
				}
				var address atomic.Value
				address.Store("127.0.0.1")
				s := newSink(t, config("https://moving.test:"+port, func(c *httpsink.Config) {
					c.TLS = &keyfile.TLS{CAFile: files(t, ca.pem)[0]}
					if byAge {
						c.MaxConnectionAge = 500 * time.Millisecond
					}
				}))
				require.NoError(t, s.Resolve(nameServer(t, func() []string { return []string{address.Load().(string)} })))
				require.NoError(t, send(t, s, sinktest.Event(1, "sid")))
				require.EqualValues(t, 1, calls[0].Load())
				address.Store("127.0.0.2")
				if !byAge {
					for i := range 50 {
						require.NoError(t, send(t, s, sinktest.Event(i, "sid")))
					}
					require.Zero(t, calls[1].Load(), "the connection was kept until now")
					s.Reconnect()
					require.NoError(t, send(t, s, sinktest.Event(1, "sid")))
				}
				for began := time.Now(); calls[1].Load() == 0 && time.Since(began) < 20*time.Second; {
					require.NoError(t, send(t, s, sinktest.Event(1, "sid")))
				}
				require.NotZero(t, calls[1].Load(), "never found")
			})
		}
	}
}

// TestReconnectingDisturbsNoCall: connections are replaced all the time while calls are in flight on them.
func TestReconnectingDisturbsNoCall(t *testing.T) {
	t.Parallel()
	var open atomic.Int64
	far := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	far.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	far.Start()
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.MaxConnectionAge = 5 * time.Millisecond }))
	var sends sync.WaitGroup
	for lane := range 8 {
		sends.Go(func() {
			for i := range 300 {
				e := sinktest.Event(i, fmt.Sprint(lane))
				if _, err := s.Send(t.Context(), s.Lane(e), sinktest.Batch(e)); err != nil {
					t.Error(err)
				}
				if i%20 == 0 {
					s.Reconnect()
				}
			}
		})
	}
	sends.Wait()
	require.NoError(t, s.Close())
	require.Eventually(t, func() bool { return open.Load() == 0 }, 10*time.Second, time.Millisecond, "connections are left")
}
