package certmanager

import (
	"cmp"
	"crypto/tls"
	"slices"
)

// candidates are the certificates for one name. The preferred one lies in the map itself: among
// many names each step to another place in memory costs more than all else that a lookup does.
type candidates struct {
	first *certificate    // nil: there is none
	more  *[]*certificate // those after it; nil: there are no more
}

func (cs candidates) none() bool { return cs.first == nil }

// list returns them all, in the order in which they are preferred.
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
		// Of two that are equal otherwise the one that ends last: a renewal may come as
		// another file, beside one that is about to end.
		return cmp.Or(cmp.Compare(other.keyRank(), c.keyRank()), c.tls.Leaf.NotAfter.Compare(other.tls.Leaf.NotAfter), -1)
	})
	list = slices.Insert(list, i, c)
	more := list[1:]
	return candidates{list[0], &more}
}

// best returns the first certificate that the client supports and that has not ended, or the first
// that it supports, or the first of all: the alert that follows then says more than none; nil where
// there are none.
func (cs candidates) best(hello *tls.ClientHelloInfo) *certificate {
	if cs.more == nil {
		return cs.first
	}
	best, supported := cs.first, cs.first.supportedBy(hello)
	if supported && !best.ended.Load() {
		return best
	}
	for _, c := range *cs.more {
		switch {
		case !c.supportedBy(hello):
		case !c.ended.Load():
			return c
		case !supported:
			best, supported = c, true
		}
	}
	return best
}

// supportedBy says whether the client can verify a signature of this key. It is
// ClientHelloInfo.SupportsCertificate without its allocations and without the
// parts that the index has answered already.
func (c *certificate) supportedBy(hello *tls.ClientHelloInfo) bool {
	if len(hello.SignatureSchemes) == 0 {
		return c.key == rsaKey // RFC 5246 section 7.4.1.4.1; nothing but RSA is safe to assume
	}
	tls13 := slices.Contains(hello.SupportedVersions, tls.VersionTLS13)
	if !slices.ContainsFunc(hello.SignatureSchemes, func(s tls.SignatureScheme) bool { return c.signs(s, tls13) }) {
		return false
	}
	if tls13 {
		return true
	}
	if c.key == ecdsaKey && !slices.Contains(hello.SupportedCurves, c.curve) {
		return false
	}
	suites := ecdsaSuites
	if c.key == rsaKey {
		suites = rsaSuites
	}
	return slices.ContainsFunc(hello.CipherSuites, func(id uint16) bool { return slices.Contains(suites, id) })
}

// signs says whether the key makes signatures of a scheme, RFC 8446 section 4.2.3. One that is not
// in memory may be restricted to some.
func (c *certificate) signs(s tls.SignatureScheme, tls13 bool) bool {
	if c.schemes != nil && !slices.Contains(c.schemes, s) {
		return false
	}
	switch s {
	case tls.ECDSAWithP256AndSHA256:
		return c.key == ecdsaKey && (!tls13 || c.curve == tls.CurveP256)
	case tls.ECDSAWithP384AndSHA384:
		return c.key == ecdsaKey && (!tls13 || c.curve == tls.CurveP384)
	case tls.ECDSAWithP521AndSHA512:
		return c.key == ecdsaKey && (!tls13 || c.curve == tls.CurveP521)
	case tls.Ed25519:
		return c.key == ed25519Key
	case tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512:
		return c.key == rsaKey
	case tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512:
		return c.key == rsaKey && !tls13
	}
	return false
}
