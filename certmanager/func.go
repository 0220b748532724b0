package certmanager

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
)

// Func is a Source that is a function for tls.Config.GetCertificate: that of an
// autocert.Manager or of certmagic, for example.
//
//	certmanager.Sources{files, certmanager.Func(manager.GetCertificate)}
//
// It is asked in every handshake for a name that no other source has, also for the "acme-tls/1"
// challenges of its CA, and waits as long as it likes. What it returns is not
// rehearsed, and neither counted nor announced. Where it returns an error the default
// certificate is served, if another source has one.
type Func func(*tls.ClientHelloInfo) (*tls.Certificate, error)

func (f Func) paths() []string { return nil }

func (f Func) read() (*content, error) {
	if f == nil {
		return nil, errors.New("the Func source is nil")
	}
	all := newMaterial()
	all.late, all.funcs = true, []Func{f}
	return &content{parse: func(map[[sha256.Size]byte]*certificate) (*material, error) { return all, nil }}, nil
}

// askFuncs returns the first certificate that a function has, or what the last of them said.
func askFuncs(all []Func, hello *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
	for _, f := range all {
		if cert, err = f(hello); cert != nil && err == nil {
			return cert, nil
		}
	}
	return nil, err
}
