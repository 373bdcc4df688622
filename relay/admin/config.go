package admin

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
)

// Config of the admin address.
type Config struct {
	Listen    string       `yaml:"listen"`    // host:port; no host = all addresses
	Advertise string       `yaml:"advertise"` // host:port at which other replicas of a journal on Kafka reach this address
	Token     relay.Secret `yaml:"token"`     // of /api/; may be left out on a loopback address
	Tokens    []Token      `yaml:"tokens"`    // more of them, each with the name of who uses it
}

// Token is what one person, team or program shows to use the API.
type Token struct {
	Name  string       `yaml:"name"`  // in the log, and in what inspect shows of levers
	Token relay.Secret `yaml:"token"` // as long and random as a password
}

// Names of callers that show no named token.
const (
	callerAdmin = "admin" // with Config.Token
	callerLocal = "local" // without any, on the same machine
)

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() { c.Listen = "127.0.0.1:9464" }

// Check reports an address that cannot be listened on. An address off loopback without a token is no mistake: metrics
// and probes work, and /api/ says why it is closed.
func (c *Config) Check(report problem.Report) {
	c.checkTokens(report)
	c.checkAdvertise(report)
	hint := `host:port, such as "127.0.0.1:9464" or ":9464"`
	if relay.IsPort(c.Listen) {
		hint = `write "127.0.0.1:%[1]s", or ":%[1]s" for all addresses`
	}
	_, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		report("listen", "%q is not an address", hint, c.Listen)
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		report("listen", "port %q is not a number from 0 to 65535", "", port)
	}
}

func (c *Config) checkAdvertise(report problem.Report) {
	if c.Advertise == "" {
		return
	}
	host, port, err := net.SplitHostPort(c.Advertise)
	if n, numErr := strconv.ParseUint(port, 10, 16); err != nil || numErr != nil || n == 0 || host == "" {
		report("advertise", "%q is not host:port", `what other machines call this one, such as "${POD_IP}:9464"`, c.Advertise)
	} else if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
		report("advertise", "other machines cannot reach %q", `what other machines call this one, such as "${POD_IP}:9464"`, c.Advertise)
	}
}

// checkTokens reports names and tokens that do not tell who calls.
func (c *Config) checkTokens(report problem.Report) {
	names := map[string]string{callerAdmin: "admin.token", callerLocal: "whoever calls without a token"}
	tokens := map[string]string{c.Token.Reveal(): "admin.token"}
	for i, t := range c.Tokens {
		at := fmt.Sprintf("tokens[%d].", i)
		switch {
		case t.Name == "":
			report(at+"name", "no name given", relay.NameRule)
		case !relay.ValidName(t.Name):
			report(at+"name", "name %q is not allowed", relay.NameRule, t.Name)
		case names[t.Name] != "":
			report(at+"name", "name %q is taken by %s", "", t.Name, names[t.Name])
		}
		switch {
		case !t.Token.IsSet():
			report(at+"token", "no token given", "with an empty token anybody could call")
		case tokens[t.Token.Reveal()] != "":
			report(at+"token", "the token is that of %s", "with one for each it is known who did what", tokens[t.Token.Reveal()])
		}
		names[t.Name], tokens[t.Token.Reveal()] = "admin."+at+"name", "admin."+strings.TrimSuffix(at, ".")
	}
}

// HasToken reports whether the API asks for a token.
func (c *Config) HasToken() bool { return len(c.allTokens()) > 0 }

func (c *Config) allTokens() []Token {
	if !c.Token.IsSet() {
		return c.Tokens
	}
	return append([]Token{{callerAdmin, c.Token}}, c.Tokens...)
}

// host is what the configuration says before the port.
func (c *Config) host() string {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return ""
	}
	return host
}

// isLoopback reports whether a host name or address means this machine and nobody else can reach it.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
