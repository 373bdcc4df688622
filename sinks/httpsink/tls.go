package httpsink

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"ncs-relay/relay/keyfile"
)

// TLS says whom to trust and with which certificate to call. Files are followed when they change.
type TLS struct {
	CAFile             string `yaml:"ca_file,path"`          // authorities trusted in place of the system's, PEM
	CertFile           string `yaml:"cert_file,path"`        // our certificate chain, PEM, for receivers that ask for one
	KeyFile            string `yaml:"key_file,path,private"` // its private key, PEM
	ServerName         string `yaml:"server_name"`           // name that the receiver's certificate must have, if not that of the URL
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`  // take any certificate
}

func (t *TLS) files() []string {
	if t == nil {
		return nil
	}
	var names []string
	for _, name := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (t *TLS) check(report func(path, problem, hint string)) {
	if t == nil {
		return
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		report("tls", "has only one of cert_file and key_file", "a certificate needs its key")
		return
	}
	if t.InsecureSkipVerify && t.CAFile != "" {
		report("tls.insecure_skip_verify", "is there besides ca_file, which then has no effect", "keep one of them")
	}
	keyfile.CheckTLS(t.CAFile, t.CertFile, t.KeyFile, func(path, problem, hint string) { report("tls."+path, problem, hint) })
}

// config is nil where there is nothing to say.
func (t *TLS) config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	authorities, err := t.authorities()
	if err != nil {
		return nil, fmt.Errorf("tls.ca_file: %w", err)
	}
	certificates, err := t.certificates()
	if err != nil {
		return nil, fmt.Errorf("tls.cert_file: %w", err)
	}
	return &tls.Config{
		RootCAs: authorities, Certificates: certificates, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify,
	}, nil
}

// authorities is nil for those of the system.
func (t *TLS) authorities() (*x509.CertPool, error) {
	if t.CAFile == "" {
		return nil, nil
	}
	return keyfile.LoadAuthorities(t.CAFile)
}

func (t *TLS) certificates() ([]tls.Certificate, error) {
	if t.CertFile == "" {
		return nil, nil
	}
	pair, err := keyfile.LoadPair(t.CertFile, t.KeyFile)
	if err != nil { // also while one of the two files is changed and the other is not yet
		return nil, err
	}
	return []tls.Certificate{pair}, nil
}
