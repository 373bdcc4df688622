package kafkaconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"ncs-relay/relay/keyfile"
)

// handshaker makes TLS connections with what the files hold.
type handshaker struct{ keyfile.Follower }

// client makes the handshake on a connection to address, and closes the connection if that fails. It is made here and not
// by kafka-go so that files are read again, errors keep their types, and a broker with whom it fails is not the last tried.
func (h *handshaker) client(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	config, err := h.Current()
	if err == nil && config.ServerName == "" {
		var host string
		if host, _, err = net.SplitHostPort(address); err == nil {
			config = config.Clone()
			config.ServerName = host
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx) // why it was given up
		}
		if hungUp(err) || errors.As(err, new(tls.RecordHeaderError)) {
			err = fmt.Errorf("no answer in TLS; does this port take TLS, or is tls unwanted in the configuration? %w", err)
		}
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return secure, nil
}
