package certmanager_test

import (
	"crypto"
	"crypto/tls"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// hungKey is a key in a device that does not answer until it is released.
type hungKey struct {
	crypto.Signer
	waiting chan struct{} // told when somebody waits
	release chan struct{}
	calls   *atomic.Int32
}

func newHungKey(key crypto.Signer) hungKey {
	return hungKey{key, make(chan struct{}, 100), make(chan struct{}), new(atomic.Int32)}
}

func (k hungKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.calls.Add(1)
	k.waiting <- struct{}{}
	<-k.release
	return k.Signer.Sign(rand, digest, opts)
}

// While a key is being tried that does not answer, everything else goes on: a CA is removed, its
// peers have to go, a connection is judged, and the manager is closed.
func TestHungKeyHoldsNothingUp(t *testing.T) {
	for what, put := range map[string]func(m *certmanager.Manager, source *edited, cert tls.Certificate){
		"reload": func(m *certmanager.Manager, source *edited, cert tls.Certificate) {
			source.set(func(m *certmanager.Material) {
				m.Certificates = []certmanager.Certificate{{Certificate: cert, Origin: "device"}}
			})
		},
		"Update": func(m *certmanager.Manager, _ *edited, cert tls.Certificate) { go m.Update(cert) },
	} {
		t.Run(what, func(t *testing.T) {
			first, second, source, m, peers := twoCAs(t)
			cert := first.Issue(t, tlstest.Leaf{}).Certificate()
			key := newHungKey(cert.PrivateKey.(crypto.Signer))
			defer close(key.release)
			cert.PrivateKey = key
			put(m, source, cert)
			<-key.waiting
			start := time.Now()
			m.SetClientCAs(first.Pool())
			require.ErrorIs(t, peers[1].evicted(t), certmanager.ErrUntrusted)
			c := connect(t, m.ServerTLS(), second.MutualClientConfig(t, "localhost", tlstest.Leaf{}))
			require.Error(t, c.serverErr)
			track(m, tls.ConnectionState{}).release()
			m.Status()
			peers[0].release()
			require.NoError(t, m.Close())
			assert.Less(t, time.Since(start), 5*time.Second, "a rehearsal may take 10")
		})
	}
}

// Nor do attempts pile up: a key that has not answered is not asked again until it does, and then
// the certificate is put in service.
func TestHungKeyIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		before, cert := ca.Issue(t, tlstest.Leaf{}).Certificate(), ca.Issue(t, tlstest.Leaf{}).Certificate()
		source := &edited{material: certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: before}}}}
		m := newManager(t, certmanager.Options{Source: source})
		key := newHungKey(cert.PrivateKey.(crypto.Signer))
		cert.PrivateKey = key
		events := collect(m)
		source.set(func(m *certmanager.Material) { m.Certificates = []certmanager.Certificate{{Certificate: cert}} })
		time.Sleep(10 * time.Minute)
		assert.Len(t, events(certmanager.Rejected), 1)
		assert.Greater(t, source.count(), 50)
		assert.EqualValues(t, 1, key.calls.Load())
		close(key.release)
		time.Sleep(time.Minute)
		assert.True(t, m.GetCertificate().Leaf.Equal(cert.Leaf))
	})
}
