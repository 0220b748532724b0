package status

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/ergotls/ergotls/certmanager"
)

// impactView is what dropping a CA would do.
type impactView struct {
	Manager string
	CA      string
	Peers   []peerView
	More    int    `json:",omitempty"` // that are not in Peers
	Error   string `json:",omitempty"`
}

type peerView struct {
	Name   string
	Serial string `json:",omitempty"`
	Remote string `json:",omitempty"`
}

// choice is a CA that may be asked about.
type choice struct {
	Value, Manager, Name, Fingerprint string
	Chosen                            bool
}

// choices are the CAs of all managers with a source. The value of a choice is "fingerprint
// manager".
func choices(name string, status *certmanager.Status, chosen string) (all []choice) {
	seen := map[string]bool{}
	for _, ca := range slices.Concat(status.ClientCAs, status.RootCAs) {
		if value := ca.Fingerprint + " " + name; !seen[value] && len(all) < maxRows {
			seen[value] = true
			all = append(all, choice{value, name, printable(ca.Subject), ca.Fingerprint, value == chosen})
		}
	}
	return all
}

// askImpact returns the peers that would be disconnected if the manager's source no longer had a
// CA.
func askImpact(m *manager, ca choice) *impactView {
	v := &impactView{Manager: ca.Manager, CA: ca.Name}
	candidate, err := without(m, ca.Fingerprint)
	var peers []certmanager.PeerInfo
	if err == nil {
		peers, err = m.DryRun(candidate)
	}
	if err != nil {
		v.Error = printable(err.Error())
		return v
	}
	slices.SortFunc(peers, func(a, b certmanager.PeerInfo) int {
		return strings.Compare(a.Subject+a.Remote, b.Subject+b.Remote)
	})
	for _, p := range peers {
		if len(v.Peers) == maxRows {
			v.More = len(peers) - maxRows
			break
		}
		v.Peers = append(v.Peers, peerView{printable(p.Subject), printable(p.Serial), printable(p.Remote)})
	}
	return v
}

// without is a source of the manager's CAs but one. DryRun looks at nothing else of it.
func without(m *manager, fingerprint string) (certmanager.Source, error) {
	status := m.Status()
	var disk bundles
	if err := disk.read(m.source); err != nil {
		return nil, err
	}
	reduced := certmanager.Static{ClientCAs: m.ClientCAs(), RootCAs: m.RootCAs()}
	for _, part := range []struct {
		served []certmanager.CertificateInfo
		disk   side
		pool   **x509.CertPool
	}{{status.ClientCAs, disk.client, &reduced.ClientCAs}, {status.RootCAs, disk.root, &reduced.RootCAs}} {
		if !slices.ContainsFunc(part.served, func(c certmanager.CertificateInfo) bool { return c.Fingerprint == fingerprint }) {
			continue
		}
		pool := x509.NewCertPool()
		if part.disk.base != nil {
			pool = part.disk.base.Clone()
		}
		for _, c := range part.served {
			cert := part.disk.certs[c.Fingerprint]
			if cert == nil {
				return nil, fmt.Errorf("the files no longer have the CA %s that is in service: wait for the reload, or see why it fails", c.Subject)
			}
			if c.Fingerprint != fingerprint {
				pool.AddCert(cert)
			}
		}
		*part.pool = pool
	}
	return reduced, nil
}

// bundles are the CAs that a source has.
type bundles struct{ client, root side }

// side is the CAs of one direction: from files by fingerprint, and a pool of the program, which
// cannot be taken apart.
type side struct {
	certs map[string]*x509.Certificate
	base  *x509.CertPool
}

func (b *bundles) read(source certmanager.Source) error {
	switch s := source.(type) {
	case certmanager.Files:
		if s.ClientCAs == "" && s.RootCAs == "" {
			return nil
		}
		m, err := certmanager.Files{ClientCAs: s.ClientCAs, RootCAs: s.RootCAs}.Load(context.Background(), nil)
		if err != nil {
			return err
		}
		b.client.add(m.ClientCAs)
		b.root.add(m.RootCAs)
	case *certmanager.Files:
		return b.read(*s)
	case certmanager.Static:
		b.client.base, b.root.base = cmp.Or(s.ClientCAs, b.client.base), cmp.Or(s.RootCAs, b.root.base)
	case certmanager.Sources:
		for _, part := range s {
			if err := b.read(part); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *side) add(cas []*x509.Certificate) {
	if s.certs == nil {
		s.certs = map[string]*x509.Certificate{}
	}
	for _, ca := range cas {
		sum := sha256.Sum256(ca.Raw)
		s.certs[hex.EncodeToString(sum[:])] = ca
	}
}
