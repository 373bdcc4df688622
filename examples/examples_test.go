// Package examples_test proves that the example configurations and the README are true: each example loads without a
// warning, the README's commands run, and what it lists is what the code has.
package examples_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/config"
	"ncs-relay/sinks"
)

// environment gives each example the variables its header asks for.
func environment(t *testing.T) func(string) (string, bool) {
	secrets := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(secrets, "ncs-recording"), []byte("one-secret-of-a-product\n"), 0o600))
	for name, content := range map[string]string{
		"billing-token":   "one-bearer-token",
		"kafka-password":  "one-password",
		"billing-webhook": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(secrets, name), []byte(content+"\n"), 0o600))
	}
	writeCertificate(t, secrets)
	values := map[string]string{
		"NCS_SECRET":           "one-secret-of-a-product",
		"NCS_RECORDING_SECRET": "one-secret-of-a-product",
		"NCS_RTC_SECRET":       "another-secret-of-a-product",
		"NCS_RTC_SECRET_OLD":   "an-old-secret-of-a-product",
		"NCS_RTC_SECRET_NEW":   "a-new-secret-of-a-product",
		"NCS_SECRETS_DIR":      secrets,
		"NCS_ADMIN_TOKEN":      "one-token-of-operators",
		"WEBHOOK_SECRET":       "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
	}
	return func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}
}

// configurations are the examples, by path: those beside this file, and in folders what is called relay.yaml.
func configurations(t *testing.T) []string {
	var files []string
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (path == "demo" || path == "cluster") { // are programs with tests of their own
			return fs.SkipDir
		}
		if filepath.Base(path) == "relay.yaml" || filepath.Ext(path) == ".yaml" && filepath.Dir(path) == "." {
			files = append(files, path)
		}
		return err
	}))
	require.NotEmpty(t, files)
	return files
}

func TestExamplesLoadWithoutWarning(t *testing.T) {
	t.Parallel()
	for _, file := range configurations(t) {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			cfg, report := config.Load(file, environment(t), sinks.Kinds)
			require.Empty(t, report.String())
			require.NotNil(t, cfg)
		})
	}
}

func TestExamplesSayWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	overview, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.FileExists(t, "../config/schema.json")
	for _, file := range configurations(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		schema := strings.Repeat("../", 1+strings.Count(file, "/")) + "config/schema.json"
		require.Regexp(t, `^# yaml-language-server: \$schema=`+schema+`\n#\n# \S`, string(text), file)
		require.Contains(t, string(overview), "("+file+")", "examples/README.md does not name the example")
	}
}

// writeCertificate makes a certificate that is its own authority, and its key.
func writeCertificate(t *testing.T, dir string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	certificate := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{
		"ca.pem":         {Type: "CERTIFICATE", Bytes: der},
		"client.pem":     {Type: "CERTIFICATE", Bytes: der},
		"client-key.pem": {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
}
