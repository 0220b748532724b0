package certmanager_test

import (
	"context"
	"crypto/tls"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// settable is a source of one certificate that a test replaces.
type settable struct {
	cert atomic.Pointer[tls.Certificate]
}

func (s *settable) set(pair *tlstest.Pair) {
	cert := pair.Certificate()
	s.cert.Store(&cert)
}

func (s *settable) Load(context.Context, *certmanager.Material) (*certmanager.Material, error) {
	return &certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: *s.cert.Load(), Origin: "settable", Renewed: true}}}, nil
}

func (s *settable) Watch(ctx context.Context, _ func(), _ func(certmanager.Event)) error {
	<-ctx.Done()
	return nil
}

// What Update has put in service stays when the source gets a certificate for another name, as an
// ACME source does all the time, and goes when it gets one for a name of it.
func TestUpdateStaysUntilItsNameChanges(t *testing.T) {
	ca, source := tlstest.NewCA(t), &settable{}
	issue := func(name string) *tlstest.Pair { return ca.Issue(t, tlstest.Leaf{Names: []string{name}}) }
	source.set(issue("acme.example.test"))
	m := newManager(t, certmanager.Options{Source: source})
	served := func(name string) string {
		return connect(t, m.ServerTLS(), ca.ClientConfig(t, name)).ok(t).client.PeerCertificates[0].SerialNumber.String()
	}
	update := issue("update.example.test")
	m.Update(update.Certificate())
	for range 2 {
		renewed := issue("acme.example.test")
		source.set(renewed)
		require.NoError(t, m.Reload(t.Context()))
		assert.Equal(t, update.Leaf.SerialNumber.String(), served("update.example.test"))
		assert.Equal(t, renewed.Leaf.SerialNumber.String(), served("acme.example.test"))
	}
	next := issue("update.example.test")
	source.set(next)
	require.NoError(t, m.Reload(t.Context()))
	assert.Equal(t, next.Leaf.SerialNumber.String(), served("update.example.test"))
}
