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

// supportedBy says whether the client can use the certificate, whatever name it asks for: that has
// been looked up.
func (c *certificate) supportedBy(hello *tls.ClientHelloInfo) bool {
	nameless := *hello
	nameless.ServerName = ""
	return nameless.SupportsCertificate(&c.tls) == nil
}
