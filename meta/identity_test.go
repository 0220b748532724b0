package meta_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// What the certificate says is what the actor sees, on both sides, resumed or not.
func TestPeer(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ca := tlstest.NewCA(t)
			pair := ca.Issue(t, tlstest.Leaf{
				CommonName: "billing", Names: []string{"billing.example.test", "192.0.2.1"}, URIs: []string{"spiffe://example.test/billing", "https://example.test"},
			})
			leaf := pair.Certificate().Leaf
			spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
			server := &tls.Config{
				Certificates: []tls.Certificate{generate(ca, "localhost")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
				NextProtos: []string{"echo/1"}, MaxVersion: version,
			}
			client := &tls.Config{
				Certificates: []tls.Certificate{pair.Certificate()}, RootCAs: ca.Pool(), NextProtos: []string{"echo/1"},
				ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "localhost",
			}
			a := newHost(t).spawn(echo)
			id, addr := a.listen(meta.TCPServerOptions{CertManager: manager{server: server}})
			for _, resumed := range []bool{false, true} {
				peer := mode{client: client, manager: manager{}}.dial(t, addr)
				talk(t, peer) // and reads the session ticket
				connect := expect[meta.MessageTCPConnect](a)
				want := meta.Peer{
					Addr: connect.RemoteAddr, Verified: true, Subject: "CN=billing", Serial: leaf.SerialNumber.Text(16), NotAfter: leaf.NotAfter,
					DNSNames: []string{"billing.example.test"}, IPs: leaf.IPAddresses,
					URIs:   []string{"spiffe://example.test/billing", "https://example.test"},
					SPIFFE: "spiffe://example.test/billing", SPKI: base64.StdEncoding.EncodeToString(spki[:]),
					Version: tls.VersionName(version), SNI: "localhost", ALPN: "echo/1", Resumed: resumed,
				}
				assert.Equal(t, want, connect.Peer)
				assert.Equal(t, peer.LocalAddr().String(), connect.Peer.Addr.String())
				assert.Equal(t, connect.Peer.Addr.String()+" (spiffe://example.test/billing)", connect.Peer.String())
				assert.Equal(t, resumed, connect.TLS.DidResume)
				inspect := a.inspect(connect.ID)
				assert.Equal(t, want.Serial, inspect["peer serial"])
				assert.Equal(t, "true", inspect["peer verified"])
				assert.Equal(t, tls.VersionName(version), inspect["tls"])
				peer.Close()
				expect[meta.MessageTCPDisconnect](a)
			}
			assert.Equal(t, "2", a.inspect(id)["connections total"])
		})
	}
}

// Route chooses by who the peer is; where it does not, ProcessPool does.
func TestRoute(t *testing.T) {
	h := newHost(t)
	owner, pool, billing := h.spawn(nil), h.spawnNamed("pool", nil), h.spawnNamed("billing", nil)
	ca := tlstest.NewCA(t)
	_, addr := owner.listen(meta.TCPServerOptions{
		CertManager: manager{server: &tls.Config{
			Certificates: []tls.Certificate{generate(ca, "localhost")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
		}},
		ProcessPool: []gen.Atom{"pool"},
		Route: func(p meta.Peer) gen.Atom {
			if p.SPIFFE == "spiffe://example.test/billing" {
				return "billing"
			}
			return ""
		},
	})
	for uri, worker := range map[string]*actor{"spiffe://example.test/billing": billing, "spiffe://example.test/other": pool} {
		pair := ca.Issue(t, tlstest.Leaf{URIs: []string{uri}})
		m := mode{manager: manager{}, client: &tls.Config{Certificates: []tls.Certificate{pair.Certificate()}, RootCAs: ca.Pool(), ServerName: "localhost"}}
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](worker).ID
		io.WriteString(peer, "to my worker")
		assert.Equal(t, meta.MessageTCP{ID: id, Data: []byte("to my worker")}, expect[meta.MessageTCP](worker))
		peer.Close()
		expect[meta.MessageTCPDisconnect](worker)
	}
	owner.quiet()
}

// The address that a trusted proxy reports is the peer's, for actors, limits and Inspect.
func TestProxyHeader(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		for name, version := range map[string]byte{"v1": 1, "v2": 2} {
			t.Run(name, func(t *testing.T) {
				a := newHost(t).spawn(echo)
				id, addr := a.listen(meta.TCPServerOptions{
					CertManager: m.manager, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, MaxConnectionsPerAddress: 1,
				})
				visit := func(client string) net.Conn {
					conn := dialTCP(t, addr)
					header := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)), conn.RemoteAddr())
					_, err := header.WriteTo(conn)
					require.NoError(t, err)
					return conn
				}
				peer := m.secure(t, visit("192.0.2.7:4711"))
				talk(t, peer)
				connect := expect[meta.MessageTCPConnect](a)
				assert.Equal(t, "192.0.2.7:4711", connect.RemoteAddr.String())
				assert.Equal(t, "192.0.2.7:4711", connect.Peer.Addr.String())
				assert.Equal(t, "192.0.2.7:4711", a.inspect(connect.ID)["remote"])
				talk(t, m.secure(t, visit("192.0.2.8:4711")))
				expect[meta.MessageTCPConnect](a)
				_, err := io.ReadAll(visit("192.0.2.7:4712"))
				assertEnded(t, err)
				a.quiet()
				assert.Equal(t, "1", a.inspect(id)["over limit"])
			})
		}
	})
}

// assertEnded says that a read has met the end of the connection, in order or not.
func assertEnded(t *testing.T, err error) {
	t.Helper()
	if ne, ok := err.(net.Error); ok {
		assert.False(t, ne.Timeout(), "the connection was held")
	}
}

// Header and first bytes in one packet, and in single bytes: the same.
func TestProxyHeaderInPieces(t *testing.T) {
	a := newHost(t).spawn(nil)
	_, addr := a.listen(meta.TCPServerOptions{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Split: tenBytes})
	const stream = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n0123456789"
	for _, step := range []int{len(stream), 1} {
		peer := dialTCP(t, addr)
		for at := 0; at < len(stream); at += step {
			_, err := io.WriteString(peer, stream[at:at+step])
			require.NoError(t, err)
		}
		assert.Equal(t, "192.0.2.7:4711", expect[meta.MessageTCPConnect](a).RemoteAddr.String())
		assert.Equal(t, "0123456789", string(expect[meta.MessageTCP](a).Data))
		peer.Close()
		expect[meta.MessageTCPDisconnect](a)
	}
}

func tenBytes(data []byte, _ bool) (int, []byte, error) {
	if len(data) < 10 {
		return 0, nil, nil
	}
	return 10, data[:10], nil
}

// A source in ProxyFrom must send a header in time, any other must not send one at all.
func TestProxyHeaderRefused(t *testing.T) {
	trusted, nobody := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	v2 := new(bytes.Buffer)
	_, err := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2}).WriteTo(v2)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		from  []netip.Prefix
		sends string
		says  string
	}{
		"none":       {trusted, "GET / HTTP/1.1\r\n\r\n", "no PROXY header"},
		"silent":     {trusted, "", "the peer sent nothing"},
		"half":       {trusted, "PROXY TCP4 192.0.2.7", "no PROXY header"},
		"malformed":  {trusted, "PROXY TCP4 nobody nowhere 1 2\r\n", "no PROXY header"},
		"too long":   {trusted, "PROXY TCP4 " + strings.Repeat("1", 500) + "\r\n", "no PROXY header"},
		"spoofed v1": {nobody, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", "not in ProxyFrom"},
		"spoofed v2": {nobody, v2.String(), "not in ProxyFrom"},
	} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(nil)
				timeout := 2 * testTimeout // what is wrong is refused at once
				if name == "silent" || name == "half" {
					timeout = 100 * time.Millisecond
				}
				_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, ProxyFrom: test.from, HandshakeTimeout: timeout})
				conn := dialTCP(t, addr)
				_, err := io.WriteString(conn, test.sends)
				require.NoError(t, err)
				_, err = io.ReadAll(conn)
				assertEnded(t, err)
				says := test.says
				if says == "not in ProxyFrom" && m.tls() {
					says = "does not speak TLS"
				}
				eventually(t, a.h.log.contains(says), "it is said why")
				a.quiet()
			})
		})
	}
}

// Who speaks second is announced all the same, and what it sent before that is delivered.
func TestDirectPeersBesideAProxy(t *testing.T) {
	nobody := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, ProxyFrom: nobody})
		m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		_, err := io.WriteString(m.dial(t, addr), "PROX or not")
		require.NoError(t, err)
		expect[meta.MessageTCPConnect](a)
		assert.Equal(t, "PROX or not", string(expect[meta.MessageTCP](a).Data))
	})
}

// What a trusted proxy says about its client is in Connect.
func TestProxyHeaderTLVs(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	header := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443})
	require.NoError(t, header.SetTLVs([]proxyproto.TLV{
		{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("www.example.test")},
		{Type: proxyproto.PP2_TYPE_NOOP, Value: make([]byte, 3)},
		{Type: proxyproto.PP2_TYPE_ALPN, Value: []byte("h2")},
		{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: []byte{1, 2, 3}},
	}))
	wire, err := header.Format()
	require.NoError(t, err)
	broken, err := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}).Format()
	require.NoError(t, err)
	broken[15] += 2 // the length: a TLV that ends in its own length
	broken = append(broken, byte(proxyproto.PP2_TYPE_ALPN), 0)
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, ProxyFrom: trusted})
		conn := dialTCP(t, addr)
		_, err := conn.Write(wire)
		require.NoError(t, err)
		m.secure(t, conn)
		connect := expect[meta.MessageTCPConnect](a)
		assert.Equal(t, "192.0.2.7:1", connect.Peer.Addr.String())
		require.NotNil(t, connect.Peer.Proxy)
		assert.Equal(t, "192.0.2.1:443", connect.Peer.Proxy.Destination.String())
		assert.Equal(t, "www.example.test", connect.Peer.Proxy.Authority)
		assert.Equal(t, "h2", connect.Peer.Proxy.ALPN)
		assert.Equal(t, []byte{1, 2, 3}, connect.Peer.Proxy.UniqueID)

		conn = dialTCP(t, addr)
		_, err = conn.Write(broken)
		require.NoError(t, err)
		_, err = io.ReadAll(conn)
		assertEnded(t, err)
		eventually(t, func() bool { return a.inspect(id)["refused"] == "1" }, "TLVs that are cut off are no header")
		a.quiet()
	})
}
