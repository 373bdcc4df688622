package ingress

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ncs-relay/relay/relaytest"

	"github.com/stretchr/testify/require"
)

// certificateFiles are a certificate and its key, told apart by the certificate's serial number.
type certificateFiles struct{ cert, key string }

func newCertificateFiles(t *testing.T) *certificateFiles {
	dir := t.TempDir()
	return &certificateFiles{cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
}

// write replaces the files. The time of modification stays the same, as with tools that set it and file systems that cannot
// tell two changes apart.
func (f *certificateFiles) write(t *testing.T, file string, contents []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, contents, 0o600))
	require.NoError(t, os.Chtimes(file, time.Unix(1_700_000_000, 0), time.Unix(1_700_000_000, 0)))
}

func makeCertificate(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"ncs.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	privateDER, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: privateDER})
}

func TestCertificateIsFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		files, log := newCertificateFiles(t), &lockedText{}
		put := func(serial int64) {
			cert, key := makeCertificate(t, serial)
			files.write(t, files.cert, cert)
			files.write(t, files.key, key)
		}
		put(1)
		p := newPipes()
		s, err := newServer(ServerOptions{Handler: bodyTaker, Limits: serverLimits(), CertFile: files.cert, KeyFile: files.key,
			Logger: slog.New(slog.NewTextHandler(log, nil))}, p)
		require.NoError(t, err)
		go s.Serve()
		defer s.http.Close()

		// greet gives what the server agrees to.
		greet := func(c *tls.Config) (tls.ConnectionState, error) {
			near, far := net.Pipe()
			defer near.Close()
			p.made <- far
			c.InsecureSkipVerify = true
			conn := tls.Client(near, c)
			err := conn.Handshake()
			return conn.ConnectionState(), err
		}
		serial := func() int64 {
			state, err := greet(&tls.Config{NextProtos: []string{"h2", "http/1.1"}})
			require.NoError(t, err)
			require.Equal(t, "http/1.1", state.NegotiatedProtocol, "no HTTP/2 on the public port")
			return state.PeerCertificates[0].SerialNumber.Int64()
		}
		require.EqualValues(t, 1, serial())
		_, err = greet(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		require.ErrorContains(t, err, "protocol version")

		put(2)
		time.Sleep(certificateCheck)
		require.EqualValues(t, 2, serial())

		cert, key := makeCertificate(t, 3)
		files.write(t, files.cert, cert) // and not yet its key
		time.Sleep(certificateCheck)
		require.EqualValues(t, 2, serial(), "the old pair stays in use while the new one is half there")
		require.Contains(t, log.String(), "changed certificate not loaded")
		files.write(t, files.key, key)
		time.Sleep(certificateCheck)
		require.EqualValues(t, 3, serial())

		require.NoError(t, os.Remove(files.cert))
		time.Sleep(certificateCheck)
		require.EqualValues(t, 3, serial())
	})
}

func TestCertificateThatCannotBeLoadedIsAnErrorAtStart(t *testing.T) {
	t.Parallel()
	files := newCertificateFiles(t)
	listen := func() error {
		_, err := Listen(ServerOptions{Listen: "127.0.0.1:0", Handler: bodyTaker, Limits: serverLimits(), CertFile: files.cert, KeyFile: files.key,
			Logger: slog.New(slog.DiscardHandler)})
		return err
	}
	require.ErrorContains(t, listen(), "certificate: ")
	cert, _ := makeCertificate(t, 1)
	_, key := makeCertificate(t, 2)
	files.write(t, files.cert, cert)
	files.write(t, files.key, key)
	require.ErrorContains(t, listen(), "do not belong together")
	require.NotContains(t, listen().Error(), string(bytes.TrimSpace(key)))
}

func TestHealthPath(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	s, err := Listen(ServerOptions{Listen: "127.0.0.1:0", Handler: http.NotFoundHandler(), Limits: serverLimits(), HealthPath: "/healthz", Ready: ready.Load,
		Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	go s.Serve()
	defer s.http.Close()
	url := "http://" + s.Addr().String()
	require.Equal(t, 503, relaytest.Request(t, "GET", url+"/healthz", nil).Code)
	ready.Store(true)
	require.JSONEq(t, `{"status":"ok"}`, relaytest.Request(t, "GET", url+"/healthz?x=1", nil).Raw)
	for _, other := range []string{"/", "/healthz/", "/livez"} {
		resp, err := http.Get(url + other)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 404, resp.StatusCode, other)
	}
}
