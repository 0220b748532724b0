package gen

import (
	"crypto/tls"
	"sync/atomic"
)

// CertManager holds the certificate of a TLS endpoint. Methods may be called from any goroutine.
type CertManager interface {
	// Update replaces the certificate for handshakes that start from now on.
	Update(cert tls.Certificate)
	// GetCertificateFunc returns a function for tls.Config.GetCertificate.
	GetCertificateFunc() func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	GetCertificate() tls.Certificate
}

// CreateCertManager returns a CertManager that holds one certificate.
func CreateCertManager(cert tls.Certificate) CertManager {
	m := new(certManager)
	m.Update(cert)
	return m
}

type certManager struct {
	current atomic.Pointer[tls.Certificate]
}

func (m *certManager) Update(cert tls.Certificate)     { m.current.Store(&cert) }
func (m *certManager) GetCertificate() tls.Certificate { return *m.current.Load() }
func (m *certManager) GetCertificateFunc() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.current.Load(), nil }
}
