package ingress

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/telemetry"
)

// What net/http answers by itself is counted by reason and told of, over TLS and without it; what handlers answer is not.
func TestRefusalsOfTheServerAreSeen(t *testing.T) {
	t.Parallel()
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) { io.WriteString(c, text); io.Copy(io.Discard, c) }
	}
	greet := func(config *tls.Config) func(net.Conn) {
		return func(c net.Conn) { tls.Client(c, config).Handshake() }
	}
	over := func(text string) func(net.Conn) {
		return func(c net.Conn) { say(text)(tls.Client(c, &tls.Config{InsecureSkipVerify: true})) }
	}
	large := "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 2*maxHeader) + "\r\n\r\n"
	for _, tt := range []struct {
		name   string
		tls    bool
		do     func(net.Conn)
		reason string // "" = none
	}{
		{"HTTP at the TLS port", true, say("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), refusedHTTP},
		{"PROXY line at the TLS port", true, say("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"), refusedProxy},
		{"certificate refused", true, greet(&tls.Config{ServerName: "ncs.example.com"}), refusedCertificate},
		{"old TLS", true, greet(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), refusedHandshake},
		{"large headers over TLS", true, over(large), refusedHeaders},
		{"malformed over TLS", true, over("nonsense\r\n\r\n"), refusedMalformed},
		{"a call over TLS", true, over("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1"), ""},
		{"probe of the TLS port", true, func(net.Conn) {}, ""},
		{"TLS at the plain port", false, greet(&tls.Config{InsecureSkipVerify: true}), refusedTLS},
		{"PROXY line", false, say("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"), refusedProxy},
		{"PROXY header, binary", false, say("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), refusedProxy},
		{"large headers", false, say(large), refusedHeaders},
		{"malformed", false, say("nonsense\r\n\r\n"), refusedMalformed},
		{"no Host", false, say("GET / HTTP/1.1\r\n\r\n"), refusedMalformed},
		{"HTTP/3", false, say("GET / HTTP/3.0\r\nHost: x\r\n\r\n"), refusedMalformed},
		{"unknown transfer encoding", false, say("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n"), refusedMalformed},
		{"unknown expectation", false, say("POST / HTTP/1.1\r\nHost: x\r\nExpect: x\r\nContent-Length: 1\r\n\r\n1"), refusedMalformed},
		{"hung up in the headers", false, func(c net.Conn) { io.WriteString(c, "POST / HT") }, refusedIncomplete},
		{"a call", false, say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1"), ""},
		{"probe of the port", false, func(net.Conn) {}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var log lockedText
			logger := slog.New(slog.NewTextHandler(&log, nil))
			m, err := telemetry.NewMetrics(t.Context(), telemetry.Options{Log: logger})
			require.NoError(t, err)
			defer m.Shutdown(context.Background())
			o := ServerOptions{Listen: "127.0.0.1:0", Handler: bodyTaker, Limits: serverLimits(), Logger: logger, Metrics: m}
			if tt.tls {
				files := newCertificateFiles(t)
				cert, key := makeCertificate(t, 1)
				files.write(t, files.cert, cert)
				files.write(t, files.key, key)
				o.CertFile, o.KeyFile = files.cert, files.key
			}
			s, err := Listen(o)
			require.NoError(t, err)
			go s.Serve()
			for range 3 {
				c, err := net.Dial("tcp", s.Addr().String())
				require.NoError(t, err)
				tt.do(c)
				c.Close()
			}
			counted := func() string {
				page := httptest.NewRecorder()
				m.Handler().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
				var all []string
				for _, l := range regexp.MustCompile(`(?m)^ncs_relay_ingress_refusals_total\{.*reason="(\w+)".*\} (\d+)$`).FindAllStringSubmatch(page.Body.String(), -1) {
					if l[2] != "0" {
						all = append(all, l[1]+" "+l[2])
					}
				}
				return strings.Join(all, ",")
			}
			want, lines := "", 0
			if tt.reason != "" {
				want, lines = tt.reason+" 3", 1
			}
			if want != "" {
				require.Eventually(t, func() bool { return counted() == want }, 10*time.Second, 5*time.Millisecond, "%s: %s", tt.reason, counted())
			}
			require.NoError(t, s.Shutdown(t.Context()))
			require.Equal(t, want, counted())
			require.Equal(t, lines, strings.Count(log.String(), "refused before a source saw it"), "once a minute: %s", &log)
			if lines > 0 {
				require.Contains(t, log.String(), "reason="+tt.reason)
			}
		})
	}
}

// noDescriptors is a listener of a process that has none left, for the first calls.
type noDescriptors struct {
	*pipes
	faults int
}

func (l *noDescriptors) Accept() (net.Conn, error) {
	if l.faults--; l.faults >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.pipes.Accept()
}

func TestMissingDescriptorsAreTold(t *testing.T) {
	t.Parallel()
	var log lockedText
	l := &noDescriptors{newPipes(), 3}
	s, err := newServer(ServerOptions{Handler: bodyTaker, Limits: serverLimits(), Logger: slog.New(slog.NewTextHandler(&log, nil))}, l)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c := l.dial(t)
	fmt.Fprint(c, post(1, "1"))
	require.Eventually(t, func() bool { return strings.Contains(c.answers.String(), "200 OK") }, 10*time.Second, time.Millisecond, "it goes on")
	require.Equal(t, 1, strings.Count(log.String(), "reason=descriptors"), "%s", &log)
	c.Close()
	require.NoError(t, s.Shutdown(t.Context()))
	require.NoError(t, <-served)
}
