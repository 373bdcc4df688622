package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
)

// SASL says who we are to the brokers. Files are read again for each new connection.
type SASL struct {
	Mechanism    string       `yaml:"mechanism"` // plain, scram-sha-256, scram-sha-512 or oauthbearer
	Username     string       `yaml:"username,credential"`
	Password     relay.Secret `yaml:"password"`
	PasswordFile string       `yaml:"password_file,path,secret"`

	TokenFile        string            `yaml:"token_file,path,secret"`         // OAuth: a token that something else keeps fresh
	TokenURL         string            `yaml:"token_url,masked"`               // OAuth: where to get one by client credentials
	ClientID         string            `yaml:"client_id,credential"`           // who asks there
	ClientSecret     relay.Secret      `yaml:"client_secret"`                  // and its secret
	ClientSecretFile string            `yaml:"client_secret_file,path,secret"` // or a file with it
	Scopes           []string          `yaml:"scopes"`
	AuthStyle        string            `yaml:"auth_style"` // where client id and secret go: header (default) or body
	TokenForm        map[string]string `yaml:"token_form"` // more fields of the request for a token, such as audience
	TokenTLS         *keyfile.TLS      `yaml:"token_tls"`  // for token_url
	Extensions       map[string]string `yaml:"extensions"` // SASL extensions of oauthbearer, such as logicalCluster
}

const (
	saslPlain       = "plain"
	saslSCRAM256    = "scram-sha-256"
	saslSCRAM512    = "scram-sha-512"
	saslOAuthBearer = "oauthbearer"
)

// Check reports what is wrong with c.
func (c *SASL) Check(report problem.Report) {
	switch c.Mechanism {
	case saslPlain, saslSCRAM256, saslSCRAM512:
		c.checkPassword(report)
	case saslOAuthBearer:
		c.checkToken(report)
	case "":
		report("mechanism", "no mechanism given", "use plain, scram-sha-256, scram-sha-512 or oauthbearer")
	default:
		report("mechanism", "unknown mechanism %q", "use plain, scram-sha-256, scram-sha-512 or oauthbearer", c.Mechanism)
	}
}

func (c *SASL) checkPassword(report problem.Report) {
	if c.Username == "" {
		report("username", "no user name given", "")
	}
	checkSecret(report, "password", c.Password, c.PasswordFile)
	if c.TokenFile != "" || c.TokenURL != "" || len(c.Extensions) > 0 {
		report("mechanism", "%q uses no token", "use oauthbearer, or remove the token", c.Mechanism)
	}
}

func (c *SASL) checkToken(report problem.Report) {
	if c.Username != "" || c.Password.IsSet() || c.PasswordFile != "" {
		report("mechanism", "%q uses no user name and password", "remove them", c.Mechanism)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Extensions)) {
		if value := c.Extensions[name]; name == "auth" || !extensionName.MatchString(name) || !extensionValue.MatchString(value) {
			report("extensions["+name+"]", "is not a SASL extension", "a name of letters other than auth, and a value of visible ASCII characters")
		}
	}
	switch {
	case c.TokenFile == "" && c.TokenURL == "":
		report("token_url", "neither token_file nor token_url is given", "")
	case c.TokenFile != "" && c.TokenURL != "":
		report("token_file", "cannot be combined with token_url", "keep one of them")
	case c.TokenFile != "":
		if _, err := relay.ReadSecret(c.TokenFile); err != nil {
			report("token_file", "%v", "", err)
		}
	default:
		c.checkTokenURL(report)
	}
}

// The forms of extensions (RFC 7628, section 3.1).
var (
	extensionName  = regexp.MustCompile(`^[A-Za-z]+$`)
	extensionValue = regexp.MustCompile(`^[\x21-\x7e \t\r\n]+$`)
)

// checkSecret reports a secret that is given neither in the configuration nor in a file, or in both.
func checkSecret(report problem.Report, path string, secret relay.Secret, file string) {
	switch {
	case !secret.IsSet() && file == "":
		report(path, "neither "+path+" nor "+path+"_file is given", "")
	case secret.IsSet() && file != "":
		report(path+"_file", "cannot be combined with "+path, "keep one of them")
	case file != "":
		if _, err := relay.ReadSecret(file); err != nil {
			report(path+"_file", "%v", "", err)
		}
	}
}

// secretOf returns the secret that is configured or in the file.
func secretOf(secret relay.Secret, file string) (relay.Secret, error) {
	if file == "" {
		return secret, nil
	}
	return relay.ReadSecret(file)
}

// mechanism authenticates connections with what c and its files hold when they are made.
func (c *SASL) mechanism() sasl.Mechanism {
	if c == nil {
		return nil
	}
	if c.Mechanism == saslOAuthBearer {
		return &bearer{source: c.tokenSource(), extensions: c.Extensions}
	}
	return &credentials{c}
}

// credentials is a mechanism with user name and password.
type credentials struct{ *SASL }

// Name is the mechanism's name on the wire.
func (c *credentials) Name() string { return strings.ToUpper(c.Mechanism) }

// Start begins to authenticate a connection.
func (c *credentials) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	password, err := secretOf(c.Password, c.PasswordFile)
	if err != nil {
		return nil, nil, relay.Because(relay.ReasonAuth, err)
	}
	mechanism, err := c.with(password)
	if err != nil {
		return nil, nil, relay.Because(relay.ReasonAuth, err)
	}
	session, message, err := mechanism.Start(ctx)
	return boundedSession{session}, message, err
}

// mostIterations bounds the work that a broker can ask for with a password's hash; Kafka allows itself 16,384.
const mostIterations = 100_000

var iterations = regexp.MustCompile(`,i=(\d+)`)

// boundedSession does not begin to work for longer than is usual.
type boundedSession struct{ sasl.StateMachine }

// Next continues the exchange.
func (s boundedSession) Next(ctx context.Context, challenge []byte) (done bool, response []byte, err error) {
	if asked := iterations.FindSubmatch(challenge); asked != nil {
		if n, err := strconv.Atoi(string(asked[1])); err != nil || n > mostIterations {
			return false, nil, relay.Because(relay.ReasonAuth, fmt.Errorf("the broker asks for more than %d iterations of SCRAM", mostIterations))
		}
	}
	return s.StateMachine.Next(ctx, challenge)
}

func (c *credentials) with(password relay.Secret) (sasl.Mechanism, error) {
	algorithm := scram.SHA256
	switch c.Mechanism {
	case saslPlain:
		return plain.Mechanism{Username: c.Username, Password: password.Reveal()}, nil
	case saslSCRAM512:
		algorithm = scram.SHA512
	}
	mechanism, err := scram.Mechanism(algorithm, c.Username, password.Reveal())
	if err != nil { // its words may quote what they are about
		return nil, errors.New("user name or password has characters that SCRAM does not allow")
	}
	return mechanism, nil
}

// bearer is OAUTHBEARER of RFC 7628, as Kafka has it.
type bearer struct {
	source     tokenSource
	extensions map[string]string
}

// Name is the mechanism's name on the wire.
func (b *bearer) Name() string { return "OAUTHBEARER" }

// Start begins to authenticate a connection.
func (b *bearer) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	token, err := b.source.token(ctx)
	if err != nil {
		return nil, nil, relay.Because(relay.ReasonAuth, fmt.Errorf("get an OAuth token: %w", err))
	}
	message := "n,,\x01auth=Bearer " + token.Reveal() + "\x01"
	for _, name := range slices.Sorted(maps.Keys(b.extensions)) {
		message += name + "=" + b.extensions[name] + "\x01"
	}
	return bearerAnswer{}, []byte(message + "\x01"), nil
}

// bearerAnswer is what follows the token: a broker that takes it says nothing, another one says why not, and waits for one
// more message before it ends the exchange with an error.
type bearerAnswer struct{}

// Next continues the exchange.
func (bearerAnswer) Next(_ context.Context, challenge []byte) (done bool, response []byte, err error) {
	return len(challenge) == 0, []byte{1}, nil
}
