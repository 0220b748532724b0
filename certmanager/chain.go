package certmanager

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// chainCheck looks whether chains are complete. That one leads to none of RootCAs is not an error by itself: the CA that issued our
// certificate may be another than the one that issues our peers', as where a public certificate meets clients of a private CA. It is an error
// where something says that the chain should lead there: an intermediate that stands in another file, or what was in service before. Those
// of an ACME source are a public CA's, where RootCAs may well be those of a private one.
type chainCheck struct {
	s          *snapshot
	before     map[string]bool // previous.leads where the roots are the same
	allBefore  bool            // and all of them did
	issuers    *x509.CertPool  // intermediates of all chains, served now or before
	issuerList []*x509.Certificate
}

func newChainCheck(s, previous *snapshot) *chainCheck {
	k := &chainCheck{s: s, issuers: x509.NewCertPool()}
	certs := s.certs
	if previous != nil {
		certs = slices.Concat(certs, previous.certs)
		if s.trust.rootCAs.Equal(previous.trust.rootCAs) {
			k.before, k.allBefore = previous.leads, len(previous.leads) > 0
			for _, led := range previous.leads {
				k.allBefore = k.allBefore && led
			}
		}
	}
	for _, c := range certs {
		for _, issuer := range c.chain[1:] {
			if !isRoot(issuer) && !slices.ContainsFunc(k.issuerList, issuer.Equal) {
				k.issuers.AddCert(issuer)
				k.issuerList = append(k.issuerList, issuer)
			}
		}
	}
	s.leads = make(map[string]bool)
	return k
}

// check refuses a chain that is not complete, and notes a doubt about one that may not be. One in service gets neither again.
func (k *chainCheck) check(c *certificate, served bool, now time.Time) error {
	roots := k.s.trust.rootCAs
	if roots == nil {
		if missing := k.issuerOf(c); missing != nil && !served {
			k.s.doubts = append(k.s.doubts, fmt.Errorf("%s: the chain of certificate %s lacks its issuer, %s, which stands behind another certificate; append it, unless all peers have it",
				c.origin, describe(c.chain[0]), describe(missing)))
		}
		return nil
	}
	if led, known := k.before[c.origin]; known && served { // a thousand verifications for one that has changed
		k.s.leads[c.origin] = led
		return nil
	}
	own := x509.NewCertPool()
	for _, cert := range c.chain[1:] {
		own.AddCert(cert)
	}
	built, err := c.build(roots, own, now)
	if c.owner {
		return err
	}
	k.s.leads[c.origin] = built != nil
	if built != nil || err != nil || served {
		return err
	}
	if whole, err := c.build(roots, k.issuers, now); err == nil && whole != nil {
		missing := slices.IndexFunc(whole, func(cert *x509.Certificate) bool { return !slices.ContainsFunc(c.chain, cert.Equal) })
		return fmt.Errorf("%s: certificate %s: %w: its chain lacks the intermediate %s; append it, as the CA's \"full chain\" has it",
			c.origin, describe(c.chain[0]), ErrUntrusted, describe(whole[missing]))
	}
	if led, known := k.before[c.origin]; led || k.allBefore {
		return fmt.Errorf("%s: certificate %s: %w: its chain builds to none of the CAs in RootCAs, as the one in service does; add the missing intermediate or root",
			c.origin, describe(c.chain[0]), ErrUntrusted)
	} else if !known && c.server && !k.leadsToClients(c, own, now) {
		k.s.doubts = append(k.s.doubts, fmt.Errorf("%s: certificate %s: its chain builds to none of the CAs in RootCAs or ClientCAs; if it is of one of them, an intermediate is missing",
			c.origin, describe(c.chain[0])))
	}
	return nil
}

// build returns a chain to the roots, nil if there is none.
func (c *certificate) build(roots, intermediates *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	chains, err := c.chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return chains[0], nil
	case errors.As(err, &unknown):
		return nil, nil
	}
	return nil, fmt.Errorf("%s: certificate %s: %w: %w", c.origin, describe(c.chain[0]), ErrUntrusted, err)
}

// leadsToClients says whether the chain builds to the roots that clients are verified with.
func (k *chainCheck) leadsToClients(c *certificate, intermediates *x509.CertPool, now time.Time) bool {
	if k.s.trust.clientCAs == nil {
		return false // and not the system's
	}
	built, _ := c.build(k.s.trust.clientCAs, intermediates, now)
	return built != nil
}

// issuerOf returns the intermediate that issued a leaf which stands alone, nil if none is known.
func (k *chainCheck) issuerOf(c *certificate) *x509.Certificate {
	if len(c.chain) > 1 || c.owner {
		return nil
	}
	i := slices.IndexFunc(k.issuerList, func(issuer *x509.Certificate) bool {
		return bytes.Equal(issuer.RawSubject, c.chain[0].RawIssuer) && c.chain[0].CheckSignatureFrom(issuer) == nil
	})
	if i < 0 {
		return nil
	}
	return k.issuerList[i]
}

func isRoot(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubject, cert.RawIssuer) }
