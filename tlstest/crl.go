package tlstest

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// CRL describes a certificate revocation list (RFC 5280 section 5).
type CRL struct {
	// Revoked are certificates of the CA that signs the list. None is a valid list.
	Revoked []*x509.Certificate

	// Number defaults to one more than the highest that the CA has used.
	Number int64

	// ThisUpdate and NextUpdate default to an hour ago and a day ahead.
	ThisUpdate, NextUpdate time.Time

	// Extensions are further extensions, such as an issuing distribution point.
	Extensions []pkix.Extension
}

// CRL returns a list of the revoked certificates, as PEM.
func (ca *CA) CRL(t TB, revoked ...*x509.Certificate) []byte {
	t.Helper()
	list, err := ca.GenerateCRL(CRL{Revoked: revoked})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return list
}

// GenerateCRL is [CA.CRL] without a test, with all fields of the list.
func (ca *CA) GenerateCRL(c CRL) ([]byte, error) {
	template := &x509.RevocationList{ThisUpdate: c.ThisUpdate, NextUpdate: c.NextUpdate, ExtraExtensions: c.Extensions}
	if template.ThisUpdate.IsZero() {
		template.ThisUpdate = time.Now().Add(-time.Hour)
	}
	if template.NextUpdate.IsZero() {
		template.NextUpdate = time.Now().Add(24 * time.Hour)
	}
	for _, cert := range c.Revoked {
		if !bytes.Equal(cert.RawIssuer, ca.cert.RawSubject) {
			return nil, fmt.Errorf("tlstest: CRL of %q: %q was issued by %q",
				ca.cert.Subject.CommonName, cert.Subject.CommonName, cert.Issuer.CommonName)
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: template.ThisUpdate})
	}

	ca.mu.Lock()
	defer ca.mu.Unlock()
	if c.Number == 0 {
		c.Number = ca.lastCRL + 1
	}
	ca.lastCRL = max(ca.lastCRL, c.Number)
	template.Number = big.NewInt(c.Number)

	der, err := x509.CreateRevocationList(rand.Reader, template, ca.cert, ca.key)
	if err != nil {
		return nil, fmt.Errorf("tlstest: CRL of %q: %w", ca.cert.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}
