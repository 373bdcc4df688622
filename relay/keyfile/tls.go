package keyfile

import (
	"bytes"
	"crypto/tls"
	"slices"
	"sync"
)

// TLS says whom to trust and with which certificate to connect. Whether its files are followed when they change is said
// where it is used.
type TLS struct {
	CAFile             string `yaml:"ca_file,path"`          // authorities trusted in place of the system's, PEM
	CertFile           string `yaml:"cert_file,path"`        // our certificate chain, PEM, for servers that ask for one
	KeyFile            string `yaml:"key_file,path,private"` // its private key, PEM
	ServerName         string `yaml:"server_name"`           // name that the server's certificate must have, if not that of its address
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`  // take any certificate
}

// Check reports what is wrong with t.
func (t *TLS) Check(report func(path, problem, hint string)) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		report("", "has only one of cert_file and key_file", "a certificate needs its key")
		return
	}
	if t.InsecureSkipVerify && t.CAFile != "" {
		report("insecure_skip_verify", "cannot be combined with ca_file, which it makes ineffective", "keep one of them")
	}
	CheckTLS(t.CAFile, t.CertFile, t.KeyFile, report)
}

// tlsFiles are the contents of the files of a TLS.
type tlsFiles [3][]byte

func (t *TLS) read() (files tlsFiles, err error) {
	for i, name := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if name == "" {
			continue
		}
		if files[i], err = PEM(name); err != nil {
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
		ClientSessionCache: tls.NewLRUClientSessionCache(0), // many connections to one server are opened at once
	}
	var err error
	if ca := files[0]; ca != nil {
		if config.RootCAs, err = Authorities(t.CAFile, ca); err != nil {
			return nil, err
		}
	}
	if chain, key := files[1], files[2]; chain != nil {
		pair, err := Pair(t.CertFile, t.KeyFile, chain, key)
		if err != nil { // also while one of the files is changed and the other is not yet
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Names are the files that t needs.
func (t *TLS) Names() []string {
	if t == nil {
		return nil
	}
	return slices.DeleteFunc([]string{t.CAFile, t.CertFile, t.KeyFile}, func(name string) bool { return name == "" })
}

// Config returns the configuration of what the files hold now; nil, that of Go, if t is nil.
func (t *TLS) Config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	files, err := t.read()
	if err != nil {
		return nil, err
	}
	return t.config(files)
}

// Follower makes configurations of a TLS for connections that are made now and then. It may be used by several goroutines.
type Follower struct {
	TLS *TLS

	mu     sync.Mutex // guards what follows
	files  tlsFiles
	config *tls.Config // of files; nil = none yet
}

// Current returns the configuration of today's files, which must not be changed. Files that cannot be used, as happens while a certificate and its key
// are changed one after the other, leave it as it was.
func (f *Follower) Current() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	files, err := f.TLS.read()
	if err == nil && (f.config == nil || !slices.EqualFunc(files[:], f.files[:], bytes.Equal)) {
		var config *tls.Config
		if config, err = f.TLS.config(files); err == nil {
			f.files, f.config = files, config
		}
	}
	if f.config == nil {
		return nil, err
	}
	return f.config, nil
}
