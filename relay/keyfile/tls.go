package keyfile

import (
	"crypto/sha256"
	"crypto/tls"
	"slices"
	"sync"

	"ncs-relay/relay/problem"
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
func (t *TLS) Check(report problem.Report) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		report("", "has only one of cert_file and key_file", "a certificate needs its key")
		return
	}
	if t.InsecureSkipVerify && t.CAFile != "" {
		report("insecure_skip_verify", "cannot be combined with ca_file, which it makes ineffective", "keep one of them")
	}
	CheckTLS(t.CAFile, t.CertFile, t.KeyFile, report)
}

// Names are the files that t needs.
func (t *TLS) Names() []string {
	if t == nil {
		return nil
	}
	return slices.DeleteFunc([]string{t.CAFile, t.CertFile, t.KeyFile}, func(name string) bool { return name == "" })
}

// Config returns the configuration of what the files hold now; nil, that of Go, if t is nil. It fails also while a
// certificate and its key are changed one after the other.
func (t *TLS) Config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(0), // many connections to one server are opened at once
	}
	var err error
	if t.CAFile != "" {
		if config.RootCAs, err = LoadAuthorities(t.CAFile); err != nil {
			return nil, err
		}
	}
	if t.CertFile != "" {
		pair, err := LoadPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Follower makes configurations of a TLS for connections that are made now and then. It may be used by several goroutines.
type Follower struct {
	TLS *TLS

	mu     sync.Mutex // guards what follows
	digest [sha256.Size]byte
	config *tls.Config // of the files with that digest; nil = none yet
}

// Current returns the configuration of today's files, which must not be changed. Files that cannot be used leave it as it was.
func (f *Follower) Current() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := Digest(f.TLS.Names()...) // before reading, so that a change in between is seen next time
	if f.config != nil && now == f.digest {
		return f.config, nil
	}
	config, err := f.TLS.Config()
	if err == nil {
		f.digest, f.config = now, config
	}
	if f.config == nil {
		return nil, err
	}
	return f.config, nil
}
