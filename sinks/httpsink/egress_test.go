package httpsink_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"ncs-relay/relay"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

func TestEgress(t *testing.T) {
	t.Parallel()
	metadata := []string{
		"169.254.169.254", "169.254.1.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42",
		"fd00:c1::a9fe:a9fe", "fd00:100::100:200", "fd00:a9fe:a9fe::1", "169.254.170.2", "169.254.170.23", "169.254.0.23",
		"fe80::1", "fe80::1%eth0", "febf::1",
		"::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "::169.254.169.254", "2002:a9fe:a9fe::1", "::ffff:0:169.254.169.254",
		"64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1::a9:fea9:fe00:0", // longer and shorter prefixes of a local NAT64
		"64:ff9b::6464:64c8", "64:ff9b::a83f:8110",
		"2001:0:1::5601:5601", // Teredo, whose client address is inverted
	}
	internal := []string{
		"127.0.0.1", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "192.0.2.1", "2001:db8::1", "169.253.255.255",
		"169.255.0.0", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "fec0::1", "100.100.100.201",
	}
	tests := map[string]struct {
		egress   httpsink.Egress
		yes, not []string
	}{
		"default":     {httpsink.Egress{}, internal, metadata},
		"allow wide":  {httpsink.Egress{Allow: []string{"0.0.0.0/0", "::/0"}}, internal, metadata},
		"allow some":  {httpsink.Egress{Allow: []string{"10.0.0.0/8", "fd00:1::/32"}}, []string{"10.1.2.3", "fd00:1::1", "::ffff:10.1.2.3", "64:ff9b::a00:1"}, []string{"11.0.0.1", "127.0.0.1", "fd00:2::1", "169.254.169.254"}},
		"allow named": {httpsink.Egress{Allow: []string{"169.254.7.0/24"}}, []string{"169.254.7.9", "::ffff:169.254.7.9"}, []string{"169.254.8.1", "169.254.169.254", "10.0.0.1"}},
		"deny":        {httpsink.Egress{Deny: []string{"10.0.0.0/8", "::1"}}, []string{"11.0.0.1", "127.0.0.1"}, []string{"10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "::1", "169.254.169.254"}},
		"this host":   {httpsink.Egress{Deny: []string{"127.0.0.0/8", "::1"}}, []string{"10.0.0.1"}, []string{"0.0.0.0", "::", "::ffff:0.0.0.0"}},
		"this host 2": {httpsink.Egress{Allow: []string{"127.0.0.0/8", "::1"}}, []string{"0.0.0.0", "::"}, nil},
		"allow one":   {httpsink.Egress{Allow: []string{"10.0.0.0/8"}}, nil, []string{"0.0.0.0", "::", "64:ff9b:1:0a00:0:100::", "64:ff9b:1::a:0:108:808"}},
		"deny first":  {httpsink.Egress{Allow: []string{"10.0.0.0/8"}, Deny: []string{"10.9.0.0/16"}}, []string{"10.8.0.1"}, []string{"10.9.0.1"}},
		"deny named":  {httpsink.Egress{Allow: []string{"169.254.7.0/24"}, Deny: []string{"169.254.7.9"}}, []string{"169.254.7.8"}, []string{"169.254.7.9"}},
	}
	for name, tt := range tests {
		for _, a := range tt.yes {
			require.True(t, tt.egress.Permits(netip.MustParseAddr(a)), "%s: %s", name, a)
		}
		for _, a := range tt.not {
			require.False(t, tt.egress.Permits(netip.MustParseAddr(a)), "%s: %s", name, a)
		}
	}
}

// TestEgressIsAskedAfterDNS: the name of the URL is harmless, what it resolves to is not.
func TestEgressIsAskedAfterDNS(t *testing.T) {
	t.Parallel()
	far := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(far.Close)
	named := strings.Replace(far.URL, "127.0.0.1", "localhost", 1)
	require.NoError(t, send(t, newSink(t, config(named)), sinktest.Event(1, "sid")))

	denied := newSink(t, config(named, func(c *httpsink.Config) { c.Egress.Deny = []string{"127.0.0.0/8", "::1"} }))
	err := send(t, denied, sinktest.Event(1, "sid"))
	require.ErrorContains(t, err, "egress policy refuses the address")
	require.Equal(t, "tried again", verdict(err))
	require.Equal(t, relay.ReasonEgress, relay.ReasonOf(err), "metrics tell it from a service that is down")

	for _, host := range []string{
		"169.254.169.254", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]",
		"[fe80::a9fe:a9fe%25lo]", "[fd00:ec2::254]",
	} {
		err = send(t, newSink(t, config("http://"+host+"/latest/meta-data")), sinktest.Event(1, "sid"))
		require.ErrorContains(t, err, "egress policy refuses the address", host)
	}
	// This host by other names than those that are refused: the kernel takes 0.0.0.0 for 127.0.0.1.
	for _, host := range []string{"0.0.0.0", "[::]", "[::ffff:0:0]", "[::ffff:127.0.0.1]"} {
		s := newSink(t, config(strings.Replace(far.URL, "127.0.0.1", host, 1), func(c *httpsink.Config) { c.Egress.Deny = []string{"127.0.0.0/8", "::1"} }))
		require.ErrorContains(t, send(t, s, sinktest.Event(1, "sid")), "egress policy refuses the address", host)
	}
	// Numbers that C libraries read as addresses: where the resolver knows them, what it makes of them is refused like any
	// other; where it does not, there is nothing to call.
	for _, host := range []string{"2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"} {
		s := newSink(t, config("http://"+host+"/", func(c *httpsink.Config) { c.Timeout = time.Second }))
		require.Equal(t, "tried again", verdict(send(t, s, sinktest.Event(1, "sid"))), host)
	}
}

// TestRebinding: a name server that answers as it likes, call by call, moves no call to an address that is refused.
func TestRebinding(t *testing.T) {
	t.Parallel()
	far := newReceiver(t)
	far.Config.SetKeepAlivesEnabled(false) // a connection of its own, and a look-up, for each call
	var answers atomic.Pointer[[]string]
	s := newSink(t, config(strings.Replace(far.URL, "127.0.0.1", "rebinding.test", 1)))
	require.NoError(t, s.Resolve(nameServer(t, func() []string { return *answers.Load() })))
	for i, tt := range []struct {
		addresses []string
		taken     bool
	}{
		{[]string{"127.0.0.1"}, true},
		{[]string{"169.254.169.254"}, false},
		{[]string{"127.0.0.1"}, true},
		{[]string{"100.100.100.200", "168.63.129.16"}, false},
		{[]string{"169.254.169.254", "127.0.0.1"}, true}, // the one is refused, the other called
	} {
		answers.Store(&tt.addresses)
		err := send(t, s, sinktest.Event(i, "sid"))
		if tt.taken {
			require.NoError(t, err, "%v", tt.addresses)
		} else {
			require.ErrorContains(t, err, "egress policy refuses the address", "%v", tt.addresses)
		}
	}
	require.Len(t, far.all(t), 3)
}

// nameServer returns a resolver that knows for every name the IPv4 addresses that answer gives at that moment.
func nameServer(t *testing.T, answer func() []string) *net.Resolver {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	t.Cleanup(func() { server.Close(); <-ended })
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			n, client, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if err := m.Unpack(buf[:n]); err != nil {
				t.Error(err)
				return
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				for _, a := range answer() {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
						Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
					})
				}
			}
			packed, err := m.Pack()
			if err != nil {
				t.Error(err)
				return
			}
			server.WriteTo(packed, client)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}
