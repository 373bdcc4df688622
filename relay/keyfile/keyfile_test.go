package keyfile_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/keyfile"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                     "",
		"kanarienvogel":        "kanarienvogel",
		"kanarienvogel\n":      "kanarienvogel",
		"kanarienvogel\r\n\n":  "kanarienvogel",
		"\ufeffkanarienvogel":  "kanarienvogel",
		"two\nlines\n":         "two\nlines",
		" spaces may be meant": " spaces may be meant",
		"k\xe4se":              "k\xe4se", // a password in Latin-1 is one
	} {
		got, err := keyfile.Clean(in)
		require.NoError(t, err)
		require.Equal(t, want, got, "of %q", in)
	}
	for in, want := range map[string]string{
		"\xff\xfek\x00a\x00": "is UTF-16",
		"\xfe\xff\x00k\x00a": "is UTF-16",
		"k\x00a\x00":         "holds a NUL byte", // UTF-16 without its mark
		"kanarienvogel\x00":  "holds a NUL byte",
	} {
		_, err := keyfile.Clean(in)
		require.ErrorContains(t, err, want)
	}
}

func TestSecretNamesTheFileThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for content, want := range map[string]string{
		"":                          " is empty",
		"\ufeff\r\n":                " is empty",
		"\xff\xfek\x00":             " is UTF-16",
		string(make([]byte, 1)):     " holds a NUL byte",
		string(make([]byte, 1<<17)): " has more than 65536 bytes",
	} {
		name := filepath.Join(dir, "secret")
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
		_, err := keyfile.Secret(name)
		require.ErrorContains(t, err, "file \""+name+"\""+want)
	}
	_, err := keyfile.Secret(dir)
	require.EqualError(t, err, "\""+dir+"\" is not a file")
	_, err = keyfile.Secret(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestPairsThatAreNone(t *testing.T) {
	t.Parallel()
	chain, key := pair(t)
	_, other := pair(t)
	asPEM := func(kind string, data []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}) }
	old := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: key})
	for name, test := range map[string]struct {
		chain, key []byte
		want       string
	}{
		"encrypted, PKCS #8":    {chain, asPEM("ENCRYPTED PRIVATE KEY", key), "is encrypted"},
		"encrypted, older form": {chain, old, "is encrypted"},
		"key of another":        {chain, other, "do not belong together"},
		"no key":                {chain, chain, `file "k" holds no private key`},
		"no certificate":        {key, key, `file "c" holds no certificate`},
		"garbage":               {chain, asPEM("PRIVATE KEY", []byte("x")), "cannot be read as what they say they are"},
		"empty":                 {nil, nil, `file "c" holds no certificate`},
	} {
		_, err := keyfile.Pair("c", "k", test.chain, test.key)
		require.ErrorContains(t, err, test.want, name)
	}
	_, err := keyfile.Pair("c", "k", chain, key)
	require.NoError(t, err)
}

func pair(t *testing.T) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}
