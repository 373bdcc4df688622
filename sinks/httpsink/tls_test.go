package httpsink_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/keyfile"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, key: newKey(t)}
	a.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.pem, _ = a.issueFor(a.cert, a.key)
	block, _ := pem.Decode(a.pem)
	var err error
	a.cert, err = x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// issue returns certificate and key in PEM for a service or client called name.
func (a *authority) issue(name string) (cert, key []byte) {
	return a.issueFor(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, newKey(a.t))
}

func (a *authority) issueFor(c *x509.Certificate, key *ecdsa.PrivateKey) (certPEM, keyPEM []byte) {
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// files writes files of a fresh directory and names them.
func files(t *testing.T, contents ...[]byte) []string {
	dir := t.TempDir()
	var names []string
	for i, content := range contents {
		names = append(names, filepath.Join(dir, string(rune('a'+i))))
		write(t, names[i], content)
	}
	return names
}

// write puts another file in place of one, as careful editors and Kubernetes do.
func write(t *testing.T, name string, content []byte) {
	require.NoError(t, os.WriteFile(name+".new", content, 0o600))
	require.NoError(t, os.Rename(name+".new", name))
}

// TestMutualTLS: a receiver with a certificate of a private authority that asks for one of ours, followed when it changes.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	serverCert, serverKey := ca.issue("billing.internal")
	pair, err := tls.X509KeyPair(serverCert, serverKey)
	require.NoError(t, err)
	callers := make(chan string, 10)
	far := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		callers <- r.TLS.PeerCertificates[0].Subject.CommonName
	}))
	far.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}
	far.Config.ErrorLog = log.New(io.Discard, "", 0)
	far.StartTLS()
	t.Cleanup(far.Close)

	firstCert, firstKey := ca.issue("first")
	names := files(t, ca.pem, firstCert, firstKey)
	with := func(change func(*keyfile.TLS)) httpsink.Config {
		return config(far.URL, func(c *httpsink.Config) {
			c.TLS = &keyfile.TLS{CAFile: names[0], CertFile: names[1], KeyFile: names[2], ServerName: "billing.internal"}
			change(c.TLS)
		})
	}
	e := sinktest.Event(1, "sid")
	require.ErrorContains(t, send(t, newSink(t, with(func(c *keyfile.TLS) { c.ServerName = "" })), e), "certificate", "the name is checked")
	require.ErrorContains(t, send(t, newSink(t, with(func(c *keyfile.TLS) { c.CAFile = "" })), e), "certificate", "the authority is checked")
	require.Error(t, send(t, newSink(t, with(func(c *keyfile.TLS) { c.CertFile, c.KeyFile = "", "" })), e), "the receiver wants a certificate")

	var out bytes.Buffer
	s, err := httpsink.New(with(func(*keyfile.TLS) {}), "ncs-relay/test", slog.New(slog.NewTextHandler(&out, nil)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	call := func() string {
		s.LookAgain()
		require.NoError(t, send(t, s, e))
		return <-callers
	}
	require.Equal(t, "first", call())
	secondCert, secondKey := ca.issue("second")
	write(t, names[1], secondCert)
	require.Equal(t, "first", call(), "the key is not there yet")
	require.Equal(t, "first", call())
	require.Equal(t, 1, strings.Count(out.String(), "cannot be used"), "said once")
	write(t, names[2], secondKey)
	require.Equal(t, "second", call())
	require.NoError(t, os.Remove(names[0]))
	require.Equal(t, "second", call())
	require.Equal(t, 2, strings.Count(out.String(), "cannot be used"))
}

func TestInsecureIsLoud(t *testing.T) {
	t.Parallel()
	far := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(far.Close)
	cfg := config(far.URL, func(c *httpsink.Config) { c.TLS = &keyfile.TLS{InsecureSkipVerify: true} })
	var out bytes.Buffer
	s, err := httpsink.New(cfg, "ncs-relay/test", slog.New(slog.NewTextHandler(&out, nil)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, send(t, s, sinktest.Event(1, "sid")))
	require.Contains(t, out.String(), "level=WARN")
	require.Contains(t, out.String(), "NOT verified")
	var warned []string
	cfg.Warn(func(path, _, _ string, _ ...any) { warned = append(warned, path) })
	require.Equal(t, []string{"tls.insecure_skip_verify"}, warned)
}
