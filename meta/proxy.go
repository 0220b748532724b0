package meta

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

var (
	errSpoofedProxy = errors.New("PROXY header from a source that is not in ProxyFrom")
	errDatagram     = errors.New("the header is for a datagram, but this is a stream")
	errNoProxy      = errors.New("no PROXY header from a source in ProxyFrom")
)

// ProxyHeader is the content of a PROXY protocol header: in [Peer] of the one from a trusted proxy,
// in [TCPConnectionOptions] of the one to send. Missing fields are zero; version 1 has only
// addresses.
type ProxyHeader struct {
	// Source is the address of the client, as is Peer.Addr, and Destination the address that the
	// client connected to.
	Source, Destination net.Addr
	// Authority is the host name that the client asked for, and ALPN the protocol that the proxy
	// negotiated with it.
	Authority string
	ALPN      string
	// UniqueID is the proxy's name for the connection, at most 128 bytes.
	UniqueID []byte
	// TLS describes the client's TLS connection to the proxy, nil if the proxy reports none.
	TLS *ProxyTLS
}

// ProxyTLS is what a proxy reports about a client's TLS connection (PROXY protocol, section 2.2.6).
type ProxyTLS struct {
	// Version is as the proxy writes it, for example "TLSv1.3" by HAProxy.
	Version string
	// Verified means that the client presented a certificate and the proxy verified it. CommonName is
	// that of its subject, an unverified claim if Verified is false.
	Verified   bool
	CommonName string
}

// maxUniqueID is the limit of the PROXY protocol, section 2.2.5.
const maxUniqueID = 128

// newProxyHeader converts a header. It returns an error for malformed TLVs.
func newProxyHeader(header *proxyproto.Header) (*ProxyHeader, error) {
	tlvs, err := header.TLVs()
	if err != nil {
		return nil, err
	}
	p := &ProxyHeader{Source: header.SourceAddr, Destination: header.DestinationAddr}
	for _, tlv := range tlvs {
		switch tlv.Type {
		case proxyproto.PP2_TYPE_AUTHORITY:
			p.Authority = string(tlv.Value)
		case proxyproto.PP2_TYPE_ALPN:
			p.ALPN = string(tlv.Value)
		case proxyproto.PP2_TYPE_UNIQUE_ID:
			if p.UniqueID = tlv.Value; len(p.UniqueID) > maxUniqueID {
				return nil, fmt.Errorf("the unique id has %d bytes, more than %d", len(p.UniqueID), maxUniqueID)
			}
		case proxyproto.PP2_TYPE_SSL:
			ssl, err := tlvparse.SSL(tlv)
			if err != nil {
				return nil, fmt.Errorf("PP2_TYPE_SSL: %w", err)
			}
			if ssl.ClientSSL() {
				p.TLS = &ProxyTLS{Verified: ssl.Verified() && (ssl.ClientCertConn() || ssl.ClientCertSess())}
				p.TLS.Version, _ = ssl.SSLVersion()
				p.TLS.CommonName, _ = ssl.ClientCN()
			}
		}
	}
	return p, nil
}

// tlv encodes t for the header.
func (t *ProxyTLS) tlv() (proxyproto.TLV, error) {
	ssl := tlvparse.PP2SSL{
		Client: tlvparse.PP2_BITFIELD_CLIENT_SSL, Verify: 1,
		TLV: []proxyproto.TLV{{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte(t.Version)}},
	}
	if t.Verified {
		ssl.Client, ssl.Verify = ssl.Client|tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN|tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS, 0
	}
	if t.CommonName != "" {
		ssl.TLV = append(ssl.TLV, proxyproto.TLV{Type: proxyproto.PP2_SUBTYPE_SSL_CN, Value: []byte(t.CommonName)})
	}
	tlv, err := ssl.Marshal()
	if err == nil {
		_, err = tlvparse.SSL(tlv)
	}
	if err != nil {
		err = fmt.Errorf("TLS: %w; Version must be ASCII, such as TLSv1.3, and CommonName UTF-8", err)
	}
	return tlv, err
}

// maxProxyHeader is the largest number of bytes read after the first 16, here and in other
// implementations.
const maxProxyHeader = 4096

// format returns the header in version 2.
func (p *ProxyHeader) format() ([]byte, error) {
	header := proxyproto.HeaderProxyFromAddrs(2, p.Source, p.Destination)
	if p.Source == nil && p.Destination == nil {
		if p.Authority != "" || p.ALPN != "" || len(p.UniqueID) > 0 || p.TLS != nil {
			return nil, errors.New("a connection of the proxy's own has nothing but its addresses; set Source and Destination")
		}
		return header.Format()
	}
	if header.Command.IsLocal() {
		return nil, fmt.Errorf("source is %v and destination %v; use two *net.TCPAddr, or two *net.UnixAddr", p.Source, p.Destination)
	}
	if len(p.UniqueID) > maxUniqueID {
		return nil, fmt.Errorf("UniqueID has %d bytes; use at most %d", len(p.UniqueID), maxUniqueID)
	}
	tlvs := slices.DeleteFunc([]proxyproto.TLV{
		{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(p.Authority)},
		{Type: proxyproto.PP2_TYPE_ALPN, Value: []byte(p.ALPN)},
		{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: p.UniqueID},
	}, func(tlv proxyproto.TLV) bool { return len(tlv.Value) == 0 })
	if p.TLS != nil {
		tlv, err := p.TLS.tlv()
		if err != nil {
			return nil, err
		}
		tlvs = append(tlvs, tlv)
	}
	if err := header.SetTLVs(tlvs); err != nil {
		return nil, err
	}
	wire, err := header.Format()
	if err == nil && len(wire) > 16+maxProxyHeader {
		err = fmt.Errorf("is %d bytes long; use at most %d", len(wire), 16+maxProxyHeader)
	}
	return wire, err
}

// readProxyHeader reads the PROXY protocol header that the connection must start with and returns
// the address in it; for a LOCAL header (a health check of the proxy itself), the connection's own.
func readProxyHeader(s *socket) (net.Addr, *ProxyHeader, error) {
	reader := bufio.NewReader(s)
	awaitV1(reader)
	if _, err := reader.Peek(1); left(err) || timeout(err) {
		return nil, nil, fmt.Errorf("%w: %w", errNothingSent, err)
	}
	header, err := proxyproto.Read(reader)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errNoProxy, err)
	}
	// The bytes after the header belong to the layer above.
	s.pending, _ = reader.Peek(reader.Buffered())
	if header.Command.IsLocal() || header.SourceAddr == nil {
		return s.RemoteAddr(), nil, nil
	}
	proxy, err := newProxyHeader(header)
	if header.TransportProtocol.IsDatagram() {
		err = errDatagram
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errNoProxy, err)
	}
	return header.SourceAddr, proxy, nil
}

// awaitV1 waits for a whole version 1 header, at most 107 bytes, because the library needs it in a
// single read. A read error is returned again when the library reads.
func awaitV1(reader *bufio.Reader) {
	for n := 1; ; n++ {
		if _, err := reader.Peek(n); err != nil {
			return
		}
		n = reader.Buffered()
		have, _ := reader.Peek(n)
		start := min(n, len(proxyproto.SIGV1))
		if !bytes.Equal(have[:start], proxyproto.SIGV1[:start]) || bytes.IndexByte(have, '\n') >= 0 || n >= 107 {
			return
		}
	}
}

func contains(prefixes []netip.Prefix, addr net.Addr) bool {
	ip := ipOf(addr)
	return ip.IsValid() && slices.ContainsFunc(prefixes, func(prefix netip.Prefix) bool {
		return prefix.Contains(ip) || prefix.Addr().Is4In6() && prefix.Contains(netip.AddrFrom16(ip.As16()))
	})
}

var proxySignatures = [][]byte{proxyproto.SIGV1, proxyproto.SIGV2}

// spoofWait is how long a connection without TLS waits for the first bytes of a peer that must not
// send a PROXY header. In some protocols the server sends first, so the wait must be short. Over
// TLS a header is no ClientHello.
const spoofWait = 200 * time.Millisecond

// awaitStart reads the first bytes of such a peer, so that a header is refused before an actor gets
// the connection.
func (s *socket) awaitStart() error {
	s.SetReadDeadline(time.Now().Add(spoofWait))
	defer s.SetReadDeadline(time.Time{})
	begun := func(signature []byte) bool {
		return len(s.pending) < len(signature) && bytes.HasPrefix(signature, s.pending)
	}
	for b := make([]byte, 64); slices.ContainsFunc(proxySignatures, begun); {
		n, err := s.Conn.Read(b)
		s.pending = append(s.pending, b[:n]...)
		switch {
		case slices.ContainsFunc(proxySignatures, func(signature []byte) bool { return bytes.HasPrefix(s.pending, signature) }):
			return errSpoofedProxy
		case timeout(err):
			return nil
		case left(err) && len(s.pending) == 0:
			return fmt.Errorf("%w: %w", errNothingSent, err)
		case err != nil:
			return nil // the read loop gets the same error
		}
	}
	return nil
}
