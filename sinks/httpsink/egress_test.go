package httpsink_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

func TestEgress(t *testing.T) {
	t.Parallel()
	metadata := []string{
		"169.254.169.254", "169.254.1.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42",
		"fe80::1", "fe80::1%eth0", "febf::1",
		"::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "::169.254.169.254", "2002:a9fe:a9fe::1",
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
	require.Equal(t, relay.ReasonEgress, relay.ReasonOf(err))

	err = send(t, newSink(t, config("http://169.254.169.254/latest/meta-data")), sinktest.Event(1, "sid"))
	require.ErrorContains(t, err, "egress policy refuses the address")
}
