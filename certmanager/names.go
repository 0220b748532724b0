package certmanager

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
)

// names finds the certificate for a handshake. It is built once per snapshot and then only read. A
// lookup takes the same time for one name and for 100,000.
type names struct {
	all      map[string]candidates // by normalized name, including wildcards such as "*.example.test", and by address
	count    int                   // of names
	fallback candidates
}

// newNames indexes the certificates that a server may present. The first of them is the default.
// preferred, which is the first or nil, is the only one served for its names.
func newNames(certs []*certificate, preferred *certificate) *names {
	n := &names{all: make(map[string]candidates)}
	for _, c := range certs {
		if !c.server {
			continue
		}
		if n.fallback.none() {
			n.fallback.first = c
		}
		for _, name := range c.tls.Leaf.DNSNames {
			name = trust.NormalName(name)
			if n.all[name].none() {
				n.count++
			}
			n.all[name] = n.all[name].add(c, preferred)
		}
		for _, ip := range c.tls.Leaf.IPAddresses {
			if addr, ok := netip.AddrFromSlice(ip); ok {
				name := addr.Unmap().String()
				n.all[name] = n.all[name].add(c, preferred)
			}
		}
	}
	// A name whose own certificates have expired is served by a wildcard.
	for name, own := range n.all {
		if wild := n.all[wildcardOf(name)]; !strings.HasPrefix(name, "*") && !wild.none() {
			more := append(own.list()[1:], wild.list()...)
			n.all[name] = candidates{own.first, &more}
		}
	}
	// A client without SNI still gets a kind of key that it supports, from certificates with the name
	// of the default one.
	if first := n.fallback.first; first != nil && len(first.tls.Leaf.DNSNames) > 0 {
		if same := n.all[trust.NormalName(first.tls.Leaf.DNSNames[0])]; slices.Contains(same.list(), first) {
			n.fallback = same
		}
	}
	return n
}

// wildcardOf returns the wildcard for the left-most label of a name, RFC 6125 section 6.4.3, empty
// if there is none.
func wildcardOf(name string) string {
	if dot := strings.IndexByte(name, '.'); dot > 0 {
		return "*" + name[dot:]
	}
	return ""
}

// getCertificate returns the certificate for a client. It does not allocate if a name has one
// certificate.
func (s *snapshot) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	var err error
	if len(s.in.material.funcs) > 0 && !isChallenge(hello) && s.names.lookup(hello.ServerName).none() {
		var cert *tls.Certificate
		if cert, err = askFuncs(s.in.material.funcs, hello); cert != nil {
			return cert, nil
		}
	}
	if c := s.names.find(hello); c != nil {
		return &c.tls, nil
	}
	if err == nil {
		err = ErrNoCertificate
	}
	if s.in.material.late && errors.Is(err, ErrNoCertificate) {
		return nil, nil // the alert is unrecognized_name, not internal_error: a certificate may come later
	}
	return nil, err
}

// find returns the certificate for a handshake: by SNI, then by the address that the
// client dialled, then the default; nil if there is none at all.
func (n *names) find(hello *tls.ClientHelloInfo) *certificate {
	cs := n.lookup(hello.ServerName)
	if cs.none() && hello.Conn != nil {
		if local, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
			var buf [64]byte
			cs = n.all[string(local.AddrPort().Addr().Unmap().WithZone("").AppendTo(buf[:0]))] // certificates have no zones
		}
	}
	if cs.none() {
		cs = n.fallback
	}
	return cs.best(hello)
}

// lookup compares names as DNS does: it ignores case and a trailing dot, and uses the ASCII form of
// international names.
func (n *names) lookup(name string) candidates {
	// Nearly every client sends the normalized name.
	if cs, ok := n.all[name]; ok {
		return cs
	}
	name = strings.TrimSuffix(hostName(name), ".")
	if len(name) > 253 {
		return candidates{}
	}
	// A map lookup by string(bytes) does not allocate; strings.ToLower does.
	var buf [253]byte
	b := buf[:copy(buf[:], name)]
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	cs, ok := n.all[string(b)]
	if dot := bytes.IndexByte(b, '.'); !ok && dot > 0 {
		b[dot-1] = '*'
		cs = n.all[string(b[dot-1:])]
	}
	return cs
}

// hostName returns the form in which clients ask for a name: in ASCII, as in net/http.
func hostName(name string) string {
	if strings.Contains(name, "%") {
		if addr, err := netip.ParseAddr(name); err == nil {
			return addr.WithZone("").String() // the zone names an interface of this machine and is in no certificate
		}
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }) {
		return trust.NormalName(name)
	}
	return name
}

// candidates are the certificates for one name. The preferred one is in the map itself: with many
// names a further memory access costs more than the rest of a lookup.
type candidates struct {
	first *certificate    // nil: there is none
	more  *[]*certificate // those after it; nil: there are no more
}

func (cs candidates) none() bool { return cs.first == nil }

// list returns them all, in order of preference.
func (cs candidates) list() []*certificate {
	if cs.none() {
		return nil
	}
	if cs.more == nil {
		return []*certificate{cs.first}
	}
	return append([]*certificate{cs.first}, *cs.more...)
}

func (cs candidates) add(c, preferred *certificate) candidates {
	if cs.none() {
		return candidates{first: c}
	}
	list := cs.list()
	if slices.Contains(list, c) || preferred != nil && slices.Contains(list, preferred) {
		return cs
	}
	i, _ := slices.BinarySearchFunc(list, c, func(other, c *certificate) int {
		// Of two that are otherwise equal, prefer the one that expires last: a renewal may be another
		// file beside the old one.
		return cmp.Or(cmp.Compare(other.keyRank(), c.keyRank()), c.tls.Leaf.NotAfter.Compare(other.tls.Leaf.NotAfter), -1)
	})
	list = slices.Insert(list, i, c)
	more := list[1:]
	return candidates{list[0], &more}
}

// best returns the first unexpired certificate that the client supports, else the first that it
// supports, else the first, because the resulting alert says more than that of no certificate. It
// returns nil if there are none.
func (cs candidates) best(hello *tls.ClientHelloInfo) *certificate {
	if cs.more == nil {
		return cs.first
	}
	now := clock.Now()
	best, supported := cs.first, cs.first.supportedBy(hello)
	if supported && cs.first.checkDates(now) == nil {
		return best
	}
	for _, c := range *cs.more {
		switch {
		case !c.supportedBy(hello):
		case c.checkDates(now) == nil:
			return c
		case !supported:
			best, supported = c, true
		}
	}
	return best
}

// supportedBy reports whether the client can use the certificate, regardless of the name, which was
// looked up already.
func (c *certificate) supportedBy(hello *tls.ClientHelloInfo) bool {
	nameless := *hello
	nameless.ServerName = ""
	return nameless.SupportsCertificate(&c.tls) == nil
}
