package kafkatest

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// proxy is the way to a listener of every broker that the test can close: for whatever passes, or for some of it. What is held
// back arrives later, as it does when a network is mended.
type proxy struct {
	mu    sync.Mutex // guards what follows
	stops []*stop
	open  map[net.Conn]struct{} // nil: closed
	lines []net.Listener
}

// stop holds messages back until it is over.
type stop struct {
	holds func(message) bool
	held  chan struct{} // closed when the first was
	over  chan struct{}
}

// message is a request, or the answer to it.
type message struct {
	broker int
	answer bool
	writes []string // topics
}

func newProxy() *proxy { return &proxy{open: make(map[net.Conn]struct{})} }

// line brings connections to a broker's listener.
func (p *proxy) line(broker int, to string) (address string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, listener)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.connect(client, broker, to)
		}
	}()
	return listener.Addr().String(), nil
}

func (p *proxy) connect(client net.Conn, broker int, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return // the broker is away
	}
	defer server.Close()
	if !p.keep(client, server) {
		return
	}
	defer p.drop(client, server)
	requests := make(chan message, 64) // whose answers are to come
	go func() {
		defer server.(*net.TCPConn).CloseWrite() // what was sent before is carried out
		defer close(requests)
		for {
			frame, err := readFrame(client)
			if err != nil {
				return
			}
			request := message{broker: broker, writes: topicsWritten(frame)}
			p.pass(request)
			requests <- request
			if _, err := server.Write(frame); err != nil {
				return
			}
		}
	}()
	for {
		frame, err := readFrame(server)
		if err != nil {
			return
		}
		answer := <-requests
		answer.answer = true
		p.pass(answer)
		if _, err := client.Write(frame); err != nil {
			return
		}
	}
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return false
	}
	for _, c := range conns {
		p.open[c] = struct{}{}
	}
	return true
}

func (p *proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.open, c)
	}
}

// pass returns when nothing holds the message back.
func (p *proxy) pass(m message) {
	for {
		p.mu.Lock()
		at := slices.IndexFunc(p.stops, func(s *stop) bool { return s.holds(m) })
		if at < 0 {
			p.mu.Unlock()
			return
		}
		s := p.stops[at]
		select {
		case <-s.held:
		default:
			close(s.held)
		}
		p.mu.Unlock()
		<-s.over
	}
}

// stop holds messages back until the function that is returned is called. held is closed when there was one.
func (p *proxy) stop(holds func(message) bool) (held <-chan struct{}, over func()) {
	s := &stop{holds, make(chan struct{}), make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stops = append(p.stops, s)
	return s.held, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stops = slices.DeleteFunc(p.stops, func(other *stop) bool { return other == s })
		close(s.over)
	})
}

func (p *proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		l.Close()
	}
	for c := range p.open {
		c.Close()
	}
	p.open = nil
	for _, s := range p.stops {
		close(s.over)
	}
	p.stops = nil
}

// readFrame reads a request or an answer, with its length.
func readFrame(from io.Reader) ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(from, length); err != nil {
		return nil, err
	}
	frame := append(length, make([]byte, binary.BigEndian.Uint32(length))...)
	_, err := io.ReadFull(from, frame[4:])
	return frame, err
}

// topicsWritten are the topics that a request writes to; none, if it is not a produce request.
func topicsWritten(frame []byte) (topics []string) {
	header := kbin.Reader{Src: frame[4:]}
	key, version := header.Int16(), header.Int16()
	header.Int32()          // its number
	header.NullableString() // the client's name
	request := kmsg.NewPtrProduceRequest()
	if key != request.Key() {
		return nil
	}
	request.SetVersion(version)
	if request.IsFlexible() {
		kmsg.SkipTags(&header)
	}
	if request.ReadFrom(header.Src) != nil {
		return nil
	}
	for _, t := range request.Topics {
		topics = append(topics, t.Topic)
	}
	return topics
}

// Cut lets nothing pass between the clients of a proxied listener and some brokers, counted from 1, or all of them, until the
// function that is returned is called. Connections stay as they are, and new ones can be made: it is only silent. Then what was
// on its way arrives.
func (c *Cluster) Cut(t testing.TB, listener string, brokers ...int) (mend func()) {
	t.Helper()
	_, mend = c.proxyOf(t, listener).stop(func(m message) bool { return len(brokers) == 0 || slices.Contains(brokers, m.broker) })
	return mend
}

// HoldWrites keeps requests that write to the topic from the brokers, held closed with the first, until the function that is returned
// is called; then they arrive.
func (c *Cluster) HoldWrites(t testing.TB, listener, topic string) (held <-chan struct{}, mend func()) {
	t.Helper()
	return c.proxyOf(t, listener).stop(func(m message) bool { return !m.answer && slices.Contains(m.writes, topic) })
}

// HoldAnswers is HoldWrites for the answers: the brokers have done what they are asked for.
func (c *Cluster) HoldAnswers(t testing.TB, listener, topic string) (held <-chan struct{}, mend func()) {
	t.Helper()
	return c.proxyOf(t, listener).stop(func(m message) bool { return m.answer && slices.Contains(m.writes, topic) })
}

func (c *Cluster) proxyOf(t testing.TB, listener string) *proxy {
	t.Helper()
	p := c.proxies[listener]
	if p == nil {
		t.Fatalf("listener %s has no proxy", listener)
	}
	return p
}
