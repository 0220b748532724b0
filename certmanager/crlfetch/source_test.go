package crlfetch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// staticSource has CAs as certificates, as files have them.
type staticSource struct {
	ca   *tlstest.CA
	cert tls.Certificate
	more []*x509.Certificate
}

func (s staticSource) Load(_ context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	if previous != nil {
		return previous, nil
	}
	return &certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: s.cert, Origin: "test"}},
		ClientCAs:    append([]*x509.Certificate{s.ca.Certificate()}, s.more...),
	}, nil
}

func (s staticSource) Watch(ctx context.Context, _ func(), _ func(certmanager.Event)) error {
	<-ctx.Done()
	return nil
}
