package httpsink

import (
	"crypto/tls"
	"crypto/x509"
)

// Trust makes the sink trust the authorities of a test server.
func (s *Sink) Trust(pool *x509.CertPool) {
	s.current.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
}
