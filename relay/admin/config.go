package admin

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
)

// Config of the admin address.
type Config struct {
	Listen string       `yaml:"listen"` // host:port; no host = all addresses
	Token  relay.Secret `yaml:"token"`  // of /api/; may be left out on a loopback address
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() { c.Listen = "127.0.0.1:9464" }

// Check reports an address that cannot be listened on. An address off loopback without a token is no mistake: metrics
// and probes work, and /api/ says why it is closed.
func (c *Config) Check(report problem.Report) {
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

// host is what the configuration says before the port.
func (c *Config) host() string {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return ""
	}
	return host
}

// isLoopback tells whether a host name or address means this machine and nobody else can reach it.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
