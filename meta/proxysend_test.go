package meta_test

import (
	"bufio"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// Our own server, which trusts us, hears of a client what we say of it, before the handshake, also
// on each connection that is made again.
func TestProxyHeaderSent(t *testing.T) {
	tcp := func(addr string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)) }
	headers := map[string]struct {
		sent meta.ProxyHeader
		peer string
	}{
		"IPv4":  {meta.ProxyHeader{Source: tcp("192.0.2.7:1"), Destination: tcp("192.0.2.1:443"), Authority: "www.example.test", ALPN: "h2", UniqueID: []byte{1, 2, 3}}, "192.0.2.7:1"},
		"TLS":   {meta.ProxyHeader{Source: tcp("192.0.2.7:1"), Destination: tcp("192.0.2.1:443"), TLS: &meta.ProxyTLS{Version: "TLSv1.2"}}, "192.0.2.7:1"},
		"mTLS":  {meta.ProxyHeader{Source: tcp("192.0.2.7:1"), Destination: tcp("192.0.2.1:443"), TLS: &meta.ProxyTLS{Version: "TLSv1.3", Verified: true, CommonName: "alice"}}, "192.0.2.7:1"},
		"IPv6":  {meta.ProxyHeader{Source: tcp("[2001:db8::7]:1"), Destination: tcp("[2001:db8::1]:443")}, "[2001:db8::7]:1"},
		"mixed": {meta.ProxyHeader{Source: tcp("[2001:db8::7]:1"), Destination: tcp("192.0.2.1:443")}, "[2001:db8::7]:1"},
		"unix":  {meta.ProxyHeader{Source: &net.UnixAddr{Name: "/client", Net: "unix"}, Destination: &net.UnixAddr{Name: "/server", Net: "unix"}}, "/client"},
		"LOCAL": {},
	}
	eachMode(t, func(t *testing.T, m mode) {
		for name, test := range headers {
			for _, again := range []*meta.Reconnect{{MinInterval: time.Millisecond, MaxInterval: time.Millisecond}, nil} {
				client, server := newHost(t).spawn(nil), newHost(t).spawn(echo)
				_, addr := server.listen(meta.TCPServerOptions{CertManager: m.manager, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
				options := m.reconnecting(t, addr, meta.Reconnect{})
				options.Proxy, options.Reconnect = &test.sent, again
				id := client.connect(options)
				for range 2 {
					connect := until(server, always[meta.MessageTCPConnect])
					if name == "LOCAL" {
						assert.Nil(t, connect.Peer.Proxy)
						assert.Contains(t, connect.RemoteAddr.String(), "127.0.0.1:")
					} else {
						assert.Equal(t, test.peer, connect.Peer.Addr.String(), name)
						got := *connect.Peer.Proxy
						assert.Equal(t, test.sent.Source.String(), got.Source.String())
						if name != "mixed" { // there both are in the form of IPv6
							assert.Equal(t, test.sent.Destination.String(), got.Destination.String())
						}
						assert.Equal(t, test.sent.Authority, got.Authority)
						assert.Equal(t, test.sent.ALPN, got.ALPN)
						assert.Equal(t, test.sent.UniqueID, got.UniqueID)
						assert.Equal(t, test.sent.TLS, got.TLS)
					}
					until(client, always[meta.MessageTCPConnect])
					client.send(id, meta.MessageTCP{Data: []byte("hello\n")})
					assert.Equal(t, "hello", string(until(client, always[meta.MessageTCP]).Data))
					server.send(connect.ID, meta.MessageTCPClose{})
					end := until(client, always[meta.MessageTCPDisconnect])
					if assert.Equal(t, again == nil, end.Retry.IsZero()); again == nil {
						break
					}
				}
				if again != nil {
					client.send(id, meta.MessageTCPClose{})
					until(client, func(m meta.MessageTCPDisconnect) bool { return m.Retry.IsZero() })
				}
			}
		}
	})
}

func TestProxyHeaderThatCannotBeSent(t *testing.T) {
	one, unix := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}, &net.UnixAddr{Name: "/x", Net: "unix"}
	for says, header := range map[string]meta.ProxyHeader{
		"Proxy: source is <nil>":           {Destination: one},
		"Proxy: source is 192.0.2.7:1 and": {Source: one, Destination: unix},
		"UniqueID has 129 bytes":           {Source: one, Destination: one, UniqueID: make([]byte, 129)},
		"is 5035 bytes long":               {Source: one, Destination: one, Authority: string(make([]byte, 5004))},
		"Version must be ASCII":            {Source: one, Destination: one, TLS: &meta.ProxyTLS{}},
		"CommonName UTF-8":                 {Source: one, Destination: one, TLS: &meta.ProxyTLS{Version: "TLSv1.3", CommonName: "\xff"}},
		"nothing but its addresses":        {Authority: "www.example.test"},
	} {
		_, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Port: 1, Split: bufio.ScanLines, Proxy: &header})
		require.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, says)
	}
}
