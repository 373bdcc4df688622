package kafkaconn

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"ncs-relay/relay/keyfile"
)

// TLS says whom to trust and with which certificate to connect. The files are read again for each new connection.
type TLS struct {
	CAFile             string `yaml:"ca_file,path"`          // authorities trusted in place of the system's, PEM
	CertFile           string `yaml:"cert_file,path"`        // our certificate chain, PEM, for brokers that ask for one
	KeyFile            string `yaml:"key_file,path,private"` // its private key, PEM
	ServerName         string `yaml:"server_name"`           // name that the brokers' certificates must have, if not that of their address
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`  // take any certificate
}

// Check reports what is wrong with t.
func (t *TLS) Check(report func(path, problem, hint string)) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		report("", "has only one of cert_file and key_file", "a certificate needs its key")
		return
	}
	if t.InsecureSkipVerify && t.CAFile != "" {
		report("insecure_skip_verify", "is there besides ca_file, which then has no effect", "keep one of them")
	}
	keyfile.CheckTLS(t.CAFile, t.CertFile, t.KeyFile, report)
}

// tlsFiles are the contents of the files of a TLS.
type tlsFiles [3][]byte

func (t *TLS) read() (files tlsFiles, err error) {
	for i, name := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if name == "" {
			continue
		}
		if files[i], err = keyfile.PEM(name); err != nil {
			return files, err
		}
	}
	return files, nil
}

func (t *TLS) config(files tlsFiles) (*tls.Config, error) {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(0), // each partition in flight is a connection
	}
	var err error
	if ca := files[0]; ca != nil {
		if config.RootCAs, err = keyfile.Authorities(t.CAFile, ca); err != nil {
			return nil, err
		}
	}
	if chain, key := files[1], files[2]; chain != nil {
		pair, err := keyfile.Pair(t.CertFile, t.KeyFile, chain, key)
		if err != nil { // also while one of the files is changed and the other is not yet
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// handshaker makes TLS connections with what the files hold.
type handshaker struct {
	tls *TLS

	mu     sync.Mutex // guards what follows
	files  tlsFiles
	config *tls.Config // of files; nil = none yet
}

// current gives the configuration of today's files. Files that cannot be used, as happens while a certificate and its key
// are changed one after the other, leave it as it was.
func (h *handshaker) current() (*tls.Config, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	files, err := h.tls.read()
	if err == nil && (h.config == nil || !slices.EqualFunc(files[:], h.files[:], bytes.Equal)) {
		var config *tls.Config
		if config, err = h.tls.config(files); err == nil {
			h.files, h.config = files, config
		}
	}
	if h.config == nil {
		return nil, err
	}
	return h.config, nil
}

// client makes the handshake on a connection to address, and closes the connection if that fails. It is made here and not
// by kafka-go so that files are read again, errors keep their types, and a broker with whom it fails is not the last tried.
func (h *handshaker) client(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	config, err := h.current()
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
