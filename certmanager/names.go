package certmanager

import (
	"crypto/tls"
	"errors"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// names finds the certificate for a handshake. It is built once per snapshot and
// only read afterwards. A lookup takes the same time for one name and for 100,000.
type names struct {
	exact    map[string]candidates
	wildcard map[string]candidates // "*.example.test" under ".example.test"
	addrs    map[netip.Addr]candidates
	fallback candidates
}

// newNames indexes the certificates that a server may present. The first of them is
// the default. The names of preferred, which may be nil, are served by it alone.
func newNames(certs []*certificate, preferred *certificate) *names {
	n := &names{
		exact:    make(map[string]candidates),
		wildcard: make(map[string]candidates),
		addrs:    make(map[netip.Addr]candidates),
	}
	if preferred != nil {
		certs = append([]*certificate{preferred}, certs...)
	}
	for _, c := range certs {
		if !c.server {
			continue
		}
		if n.fallback.none() {
			n.fallback.first = c
		}
		for _, name := range c.tls.Leaf.DNSNames {
			name = trust.NormalName(name)
			if rest := strings.TrimPrefix(name, "*"); strings.HasPrefix(name, "*.") {
				n.wildcard[rest] = n.wildcard[rest].add(c, preferred)
			} else {
				n.exact[name] = n.exact[name].add(c, preferred)
			}
		}
		for _, ip := range c.tls.Leaf.IPAddresses {
			if addr, ok := netip.AddrFromSlice(ip); ok {
				n.addrs[addr.Unmap()] = n.addrs[addr.Unmap()].add(c, preferred)
			}
		}
	}
	// A client that names nothing still gets the kind of key that it supports,
	// from the certificates that stand beside the default one.
	if first := n.fallback.first; first != nil && len(first.tls.Leaf.DNSNames) > 0 {
		if same := n.forName(trust.NormalName(first.tls.Leaf.DNSNames[0])); slices.Contains(same.list(), first) {
			n.fallback = same
		}
	}
	return n
}

// getCertificate is what the snapshot answers a client. It does not allocate.
func (s *snapshot) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	// Nearly every client sends a name as it is kept; for others what is below finds the same,
	// later.
	if cs := s.names.exact[hello.ServerName]; cs.first != nil {
		c := cs.best(hello)
		if c.ended.Load() {
			c = s.names.wildcardFor(hello, c)
		}
		return &c.tls, nil
	}
	var err error
	if len(s.funcs) > 0 && !isChallenge(hello) && s.names.lookup(hello.ServerName).none() {
		var cert *tls.Certificate
		if cert, err = askFuncs(s.funcs, hello); cert != nil {
			return cert, nil
		}
	}
	if c := s.names.find(hello); c != nil {
		return &c.tls, nil
	}
	if err == nil {
		err = ErrNoCertificate
	}
	return nil, err
}

// getCertificateOrNone makes crypto/tls answer with the alert unrecognized_name where a
// certificate may come later, and not with internal_error.
func (s *snapshot) getCertificateOrNone(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := s.getCertificate(hello)
	if errors.Is(err, ErrNoCertificate) {
		return nil, nil
	}
	return cert, err
}

// wildcardFor returns a wildcard certificate for a name whose own has ended, if there is one that
// has not.
func (n *names) wildcardFor(hello *tls.ClientHelloInfo, ended *certificate) *certificate {
	if cs := n.byWildcard(trust.NormalName(hello.ServerName)); !cs.none() {
		if c := cs.best(hello); !c.ended.Load() && c.supportedBy(hello) {
			return c
		}
	}
	return ended
}

// find returns the certificate for a handshake: by SNI, then by the address that the
// client dialled, then the default; nil if there is none at all. It does not allocate.
func (n *names) find(hello *tls.ClientHelloInfo) *certificate {
	var cs candidates
	if hello.ServerName != "" {
		if cs = n.lookup(hello.ServerName); !cs.none() {
			c := cs.best(hello)
			if c.ended.Load() {
				c = n.wildcardFor(hello, c)
			}
			return c
		}
	}
	if hello.Conn != nil {
		if local, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
			cs = n.addrs[local.AddrPort().Addr().Unmap().WithZone("")] // no certificate names a zone
		}
	}
	if cs.none() {
		cs = n.fallback
	}
	return cs.best(hello)
}

// lookup finds a name as DNS compares names: without regard to case or a trailing
// dot, international names in their ASCII form.
func (n *names) lookup(name string) candidates {
	// Nearly every client sends the name as it is kept here.
	if cs, ok := n.exact[name]; ok {
		return cs
	}
	whole := len(name)
	if whole > 0 && name[whole-1] == '.' {
		name = name[:whole-1]
	}
	if len(name) > 253 {
		return candidates{}
	}
	for i := range len(name) {
		c := name[i]
		if c >= 0x80 {
			return n.forName(trust.NormalName(name))
		}
		if 'A' <= c && c <= 'Z' {
			return n.lookupMixedCase(name)
		}
	}
	if len(name) == whole {
		return n.byWildcard(name)
	}
	return n.forName(name)
}

// lookupMixedCase lowers the name on the stack: a map lookup by string(bytes) does not
// allocate, strings.ToLower does.
func (n *names) lookupMixedCase(name string) candidates {
	var buf [253]byte
	b := buf[:len(name)]
	dot := len(b)
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 0x80:
			return n.forName(trust.NormalName(name))
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '.' && dot == len(b):
			dot = i
		}
		b[i] = c
	}
	if cs, ok := n.exact[string(b)]; ok {
		return cs
	}
	if dot == 0 {
		return candidates{}
	}
	return n.wildcard[string(b[dot:])]
}

// forName looks a normal name up: as it is, then with a wildcard for its left-most
// label, RFC 6125 section 6.4.3.
func (n *names) forName(name string) candidates {
	if cs, ok := n.exact[name]; ok {
		return cs
	}
	return n.byWildcard(name)
}

func (n *names) byWildcard(name string) candidates {
	if dot := strings.IndexByte(name, '.'); dot > 0 {
		return n.wildcard[name[dot:]]
	}
	return candidates{}
}

// hostName is the form in which a client asks for a name: what is no ASCII is written in it, as
// net/http does.
func hostName(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }) {
		return trust.NormalName(name)
	}
	return name
}

// all yields every name and address with its certificates, wildcards as "*.example.test".
func (n *names) all() iter.Seq2[string, candidates] {
	return func(yield func(string, candidates) bool) {
		for name, cs := range n.exact {
			if !yield(name, cs) {
				return
			}
		}
		for rest, cs := range n.wildcard {
			if !yield("*"+rest, cs) {
				return
			}
		}
		for addr, cs := range n.addrs {
			if !yield(addr.String(), cs) {
				return
			}
		}
	}
}

// serving returns the certificates for a name as all yields it.
func (n *names) serving(name string) candidates {
	if rest, ok := strings.CutPrefix(name, "*"); ok {
		return n.wildcard[rest]
	}
	if cs := n.forName(name); !cs.none() {
		return cs
	}
	addr, _ := netip.ParseAddr(name) // last, as its errors allocate
	return n.addrs[addr]
}

func (n *names) count() int { return len(n.exact) + len(n.wildcard) }
