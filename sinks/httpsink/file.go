package httpsink

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
)

// secretFile is a setting that names a file with one secret.
type secretFile struct {
	path string // of the setting
	file string
	put  func(*Config, relay.Secret) // sets what the file holds
	ok   func(relay.Secret) error    // reports whether it may be that
}

// secretFiles lists the files that hold secrets of c.
func (c *Config) secretFiles() []secretFile {
	var files []secretFile
	for _, name := range slices.Sorted(maps.Keys(c.HeaderFiles)) {
		put := func(c *Config, s relay.Secret) { c.Headers[name] = s }
		files = append(files, secretFile{"header_files[" + name + "]", c.HeaderFiles[name], put, headerValue})
	}
	if c.BearerTokenFile != "" {
		put := func(c *Config, s relay.Secret) { c.BearerToken = s }
		files = append(files, secretFile{"bearer_token_file", c.BearerTokenFile, put, headerValue})
	}
	if b := c.BasicAuth; b != nil && b.PasswordFile != "" {
		put := func(c *Config, s relay.Secret) { c.BasicAuth.Password = s }
		files = append(files, secretFile{"basic_auth.password_file", b.PasswordFile, put, anyValue})
	}
	if w := c.StandardWebhooks; w != nil {
		for i, file := range w.SecretFiles {
			put := func(c *Config, s relay.Secret) { c.StandardWebhooks.Secrets = append(c.StandardWebhooks.Secrets, s) }
			files = append(files, secretFile{fmt.Sprintf("standard_webhooks.secret_files[%d]", i), file, put, webhookValue})
		}
	}
	return files
}

func anyValue(relay.Secret) error { return nil }

func headerValue(s relay.Secret) error {
	if !sendable(s) {
		return problem.Errorf("has a value that cannot be sent")
	}
	return nil
}

func webhookValue(s relay.Secret) error {
	_, err := webhookKey(s)
	return err
}

func (f secretFile) read() (relay.Secret, error) {
	secret, err := relay.ReadSecret(f.file)
	if err != nil {
		return secret, err
	}
	if err := f.ok(secret); err != nil {
		return secret, problem.Errorf("file %q %w", f.file, err)
	}
	return secret, nil
}

func (c *Config) checkFiles(report problem.Report) {
	for _, f := range c.secretFiles() {
		if _, err := f.read(); err != nil {
			report(f.path, "%v", "", err)
		}
	}
}

// withFiles returns a copy of c that holds the secrets of its files too.
func (c *Config) withFiles() (Config, error) {
	full := *c
	full.Headers = maps.Clone(c.Headers)
	if full.Headers == nil {
		full.Headers = map[string]relay.Secret{}
	}
	if c.BasicAuth != nil {
		basic := *c.BasicAuth
		full.BasicAuth = &basic
	}
	if c.StandardWebhooks != nil {
		full.StandardWebhooks = &StandardWebhooks{Secrets: slices.Clone(c.StandardWebhooks.Secrets)}
	}
	for _, f := range c.secretFiles() {
		secret, err := f.read()
		if err != nil {
			return Config{}, fmt.Errorf("%s: %w", f.path, err)
		}
		f.put(&full, secret)
	}
	return full, nil
}

// watched lists all files that calls depend on.
func (c *Config) watched() []string {
	var names []string
	for _, f := range c.secretFiles() {
		names = append(names, f.file)
	}
	return append(names, c.TLS.Names()...)
}

// lookEvery is how often files are looked at while calls are made.
const lookEvery = time.Second
