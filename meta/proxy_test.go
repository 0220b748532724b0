package meta

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/iotest"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// readerConn is a connection that only reads.
type readerConn struct {
	net.Conn
	r io.Reader
}

func (c readerConn) Read(b []byte) (int, error) { return c.r.Read(b) }
func (c readerConn) RemoteAddr() net.Addr       { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// However a header comes in pieces, it says the same, and the bytes behind it are all left for the
// layer above.
func FuzzProxyHeader(f *testing.F) {
	needs.Corpus(f)
	client := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}
	for _, version := range []byte{1, 2} {
		header, err := proxyproto.HeaderProxyFromAddrs(version, client, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}).Format()
		require.NoError(f, err)
		f.Add(append(header, "hello"...))
		f.Add(header[:len(header)-1])
	}
	f.Add([]byte("PROXY UNKNOWN\r\nhello"))
	f.Add([]byte("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		type result struct {
			addr string
			rest []byte
			ok   bool
		}
		read := func(r io.Reader) (got result) {
			s := newSocket(readerConn{r: r})
			addr, _, err := readProxyHeader(s)
			if err != nil {
				return result{}
			}
			got.ok, got.addr = true, addr.String()
			got.rest, err = io.ReadAll(s)
			require.NoError(t, err)
			return got
		}
		whole := read(bytes.NewReader(data))
		require.Equal(t, whole, read(iotest.OneByteReader(bytes.NewReader(data))), "byte by byte")
		require.Equal(t, whole, read(iotest.HalfReader(bytes.NewReader(data))), "in halves")
		if whole.ok {
			require.True(t, bytes.HasSuffix(data, whole.rest))
			require.Less(t, len(whole.rest), len(data))
		}
	})
}

// What is over the documented size is refused before memory is taken for it.
func TestProxyHeaderSize(t *testing.T) {
	read := func(length int) error {
		header := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2})
		const addresses, tlv = 12, 3
		require.NoError(t, header.SetTLVs([]proxyproto.TLV{{Type: 0xE0, Value: make([]byte, length-addresses-tlv)}}))
		wire, err := header.Format()
		require.NoError(t, err)
		require.Len(t, wire, 16+length)
		s := newSocket(readerConn{r: iotest.OneByteReader(io.MultiReader(bytes.NewReader(wire), bytes.NewReader([]byte("hello"))))})
		addr, _, err := readProxyHeader(s)
		if err != nil {
			return err
		}
		require.Equal(t, "192.0.2.7:1", addr.String())
		rest, err := io.ReadAll(s)
		require.NoError(t, err)
		require.Equal(t, "hello", string(rest))
		return nil
	}
	require.NoError(t, read(4096))
	require.ErrorIs(t, read(4097), errNoProxy)
}

func TestProxyFromContains(t *testing.T) {
	for prefix, want := range map[string]bool{
		"127.0.0.0/8": true, "::ffff:127.0.0.0/104": true, "::ffff:0.0.0.0/96": true, "::ffff:10.0.0.0/104": false, "10.0.0.0/8": false, "::/0": false,
	} {
		for _, ip := range []string{"127.0.0.1", "::ffff:127.0.0.1"} {
			addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 1))
			require.Equal(t, want, contains([]netip.Prefix{netip.MustParsePrefix(prefix)}, addr), "%s in %s", ip, prefix)
		}
	}
}

// A client is verified if it has shown a certificate and the proxy has found nothing wrong with it:
// of a client that has shown none, HAProxy says that nothing is wrong too.
func TestProxyHeaderVerified(t *testing.T) {
	for _, test := range []struct {
		client   byte
		verify   byte
		verified bool
	}{{1, 0, false}, {1, 1, false}, {3, 0, true}, {5, 0, true}, {7, 0, true}, {3, 1, false}} {
		header := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2})
		value := append([]byte{test.client, 0, 0, 0, test.verify, byte(proxyproto.PP2_SUBTYPE_SSL_VERSION), 0, 7}, "TLSv1.3"...)
		require.NoError(t, header.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_SSL, Value: value}}))
		proxy, err := newProxyHeader(header)
		require.NoError(t, err)
		require.Equal(t, &ProxyTLS{Version: "TLSv1.3", Verified: test.verified}, proxy.TLS)
	}
}

// Malformed headers of both versions, and those that say nothing of the client.
func TestProxyHeaderForms(t *testing.T) {
	const v2, addrs = "\r\n\r\n\x00\r\nQUIT\n", "\xc0\x00\x02\x07\xc0\x00\x02\x01\x00\x07\x00\x08"
	for header, want := range map[string]string{ // want is the address of the client; empty: refused
		"PROXY TCP4 192.0.2.7 192.0.2.1 7 8\r\n":                                     "192.0.2.7:7",
		"PROXY TCP6 ::ffff:192.0.2.7 ::1 7 8\r\n":                                    "192.0.2.7:7",
		"PROXY UNKNOWN\r\n":                                                          "127.0.0.1:1",
		"PROXY UNKNOWN a b c d\r\n":                                                  "127.0.0.1:1",
		"PROXY TCP4 192.0.2.7 192.0.2.1 7 8\n":                                       "",
		"PROXY TCP4 192.0.2.7 192.0.2.1 7 8\rX\n":                                    "",
		"PROXY TCP4 ::1 ::1 7 8\r\n":                                                 "",
		"PROXY TCP6 192.0.2.7 192.0.2.1 7 8\r\n":                                     "",
		"PROXY TCP6 fe80::1%eth0 ::1 7 8\r\n":                                        "",
		"PROXY TCP4 192.0.2.07 192.0.2.1 7 8\r\n":                                    "",
		"PROXY TCP4 192.0.2.7 192.0.2.1 70000 8\r\n":                                 "",
		"PROXY TCP4 192.0.2.7 192.0.2.1 -7 8\r\n":                                    "",
		"PROXY TCP4 192.0.2.7 192.0.2.1 +7 8\r\n":                                    "",
		"PROXY TCP4 192.0.2.7\r\n":                                                   "",
		"PROXY TCP4 192.0.2.7 192.0.2.1 7 8 9\r\n":                                   "",
		"PROXY  TCP4 192.0.2.7 192.0.2.1 7 8\r\n":                                    "",
		"PROXY UDP4 192.0.2.7 192.0.2.1 7 8\r\n":                                     "",
		"proxy tcp4 192.0.2.7 192.0.2.1 7 8\r\n":                                     "",
		v2 + "\x21\x11\x00\x0c" + addrs:                                              "192.0.2.7:7",
		v2 + "\x21\x11\x00\x10" + addrs + "\x05\x00\x01u":                            "192.0.2.7:7",
		v2 + "\x20\x00\x00\x00":                                                      "127.0.0.1:1",
		v2 + "\x20\x11\x00\x0c" + addrs:                                              "127.0.0.1:1",
		v2 + "\x20\x00\x00\x05abcde":                                                 "127.0.0.1:1",
		v2 + "\x21\x31\x00\xd8/a" + string(make([]byte, 214)):                        "/a",
		v2 + "\x21\x12\x00\x0c" + addrs:                                              "", // a datagram
		v2 + "\x21\x00\x00\x00":                                                      "",
		v2 + "\x21\x11\x00\x04" + addrs:                                              "",
		v2 + "\x21\x21\x00\x0c" + addrs:                                              "", // IPv6 of the length of IPv4
		v2 + "\x21\xf1\x00\x0c" + addrs:                                              "",
		v2 + "\x11\x11\x00\x0c" + addrs:                                              "",
		v2 + "\x22\x11\x00\x0c" + addrs:                                              "",
		v2 + "\x21\x11\x00\x0e" + addrs + "\x05\x00":                                 "",
		v2 + "\x21\x11\x00\x10" + addrs + "\x20\x00\x01\x01":                         "", // TLS without its version
		v2 + "\x21\x11\x00\x14" + addrs + "\x20\x00\x05\x00\x00\x00\x00\x01":         "192.0.2.7:7",
		v2 + "\x21\x11\x00\x14" + addrs + "\x20\x00\x05\x01\x00\x00\x00\x00":         "",
		v2 + "\x21\x11\x00\x0f" + addrs + "\x05\xff\xff":                             "",
		v2 + "\x21\x11\x00\x90" + addrs + "\x05\x00\x81" + string(make([]byte, 129)): "", // a longer id than there is
	} {
		s := newSocket(readerConn{r: bytes.NewReader([]byte(header + "hello"))})
		addr, _, err := readProxyHeader(s)
		if want == "" {
			require.ErrorIs(t, err, errNoProxy, "%q", header)
			continue
		}
		require.NoError(t, err, "%q", header)
		require.Equal(t, want, addr.String(), "%q", header)
		rest, err := io.ReadAll(s)
		require.NoError(t, err)
		require.Equal(t, "hello", string(rest), "%q", header)
	}
}
