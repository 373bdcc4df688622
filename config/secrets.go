package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"ncs-relay/relay"
)

const (
	maxSecretFile = 4 << 10
	weakSecret    = 8 // Agora's own have 32 characters
)

// readSecrets puts together the secrets in effect of every source.
func (d *decoder) readSecrets(c *Config) {
	for i := range c.Sources {
		s := &c.Sources[i]
		path := fmt.Sprintf("sources[%d]", i)
		s.Resolved = slices.Clone(s.Secrets)
		for j, secret := range s.Secrets {
			d.warnWeak(secret, fmt.Sprintf("%s.secrets[%d]", path, j))
		}
		for j, file := range s.SecretFiles {
			at := fmt.Sprintf("%s.secret_files[%d]", path, j)
			secret, err := readSecret(file)
			if err != nil {
				d.problem(Error, at, fmt.Sprintf("file %q %s", file, err), "")
				continue
			}
			d.hide(secret.Reveal(), hidden)
			d.warnWeak(secret, at)
			d.warnReadable(file, at)
			s.Resolved = append(s.Resolved, secret)
		}
	}
	if c.Admin.Token.IsSet() {
		d.warnWeak(c.Admin.Token, "admin.token")
	}
}

// readSecret reads a file with one secret. The newline that editors and shells leave at its end is not part of it.
func readSecret(file string) (relay.Secret, error) {
	if file == "" {
		return relay.Secret{}, errors.New("has no name")
	}
	info, err := os.Stat(file)
	if err != nil {
		return relay.Secret{}, errors.New("cannot be read: " + reason(err))
	}
	if !info.Mode().IsRegular() { // reading a pipe would wait for its writer
		return relay.Secret{}, errors.New("is not a file")
	}
	data, err := readBounded(file, maxSecretFile+1)
	switch {
	case err != nil:
		return relay.Secret{}, errors.New("cannot be read: " + reason(err))
	case len(data) > maxSecretFile:
		return relay.Secret{}, fmt.Errorf("has more than %d bytes", maxSecretFile)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if text == "" {
		return relay.Secret{}, errors.New("is empty")
	}
	return relay.NewSecret(text), nil
}

func (d *decoder) warnWeak(s relay.Secret, path string) {
	switch text := s.Reveal(); {
	case text == "": // an error of its own
	case len(text) < weakSecret:
		d.problem(Warning, path, fmt.Sprintf("the secret is shorter than %d characters", weakSecret), "it can be guessed")
	case strings.TrimSpace(text) != text:
		d.problem(Warning, path, "the secret begins or ends with white space", "which is taken as part of it")
	case text[0] == '$' && isVariable(text[1:]):
		d.problem(Warning, path, "the secret looks like a variable without braces and is taken as it stands", "write ${NAME} for a variable")
	}
}

func (d *decoder) warnReadable(file, path string) {
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o004 != 0 {
		d.problem(Warning, path, fmt.Sprintf("file %q can be read by everybody on this machine", file), "chmod o-r")
	}
}
