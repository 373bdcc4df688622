package kafkaconn

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
)

// TLS says whom to trust and with which certificate to connect. The files are read again for each new connection.
type TLS struct {
	CAFile             string `yaml:"ca_file,path"`         // authorities trusted in place of the system's, PEM
	CertFile           string `yaml:"cert_file,path"`       // our certificate chain, PEM, for brokers that ask for one
	KeyFile            string `yaml:"key_file,path"`        // its private key, PEM
	ServerName         string `yaml:"server_name"`          // name that the brokers' certificates must have, if not that of their address
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"` // take any certificate
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
	files, err := t.read()
	if err == nil {
		_, err = t.config(files)
	}
	if err != nil {
		report("", err.Error(), "")
	}
}

// tlsFiles are the contents of the files of a TLS.
type tlsFiles [3][]byte

func (t *TLS) read() (files tlsFiles, err error) {
	for i, name := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if name == "" {
			continue
		}
		if files[i], err = readFile(name); err != nil {
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
	if ca := files[0]; ca != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("file %q holds no certificate in PEM", t.CAFile)
		}
	}
	if chain, key := files[1], files[2]; chain != nil {
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil { // also while one of the files is changed and the other is not yet; the words may show what is in them
			return nil, fmt.Errorf("certificate %q and key %q are no pair in PEM", t.CertFile, t.KeyFile)
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
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return secure, nil
}

const maxFile = 4 << 20 // bundles of authorities have some 200 KiB

func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, cannotRead(name, err)
	case !info.Mode().IsRegular(): // reading a pipe would wait for its writer
		return nil, fmt.Errorf("%q is not a file", name)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("file %q has more than %d bytes", name, maxFile)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, cannotRead(name, err)
	}
	return data, nil
}

func cannotRead(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // without the path, which is named already
	}
	return fmt.Errorf("file %q cannot be read: %w", name, err)
}
