package ingress

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// bodyTaker answers as the ingress does: it reads the body, and says 503 where there is no room for it.
var bodyTaker = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, refused := readBody(r, 8<<20)
	if refused != nil {
		write(w, *refused)
		return
	}
	fmt.Fprint(w, len(body))
})

func serverLimits() LimitsConfig {
	var c LimitsConfig
	c.SetDefaults()
	return c
}

// serveAt starts a server on l, with a handler that takes any body.
func serveAt(t *testing.T, l net.Listener, limits LimitsConfig) *Server {
	t.Helper()
	return serveWith(t, l, limits, bodyTaker)
}

func serveWith(t *testing.T, l net.Listener, limits LimitsConfig, handler http.HandlerFunc) *Server {
	t.Helper()
	s, err := newServer(ServerOptions{Handler: handler, Limits: limits, Logger: slog.New(slog.DiscardHandler)}, l)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		require.NoError(t, <-served)
	})
	return s
}

func serveTCP(t *testing.T, limits LimitsConfig) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return serveAt(t, l, limits)
}

// pipes is a listener for tests in fake time.
type pipes struct {
	made   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{made: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.made:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial returns a connection whose far side reads what comes, so that answers do not block the server.
func (p *pipes) dial(t *testing.T) *pipeClient {
	near, far := net.Pipe()
	p.made <- far
	c := &pipeClient{Conn: near, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		io.Copy(&c.answers, near)
	}()
	t.Cleanup(func() { near.Close(); <-c.ended })
	return c
}

type pipeClient struct {
	net.Conn
	answers lockedText
	ended   chan struct{} // closed when the server has closed the connection
}

type lockedText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func post(length int, body string) string {
	return fmt.Sprintf("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n%s", length, body)
}

func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	limits := serverLimits()
	for name, c := range map[string]struct {
		send string
		ends time.Duration
	}{
		"nothing sent":           {"", headerTimeout},
		"half a header":          {"POST / HTTP/1.1\r\nHos", headerTimeout},
		"half a body":            {post(10, "12345"), headerTimeout + limits.ReadTimeout},
		"idle after an answer":   {post(1, "1"), limits.IdleTimeout},
		"idle in the next call":  {post(1, "1") + "POST /", headerTimeout},
		"header larger than all": {"POST / HTTP/1.1\r\nA: " + strings.Repeat("a", 2*maxHeader), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				s := serveAt(t, p, limits)
				start := time.Now()
				client := p.dial(t)
				go io.WriteString(client, c.send) // the server may not read it to the end
				<-client.ended
				// A server may linger for half a second so that its answer is read.
				require.InDelta(t, c.ends.Seconds(), time.Since(start).Seconds(), 1)
				synctest.Wait()
				open, cut := s.connections.count()
				require.Zero(t, open)
				require.Zero(t, cut)
			})
		})
	}
}

func TestLargeBodiesShareABudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limits := serverLimits()
		limits.InFlightBytes = 1 << 20
		p := newPipes()
		serveAt(t, p, limits)
		const size = 400 << 10
		large := strings.Repeat("x", size)
		half := large[:size/2]

		first, second := p.dial(t), p.dial(t)
		io.WriteString(first, post(size, half))
		io.WriteString(second, post(size, half))
		synctest.Wait()
		start := time.Now()
		third := p.dial(t)
		go io.WriteString(third, post(size, large))
		<-third.ended
		require.Contains(t, third.answers.String(), "503")
		require.InDelta(t, bodyWait.Seconds(), time.Since(start).Seconds(), 1)

		small := p.dial(t)
		body := strings.Repeat("s", uncountedBody)
		io.WriteString(small, post(len(body), body))
		synctest.Wait()
		require.Contains(t, small.answers.String(), "200 OK", "an ordinary notification needs no share")

		waiting := p.dial(t)
		go io.WriteString(waiting, post(size, large))
		synctest.Wait()
		require.Empty(t, waiting.answers.String())
		io.WriteString(first, half)
		synctest.Wait()
		require.Contains(t, first.answers.String(), "200 OK")
		require.Contains(t, waiting.answers.String(), "200 OK", "it got the share of the one that ended")

		alone := p.dial(t)
		second.Close()
		synctest.Wait()
		whole := strings.Repeat("x", 3<<20)
		go io.WriteString(alone, post(len(whole), whole))
		synctest.Wait()
		require.Contains(t, alone.answers.String(), "200 OK", "a body larger than the budget can come alone")
	})
}

func TestBodiesOfUnknownLengthShareTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limits := serverLimits()
		limits.InFlightBytes = 1 << 20
		p := newPipes()
		serveAt(t, p, limits)
		chunk := fmt.Sprintf("%x\r\n%s\r\n", uncountedBody+1, strings.Repeat("x", uncountedBody+1))
		head := "POST / HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n"
		slow, next := p.dial(t), p.dial(t)
		io.WriteString(slow, head+chunk)
		synctest.Wait()
		go io.WriteString(next, head+chunk+"0\r\n\r\n")
		time.Sleep(bodyWait)
		synctest.Wait()
		require.Contains(t, next.answers.String(), "503")
		io.WriteString(slow, "0\r\n\r\n")
		synctest.Wait()
		require.Contains(t, slow.answers.String(), "200 OK")
	})
}

// hold opens connections that do as slow and idle clients do, and keeps them.
func hold(t *testing.T, address string, n int) []net.Conn {
	t.Helper()
	ways := []string{"", "POST / HT", post(10, "12345"), post(1, "1")}
	var conns []net.Conn
	for i := range n {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, ways[i%len(ways)]) // it may have been cut off already
		conns = append(conns, c)
	}
	return conns
}

func TestSlowClientsDoNotKeepOthersOut(t *testing.T) {
	t.Parallel()
	limits := serverLimits()
	limits.Connections = 40
	s := serveTCP(t, limits)
	address := s.Addr().String()

	kept := &http.Client{Transport: &http.Transport{MaxIdleConns: 1}}
	defer kept.CloseIdleConnections()
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 20 {
		// Those of this round and of the one before may move between two calls of a connection that is kept.
		hold(t, address, limits.Connections/4)
		for name, client := range map[string]*http.Client{"kept connection": kept, "new connection": fresh} {
			resp, err := client.Post("http://"+address, "", strings.NewReader("x"))
			require.NoError(t, err, name)
			require.Equal(t, 200, resp.StatusCode)
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		open, _ := s.connections.count()
		require.LessOrEqual(t, open, limits.Connections)
	}
	_, cut := s.connections.count()
	require.NotZero(t, cut)
}

// The rule by which a connection is chosen: the one that has been still for longest, whatever its age.
func TestTheStillestConnectionIsCutOff(t *testing.T) {
	t.Parallel()
	limits := serverLimits()
	limits.Connections = 3
	s := serveTCP(t, limits)
	var conns []net.Conn
	var readers []*bufio.Reader
	call := func(i int) error {
		if _, err := io.WriteString(conns[i], post(1, "1")); err != nil {
			return err
		}
		resp, err := http.ReadResponse(readers[i], nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		require.Eventually(t, func() bool { // the server notes that a call has ended after its answer
			s.connections.mu.Lock()
			defer s.connections.mu.Unlock()
			last := s.connections.still.Back()
			return last != nil && last.Value.(*connection).RemoteAddr().String() == conns[i].LocalAddr().String()
		}, 5*time.Second, time.Millisecond)
		return err
	}
	open := func() {
		c, err := net.Dial("tcp", s.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		conns, readers = append(conns, c), append(readers, bufio.NewReader(c))
		require.NoError(t, call(len(conns)-1))
	}
	for range 3 {
		open()
	}
	require.NoError(t, call(0)) // the oldest has moved last; the second is the stillest now
	open()
	require.Error(t, call(1))
	for _, i := range []int{2, 0, 3} {
		require.NoError(t, call(i))
	}

	limits.Connections = 1 // only the last to have moved may stay
	s.SetLimits(limits)
	require.Error(t, call(2))
	require.Error(t, call(0))
	require.NoError(t, call(3))
	limits.Connections = 2
	s.SetLimits(limits)
	open()
	require.NoError(t, call(3))
	n, cut := s.connections.count()
	require.Equal(t, 2, n)
	require.EqualValues(t, 3, cut)
}

// What waits for the disk has been still for longest, but it is our turn to move.
func TestACallThatIsBeingStoredIsNotCutOff(t *testing.T) {
	t.Parallel()
	limits := serverLimits()
	limits.Connections = 2
	stored := make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := serveWith(t, l, limits, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Header.Get("Wait") != "" {
			<-stored
		}
	})
	caller, err := net.Dial("tcp", s.Addr().String())
	require.NoError(t, err)
	defer caller.Close()
	_, err = io.WriteString(caller, strings.Replace(post(1, "1"), "Host", "Wait: yes\r\nHost", 1))
	require.NoError(t, err)
	require.Eventually(t, func() bool { open, still := s.connections.kinds(); return open == 1 && still == 0 }, 10*time.Second, time.Millisecond)

	hold(t, s.Addr().String(), 20)
	require.Eventually(t, func() bool { _, cut := s.connections.count(); return cut >= 18 }, 10*time.Second, time.Millisecond)
	close(stored)
	resp, err := http.ReadResponse(bufio.NewReader(caller), nil)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	resp.Body.Close()
}

// countedReads is a listener whose connections count what is read of them.
type countedReads struct {
	net.Listener
	read atomic.Int64
}

func (l *countedReads) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, l}, err
}

type countedConn struct {
	net.Conn
	of *countedReads
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.of.read.Add(int64(n))
	return n, err
}

// The next call of a connection stays where it is until the one before is answered; net/http would read a byte of it. It may do so
// just before the body has arrived, so most of the calls are enough.
func TestNothingIsReadWhileACallIsHandled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		l := &countedReads{Listener: p}
		handled, answer := make(chan struct{}), make(chan struct{})
		s := serveWith(t, l, serverLimits(), func(w http.ResponseWriter, r *http.Request) {
			bodyTaker(w, r)
			handled <- struct{}{}
			<-answer
		})
		caller := p.dial(t)
		const calls = 20
		call, left := post(4, "body"), 0
		go func() {
			for range calls + 1 {
				io.WriteString(caller, call)
			}
			caller.Close()
		}()
		for i := range calls {
			<-handled
			synctest.Wait() // for a read that must not come
			if l.read.Load() == int64((i+1)*len(call)) {
				left++
			}
			answer <- struct{}{}
		}
		require.Greater(t, left, calls/2)
		<-handled // the last call, whose caller hangs up meanwhile
		require.Equal(t, calls, strings.Count(caller.answers.String(), "200 OK"))
		answer <- struct{}{}
		synctest.Wait()
		open, _ := s.connections.count()
		require.Zero(t, open)
	})
}

func (l *connections) kinds() (open, still int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.still.Len()
}

// A caller whose body is not read to its end still reads why.
func TestAnswerToABodyThatIsTooLargeArrives(t *testing.T) {
	t.Parallel()
	s := serveTCP(t, serverLimits())
	for range 20 {
		c, err := net.Dial("tcp", s.Addr().String())
		require.NoError(t, err)
		body := strings.Repeat("x", 1<<20)
		_, err = io.WriteString(c, post(100<<20, body))
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
		resp.Body.Close()
		c.Close()
	}
}

// That a passed socket is taken is shown with the real program, in cmd.
func TestSocketsThatAreNotOurs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  map[string]string
		fail string
	}{
		"none":                   {nil, ""},
		"meant for someone else": {map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1"}, ""},
		"no number":              {map[string]string{"LISTEN_PID": fmt.Sprint(os.Getpid()), "LISTEN_FDS": "x"}, "LISTEN_FDS"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := activated(func(key string) string { return c.env[key] }, ":8080")
			require.Nil(t, l)
			if c.fail == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.fail)
			}
		})
	}
}
