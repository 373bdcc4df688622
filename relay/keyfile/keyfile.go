// Package keyfile reads secrets, private keys and certificates, by one rule for all parts of the relay. Whether and when a
// file is read again is left to the caller.
//
// No error holds anything of what was read. All of them name the file, where there is one.
package keyfile

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode"

	"ncs-relay/relay/problem"
)

const (
	maxSecret = 64 << 10 // some issuers' tokens are long
	maxPEM    = 4 << 20  // bundles of authorities have some 200 KiB
)

// Secret reads a file that holds one secret; see Clean.
func Secret(name string) (string, error) {
	data, err := read(name, maxSecret)
	if err != nil {
		return "", err
	}
	secret, err := Clean(string(data))
	switch {
	case err != nil:
		return "", problem.Errorf("file %q %w", name, err)
	case secret == "":
		return "", problem.Errorf("file %q is empty", name)
	}
	return secret, nil
}

// Clean returns a secret, token or user name without what editors, shells and other tools leave around it: a byte order
// mark before it, line breaks after it. What cannot be meant is refused; the error completes a sentence about the secret.
func Clean(text string) (string, error) {
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		return "", problem.Errorf("is UTF-16, which nobody expects in a secret: save it as UTF-8")
	}
	if strings.ContainsRune(text, 0) {
		return "", problem.Errorf("holds a NUL byte: write it anew as plain text, UTF-8")
	}
	return strings.TrimRight(strings.TrimPrefix(text, "\ufeff"), "\r\n"), nil
}

// HasInvisibleEdge reports whether a secret begins or ends with a character that nobody sees, and few mean.
func HasInvisibleEdge(secret string) bool {
	invisible := func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }
	return strings.TrimFunc(secret, invisible) != secret
}

// readPEM reads a file with certificates or a key.
func readPEM(name string) ([]byte, error) { return read(name, maxPEM) }

// authorities returns the certificates in data, which is what file holds.
func authorities(file string, data []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, problem.Errorf("file %q holds no certificate in PEM", file)
	}
	return pool, nil
}

// Pair returns the certificate chain of one file, which holds chain, with the private key of another, which holds key.
func Pair(certFile, keyFile string, chain, key []byte) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil { // whose words may show what is in the files
		return tls.Certificate{}, noPair(certFile, keyFile, chain, key)
	}
	return pair, nil
}

// LoadAuthorities reads a file of certificates.
func LoadAuthorities(file string) (*x509.CertPool, error) {
	data, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	return authorities(file, data)
}

// LoadPair reads a certificate chain and its private key.
func LoadPair(certFile, keyFile string) (tls.Certificate, error) {
	chain, err := readPEM(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readPEM(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return Pair(certFile, keyFile, chain, key)
}

// CheckTLS reads the files of a configuration's TLS section and reports what is wrong with each, at its key. An empty name is
// a file that is not given.
func CheckTLS(caFile, certFile, keyFile string, report problem.Report) {
	look := func(key, file string) (data []byte) {
		if file == "" {
			return nil
		}
		data, err := readPEM(file)
		if err != nil {
			report(key, "%v", "", err)
		}
		return data
	}
	if ca := look("ca_file", caFile); ca != nil {
		if _, err := authorities(caFile, ca); err != nil {
			report("ca_file", "%v", "", err)
		}
	}
	chain, key := look("cert_file", certFile), look("key_file", keyFile)
	if chain == nil || key == nil {
		return
	}
	if _, err := Pair(certFile, keyFile, chain, key); err != nil {
		report("cert_file", "%v", "", err)
	}
}

// noPair says why chain and key are no pair.
func noPair(certFile, keyFile string, chain, key []byte) error {
	keys := blocks(key)
	switch {
	case !slices.ContainsFunc(blocks(chain), func(b *pem.Block) bool { return b.Type == "CERTIFICATE" }):
		return problem.Errorf("file %q holds no certificate in PEM", certFile)
	case slices.ContainsFunc(keys, encrypted):
		return problem.Errorf("the private key in file %q is encrypted, and nobody can type its passphrase: decrypt it with "+
			"openssl pkey -in KEY -out NEW, and let nobody else read the result", keyFile)
	case !slices.ContainsFunc(keys, func(b *pem.Block) bool { return strings.HasSuffix(b.Type, "PRIVATE KEY") }):
		return problem.Errorf("file %q holds no private key in PEM", keyFile)
	}
	return problem.Errorf("certificate %q and private key %q do not belong together, or cannot be read as what they say they are", certFile, keyFile)
}

func blocks(data []byte) (all []*pem.Block) {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return all
		}
		all = append(all, b)
	}
}

// encrypted reports whether a block is a private key under a passphrase: PKCS #8, or the older form of OpenSSL.
func encrypted(b *pem.Block) bool {
	return b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED")
}

// Digest changes when what a file holds does, or whether it can be read; its times and its place on the disk do not count,
// which tools that copy or restore files leave as they were.
func Digest(names ...string) [sha256.Size]byte {
	all := sha256.New()
	for _, name := range names {
		data, err := read(name, maxPEM)
		if err != nil {
			data = []byte(err.Error())
		}
		sum := sha256.Sum256(data)
		all.Write(sum[:])
	}
	return [sha256.Size]byte(all.Sum(nil))
}

// OpenToAll reports whether everybody on this machine can read a file.
func OpenToAll(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0
}

// read reads a regular file: reading a pipe would wait for its writer.
func read(name string, limit int64) ([]byte, error) {
	if name == "" {
		return nil, problem.Errorf("the file has no name")
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, cannotRead(name, err)
	case !info.Mode().IsRegular():
		return nil, problem.Errorf("%q is not a file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, cannotRead(name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, cannotRead(name, err)
	case int64(len(data)) > limit:
		return nil, problem.Errorf("file %q has more than %d bytes", name, limit)
	}
	return data, nil
}

func cannotRead(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // without the name, which is said already
	}
	return problem.Errorf("file %q cannot be read: %w", name, err)
}
