package config

import (
	"fmt"
	"slices"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
)

const weakSecret = 8 // Agora's own have 32 characters

// namedFile is a file that a setting names.
type namedFile struct {
	name, path string
	field      field
}

// clean returns what is meant by the value of a secret, token or user name at path.
func (d *decoder) clean(value, path string) (string, error) {
	value, err := keyfile.Clean(value)
	if err == nil {
		d.warnEdges(value, path)
	}
	return value, err
}

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
			secret, err := relay.ReadSecret(file)
			if err != nil {
				d.problem(Error, at, "%v", "", err)
				continue
			}
			d.warnWeak(secret, at)
			s.Resolved = append(s.Resolved, secret)
		}
	}
	d.warnWeak(c.Admin.Token, "admin.token")
	for i, t := range c.Admin.Tokens {
		d.warnWeak(t.Token, fmt.Sprintf("admin.tokens[%d].token", i))
	}
}

// lookAtFiles warns of what is odd about files with secrets, whoever uses them. That a file cannot be read is reported by
// whoever reads it.
func (d *decoder) lookAtFiles() {
	for _, f := range d.files {
		secret := f.field.is("secret")
		if (secret || f.field.is("private")) && keyfile.OpenToAll(f.name) {
			d.problem(Warning, f.path, "file %q can be read by everybody on this machine", "chmod o-r", f.name)
		}
		if !secret {
			continue
		}
		if value, err := keyfile.Secret(f.name); err == nil {
			d.hide(value, hidden)
			d.warnEdges(value, f.path)
		}
	}
}

func (d *decoder) warnEdges(secret, path string) {
	switch {
	case keyfile.HasInvisibleEdge(secret):
		d.problem(Warning, path, "the value begins or ends with white space or another invisible character", "which is taken as part of it")
	case secret != "" && secret[0] == '$' && isVariable(secret[1:]):
		d.problem(Warning, path, "the value looks like a variable without braces and is taken as it stands", "write ${NAME} for a variable")
	}
}

func (d *decoder) warnWeak(s relay.Secret, path string) {
	if n := len(s.Reveal()); n > 0 && n < weakSecret {
		d.problem(Warning, path, fmt.Sprintf("the secret is shorter than %d characters", weakSecret), "it can be guessed")
	}
}
