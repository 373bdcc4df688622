package httpsink

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"strconv"
	"sync"
)

// net/http refuses an answer whose framing it does not know (`Transfer-Encoding: identity`, a body chunked twice, two lengths)
// without a word of its status, though the far side has decided by then. So connections of HTTP/1.1 keep the head of each answer.
// HTTP/2 has no such framing; inside the tunnel of a proxy net/http makes the connections itself, and nothing is kept.

// maxNoted is the longest head that is understood, interim answers included.
const maxNoted = 4 << 10

// head finds the status of a whole head, behind interim answers (1xx).
var head = regexp.MustCompile(`^(?:HTTP/1\.[01] 1[0-9]{2}[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n)*` +
	`HTTP/1\.[01] ([2-5][0-9]{2})(?: [^\n]*)?\r?\n(?:[^\r\n][^\n]*\n)*\r?\n`)

// noting is a connection that keeps the beginning of what was read since it was told to forget.
type noting struct {
	net.Conn

	mu    sync.Mutex // guards what follows: the transport reads on a goroutine of its own
	noted []byte
}

func (c *noting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noted = append(c.noted, p[:min(n, maxNoted-len(c.noted))]...)
	return n, err
}

// forget is called before a call is made: what was read before belongs to an earlier one.
func (c *noting) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noted = c.noted[:0]
}

// answer is what is known of an answer that was refused; nil if none came, or not all of its head.
func (c *noting) answer() *http.Response {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := head.FindSubmatch(c.noted)
	if found == nil {
		return nil
	}
	status, _ := strconv.Atoi(string(found[1])) // three digits
	return &http.Response{Proto: "HTTP/1.1", StatusCode: status, Body: http.NoBody}
}

// noteTo sets *conn to the connection of a call made with the context; nil = one that notes nothing. A transport that makes the
// call again by itself sets it again.
func noteTo(ctx context.Context, conn **noting) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if *conn, _ = got.Conn.(*noting); *conn != nil {
			(*conn).forget()
		}
	}})
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// noteAnswers makes the connections of t note what they read. It makes those of TLS as t would.
func noteAnswers(t *http.Transport, dial dialFunc) {
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &noting{Conn: conn}, nil
	}
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, t.TLSHandshakeTimeout)
		defer cancel()
		secure := tls.Client(conn, configFor(t.TLSClientConfig, address))
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		if secure.ConnectionState().NegotiatedProtocol == "h2" {
			return secure, nil // net/http looks for this type
		}
		return &noting{Conn: secure}, nil
	}
}

func configFor(c *tls.Config, address string) *tls.Config {
	if c = c.Clone(); c == nil {
		c = &tls.Config{}
	}
	host, _, _ := net.SplitHostPort(address) // as net/http joined them
	c.ServerName = cmp.Or(c.ServerName, host)
	c.NextProtos = []string{"h2", "http/1.1"}
	return c
}
