package meta

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

var (
	errSpoofedProxy = errors.New("PROXY header from a source that is not in ProxyFrom")
	errNoProxy      = errors.New("no PROXY header from a source in ProxyFrom")
)

// readProxyHeader reads the PROXY protocol header that the connection must start with and returns the address in
// it; for a LOCAL header (a health check of the proxy itself), the connection's own.
func readProxyHeader(s *socket) (net.Addr, error) {
	reader := bufio.NewReader(s)
	awaitV1(reader)
	header, err := proxyproto.Read(reader)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProxy, err)
	}
	// What came with the header belongs to the layer above.
	s.pending, _ = reader.Peek(reader.Buffered())
	if header.Command.IsLocal() || header.SourceAddr == nil {
		return s.RemoteAddr(), nil
	}
	return header.SourceAddr, nil
}

// awaitV1 waits for the whole of a version 1 header, at most its 107 bytes: the library takes it only from a
// single read. An error comes again when the library reads.
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
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, prefix := range prefixes {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// proxyGuard finds a PROXY header at the very start of what a source sends that must not send one.
type proxyGuard struct{ seen []byte }

var proxySignatures = [][]byte{proxyproto.SIGV1, proxyproto.SIGV2}

// spoofed takes the next bytes and reports whether a whole signature has come.
func (g *proxyGuard) spoofed(b []byte) bool {
	if len(g.seen) >= len(proxyproto.SIGV2) {
		return false
	}
	g.seen = append(g.seen, b[:min(len(b), len(proxyproto.SIGV2)-len(g.seen))]...)
	for _, signature := range proxySignatures {
		if bytes.HasPrefix(g.seen, signature) {
			return true
		}
	}
	return false
}
