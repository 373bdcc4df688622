package relay

import (
	"log/slog"
	"strings"

	"ncs-relay/relay/keyfile"
)

// Secret is a configured secret. It prints as <secret> through fmt, slog, JSON and YAML; only Reveal gives the value.
type Secret struct{ value string }

// NewSecret makes a Secret of value.
func NewSecret(value string) Secret { return Secret{value} }

// ReadSecret reads a file that holds one secret. A byte order mark before it and line breaks after it are no part of it. No error
// shows anything of the file but its name.
func ReadSecret(file string) (Secret, error) {
	value, err := keyfile.Secret(file)
	return Secret{value}, err
}

// Reveal returns the secret's value. What it returns must never reach a log, an error, a label or a page.
func (s Secret) Reveal() string { return s.value }

// IsSet reports whether there is a value.
func (s Secret) IsSet() bool { return s.value != "" }

// MaskURL returns a URL as logs and listings show it: scheme and host. Path and query may be all that a caller needs, and so a secret.
// What is no URL is hidden, but a variable for the whole.
func MaskURL(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		if strings.HasPrefix(raw, "${") && strings.IndexByte(raw, '}') == len(raw)-1 {
			return raw
		}
		return redacted
	}
	base := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		base = rest[:end]
	}
	path, query, _ := strings.Cut(rest[len(base):], "?")
	shown := scheme + "://" + base[strings.LastIndexByte(base, '@')+1:]
	if path != "" && path[0] == '/' {
		shown += "/" + redacted
	}
	if query != "" {
		shown += "?" + redacted
	}
	return shown
}

const redacted = "<secret>"

func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return redacted
}

// GoString keeps %#v from printing the value.
func (s Secret) GoString() string { return "relay.Secret(" + s.String() + ")" }

// LogValue keeps slog from printing the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps encoders from writing the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets the secret's value.
func (s *Secret) UnmarshalText(b []byte) error { s.value = string(b); return nil }
