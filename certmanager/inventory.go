package certmanager

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// lacks says whether something of another material is missing: a CA, a revocation list or its
// issuer, a name, an intermediate of a chain. What a source renews by itself does not count.
func (m *material) lacks(other *material) bool { return len(m.missing(other)) > 0 }

// missing returns the part of another's inventory that is not in this one's.
func (m *material) missing(other *material) map[string]func(*Material) {
	has, missing := m.inventory(true), other.inventory(false)
	maps.DeleteFunc(missing, func(key string, _ func(*Material)) bool {
		_, found := has[key]
		return found
	})
	return missing
}

// keeping returns the material together with the CAs and lists that it lacks of another, or nil
// where it gives nothing that the other does not have, or lacks more than that.
func (m *material) keeping(other *material) *material {
	if !other.lacks(m) {
		return nil
	}
	kept := &Material{TrustDomains: make(map[string][]*x509.Certificate)}
	for _, add := range m.missing(other) {
		if add == nil {
			return nil
		}
		add(kept)
	}
	return joined(append(slices.Clone(m.parts), &part{from: kept}))
}

// inventory has a key for each thing in a material, with a function that adds it to another; nil
// for what cannot be without the rest.
func (m *material) inventory(renewed bool) map[string]func(*Material) {
	has := make(map[string]func(*Material))
	for _, p := range m.parts {
		from := p.from
		for _, c := range from.ClientCAs {
			has["client CA "+string(c.Raw)] = func(m *Material) { m.ClientCAs = append(m.ClientCAs, c) }
		}
		for _, c := range from.RootCAs {
			has["root CA "+string(c.Raw)] = func(m *Material) { m.RootCAs = append(m.RootCAs, c) }
		}
		for domain, all := range from.TrustDomains {
			for _, c := range all {
				has[domain+" CA "+string(c.Raw)] = func(m *Material) { m.TrustDomains[domain] = append(m.TrustDomains[domain], c) }
			}
		}
		for _, c := range from.CRLIssuers {
			has["list issuer "+string(c.Raw)] = func(m *Material) { m.CRLIssuers = append(m.CRLIssuers, c) }
		}
		for _, list := range from.CRLs {
			has["list of "+trust.CanonicalName(list.RawIssuer)] = func(m *Material) { m.CRLs = append(m.CRLs, list) }
		}
		// A pool cannot be taken apart: another one counts as a loss.
		has[fmt.Sprintf("client CAs %p", from.ClientCAPool)] = nil
		has[fmt.Sprintf("root CAs %p", from.RootCAPool)] = nil
		for _, key := range from.ECHKeys {
			has["ECH config "+string(key.Config)] = nil
		}
		for _, c := range p.certificates {
			if c.owner && !renewed {
				continue
			}
			for i := range c.chain[1:] {
				has[fmt.Sprintf("intermediate %d of %s", i, c.origin)] = nil
			}
			for _, name := range c.chain[0].DNSNames {
				has["name "+name] = nil
			}
		}
	}
	return has
}
