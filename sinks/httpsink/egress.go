package httpsink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
)

// Egress says which addresses the sink may connect to. It is asked for each address that is dialled, after the name was
// resolved, so that a name cannot change what it stands for in between. Through a proxy only the proxy is dialled: what the
// proxy connects to is up to the proxy.
type Egress struct {
	Allow []string `yaml:"allow"` // ranges such as 10.0.0.0/8 or single addresses; if there is one, only they are called
	Deny  []string `yaml:"deny"`  // never called, also where allow has them
}

// Addresses at which clouds hand out credentials to whoever can ask, and link-local ones, where they mostly are. No service
// of a company lives there. They are refused unless allow names them or a part of them: 0.0.0.0/0 does not.
var sensitive = prefixes(
	"169.254.0.0/16", "fe80::/10", // link-local; 169.254.169.254 is the metadata service of most clouds
	"100.100.100.200/32", // Alibaba Cloud
	"168.63.129.16/32",   // Azure
	"192.0.0.192/32",     // Oracle Cloud
	// IPv6
	"fd00:ec2::/32",          // AWS
	"fd20:ce::254/128",       // Google Cloud
	"fd00:c1::a9fe:a9fe/128", // Oracle Cloud
	"fd00:100::100:200/128",  // Alibaba Cloud
	"fd00:a9fe:a9fe::1/128",  // Akamai
	"fd00:42::42/128",        // Scaleway
)

func prefixes(texts ...string) []netip.Prefix {
	made := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		made[i] = netip.MustParsePrefix(text)
	}
	return made
}

func (e *Egress) check(report problem.Report) {
	for name, ranges := range map[string][]string{"allow": e.Allow, "deny": e.Deny} {
		for i, text := range ranges {
			if _, err := parseRange(text); err != nil {
				report(fmt.Sprintf("egress.%s[%d]", name, i), "%q is not an address range", "10.0.0.0/8, fd00::/8 or a single address", text)
			}
		}
	}
}

func parseRange(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("write it as IPv4")
	}
	return p.Masked(), err
}

// policy is an Egress ready for use.
type policy struct{ allow, deny []netip.Prefix }

func (e *Egress) policy() (policy, error) {
	var p policy
	for _, list := range []struct {
		from []string
		to   *[]netip.Prefix
	}{{e.Allow, &p.allow}, {e.Deny, &p.deny}} {
		for _, text := range list.from {
			r, err := parseRange(text)
			if err != nil {
				return policy{}, fmt.Errorf("egress: %q is not an address range", text)
			}
			*list.to = append(*list.to, r)
		}
	}
	return p, nil
}

// control refuses a connection before it is made, as net.Dialer.Control.
func (p policy) control(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	if !p.permits(a) {
		return relay.Because(relay.ReasonEgress, errors.New("egress policy refuses the address"))
	}
	return nil
}

// permits refuses an address if any form of it is refused. It is allowed as it is, or by all that it can turn into.
func (p policy) permits(a netip.Addr) bool {
	in := func(ranges []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) })
	}
	allowed := func(a netip.Addr) bool { return len(p.allow) == 0 || in(p.allow, a) }
	refused := func(a netip.Addr) bool { return in(p.deny, a) || in(sensitive, a) && !in(p.named(), a) }

	a = a.Unmap().WithZone("")
	becomes := embedded(a)
	if refused(a) || slices.ContainsFunc(becomes, refused) {
		return false
	}
	notAllowed := func(a netip.Addr) bool { return !allowed(a) }
	return allowed(a) || len(becomes) > 0 && !slices.ContainsFunc(becomes, notAllowed)
}

// named are the ranges of allow that lie in a sensitive one.
func (p policy) named() []netip.Prefix {
	var named []netip.Prefix
	for _, r := range p.allow {
		if slices.ContainsFunc(sensitive, func(s netip.Prefix) bool { return s.Bits() <= r.Bits() && s.Contains(r.Addr()) }) {
			named = append(named, r)
		}
	}
	return named
}

// embedded returns the addresses that the kernel, or a gateway of the network, can make of a.
func embedded(a netip.Addr) (becomes []netip.Addr) {
	if a.IsUnspecified() { // connects to this host
		if a.Is4() {
			return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		}
		return []netip.Addr{netip.IPv6Loopback()}
	}
	b := a.As16()
	add := func(b ...byte) { becomes = append(becomes, netip.AddrFrom4([4]byte(b))) }
	switch {
	case nat64.Contains(a), translated.Contains(a), compatible.Contains(a):
		add(b[12:16]...)
	case localNAT64.Contains(a): // the network chooses the length of its prefix: 96, 64, 56 or 48
		add(b[12:16]...)
		add(b[9:13]...)
		add(b[7], b[9], b[10], b[11])
		add(b[6], b[7], b[9], b[10])
	case sixToFour.Contains(a):
		add(b[2:6]...)
	case teredo.Contains(a):
		add(^b[12], ^b[13], ^b[14], ^b[15])
	}
	return becomes
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	translated = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765
	compatible = netip.MustParsePrefix("::/96")           // RFC 4291, deprecated
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380
)
