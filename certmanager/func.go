package certmanager

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
)

// Func is a [Source] made of a function for tls.Config.GetCertificate, for example that of
// autocert.Manager or certmagic.
//
//	certmanager.Sources{files, certmanager.Func(manager.GetCertificate)}
//
// It is called in every handshake for a name that no other source covers, and for the "acme-tls/1"
// challenges of its CA. It may block, and is called from many goroutines. Its certificates are
// served unchecked and are neither counted nor reported. If it returns an error, the default
// certificate is served, if another source has one.
type Func func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// Load implements [Source].
func (f Func) Load(_ context.Context, previous *Material) (*Material, error) {
	switch {
	case f == nil:
		return nil, errors.New("the Func source is nil")
	case previous != nil:
		return previous, nil
	}
	return &Material{GetCertificate: f, Challenge: f}, nil
}

// Watch implements [Source]. There is nothing to watch: the function is called in every handshake.
func (f Func) Watch(ctx context.Context, _ func(), _ func(Event)) error {
	<-ctx.Done()
	return nil
}

// askFuncs returns the first certificate that a function returns, or the error of the last
// function.
func askFuncs(all []Func, hello *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
	for _, f := range all {
		if cert, err = f.ask(hello); cert != nil && err == nil {
			return cert, nil
		}
	}
	return nil, err
}

// ask calls the function. It returns an error for a panic, and for a certificate on which
// crypto/tls would panic: in a handshake on its own goroutine that would end the program.
func (f Func) ask(hello *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
	defer func() {
		if v := recover(); v != nil {
			cert, err = nil, fmt.Errorf("GetCertificate, or the key that it returned, panicked: %v", v)
		}
	}()
	if cert, err = f(hello); cert == nil || err != nil {
		return nil, err
	}
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok || len(cert.Certificate) == 0 {
		return nil, errors.New("GetCertificate returned a certificate without its chain or key")
	}
	signer.Public() // panics if the signer is a nil pointer
	return cert, nil
}
