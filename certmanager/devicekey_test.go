package certmanager_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
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

// device is a key that fails or hangs while it is told so.
type device struct {
	crypto.Signer
	calls, waiting atomic.Int32
	mode           atomic.Pointer[func() error]
}

func (d *device) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	d.calls.Add(1)
	d.waiting.Add(1)
	defer d.waiting.Add(-1)
	if mode := d.mode.Load(); mode != nil {
		if err := (*mode)(); err != nil {
			return nil, err
		}
	}
	return d.Signer.Sign(rand, digest, opts)
}

func (d *device) set(mode func() error) {
	if mode == nil {
		d.mode.Store(nil)
		return
	}
	d.mode.Store(&mode)
}

// withDevice is a manager with the certificate of a device for a.test and another for b.test.
func withDevice(t *testing.T) (ca *tlstest.CA, d *device, source *edited, m *certmanager.Manager) {
	t.Helper()
	ca = tlstest.NewCA(t)
	cert := ca.Issue(t, tlstest.Leaf{Names: []string{"a.test"}}).Certificate()
	d = &device{Signer: cert.PrivateKey.(crypto.Signer)}
	cert.PrivateKey = d
	source = &edited{notices: true, material: certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: cert, Origin: "token"}, {Certificate: ca.Issue(t, tlstest.Leaf{Names: []string{"b.test"}}).Certificate(), Origin: "file"}},
	}}
	return ca, d, source, newManager(t, certmanager.Options{Source: source, PollInterval: time.Hour})
}

func handshakes(t *testing.T, m *certmanager.Manager, ca *tlstest.CA, name string) error {
	t.Helper()
	c := connectPipe(m.ServerTLS(), ca.ClientConfig(t, name))
	return c.serverErr
}

// A device that is away fails the handshakes of its key, no others, and an event says so once a
// minute. When it is back nothing has to be done.
func TestKeyThatFailsInService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, d, _, m := withDevice(t)
		events := collect(m)
		require.NoError(t, handshakes(t, m, ca, "a.test"))
		d.set(func() error { return errors.New("CKR_TOKEN_NOT_PRESENT") })
		for range 100 {
			require.ErrorContains(t, handshakes(t, m, ca, "a.test"), "CKR_TOKEN_NOT_PRESENT")
			require.NoError(t, handshakes(t, m, ca, "b.test"))
		}
		synctest.Wait()
		require.Len(t, events(certmanager.Warning), 1)
		event := events(certmanager.Warning)[0]
		assert.Equal(t, "key", event.Reason)
		assert.Equal(t, []string{"a.test"}, event.Certificate.Names)
		assert.ErrorContains(t, event.Err, "token: certificate")
		assert.ErrorContains(t, event.Err, "CKR_TOKEN_NOT_PRESENT")
		time.Sleep(time.Minute)
		require.Error(t, handshakes(t, m, ca, "a.test"))
		synctest.Wait()
		assert.Len(t, events(certmanager.Warning), 2)
		d.set(func() error { panic("a fault in the library") })
		require.ErrorContains(t, handshakes(t, m, ca, "a.test"), "a fault in the library")
		d.set(nil)
		require.NoError(t, handshakes(t, m, ca, "a.test"))
	})
}

// A device that hangs keeps a handshake for ten seconds. Until it answers it is not asked again.
func TestKeyThatHangsInService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, d, _, m := withDevice(t)
		events := collect(m)
		release := make(chan struct{})
		d.set(func() error { <-release; return nil })
		began, before := time.Now(), d.calls.Load()
		require.ErrorContains(t, handshakes(t, m, ca, "a.test"), "the key did not sign within 10s")
		assert.Equal(t, 10*time.Second, time.Since(began))
		for range 100 {
			require.ErrorContains(t, handshakes(t, m, ca, "a.test"), "the key has still not signed")
			require.NoError(t, handshakes(t, m, ca, "b.test"))
		}
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Equal(t, before+1, d.calls.Load())
		synctest.Wait()
		assert.Len(t, events(certmanager.Warning), 1)
		d.set(nil)
		close(release)
		synctest.Wait()
		require.NoError(t, handshakes(t, m, ca, "a.test"))
	})
}

// While the key of a new certificate is waited for, a CA that its source removes is removed.
func TestChangeOfTrustWhileAKeyHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, clients := tlstest.NewCA(t), tlstest.NewCA(t)
		trust := &edited{notices: true, material: certmanager.Material{ClientCAs: []*x509.Certificate{ca.Certificate(), clients.Certificate()}}}
		certs := &edited{notices: true, material: certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: ca.Issue(t, tlstest.Leaf{}).Certificate()}}}}
		m := newManager(t, certmanager.Options{Source: certmanager.Sources{certs, trust}, PollInterval: time.Hour})
		client := ca.ClientConfig(t, "localhost")
		client.Certificates = []tls.Certificate{clients.Issue(t, tlstest.Leaf{}).Certificate()}
		require.NoError(t, connectPipe(m.ServerTLS(), client).serverErr)

		next := ca.Issue(t, tlstest.Leaf{}).Certificate()
		d := &device{Signer: next.PrivateKey.(crypto.Signer)}
		release := make(chan struct{})
		d.set(func() error { <-release; return nil })
		next.PrivateKey = d
		certs.set(func(m *certmanager.Material) { m.Certificates = []certmanager.Certificate{{Certificate: next}} })
		for d.waiting.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		trust.set(func(m *certmanager.Material) { m.ClientCAs = m.ClientCAs[:1] })
		for connectPipe(m.ServerTLS(), client).serverErr == nil {
			time.Sleep(10 * time.Millisecond)
		}
		assert.Less(t, time.Since(began), 4*time.Second)
		assert.EqualValues(t, 1, d.calls.Load())
		close(release)
		time.Sleep(10 * time.Second)
		assert.True(t, m.GetCertificate().Leaf.Equal(next.Leaf), "when the key has signed it is in service")
	})
}

// A key in a device that takes seconds gets in service all the same.
func TestSlowKeyGetsInService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, _, source, m := withDevice(t)
		next := ca.Issue(t, tlstest.Leaf{}).Certificate()
		d := &device{Signer: next.PrivateKey.(crypto.Signer)}
		d.set(func() error { time.Sleep(5 * time.Second); return nil })
		next.PrivateKey = d
		source.set(func(m *certmanager.Material) { m.Certificates = []certmanager.Certificate{{Certificate: next}} })
		time.Sleep(20 * time.Second)
		assert.True(t, m.GetCertificate().Leaf.Equal(next.Leaf))
		assert.EqualValues(t, 1, d.calls.Load())
	})
}

type keyStore struct {
	find func(crypto.PublicKey) (crypto.Signer, error)
}

func (s *keyStore) Signer(_ context.Context, public crypto.PublicKey) (crypto.Signer, error) {
	return s.find(public)
}

// KeyStore gives the key of whatever certificate is in the file, also where that begins with a
// CA's, and an error of it leaves the last good one in service.
func TestKeyStore(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	sub := ca.Intermediate(t)
	old, next := sub.Issue(t, tlstest.Leaf{}), sub.Issue(t, tlstest.Leaf{})
	var token []*tlstest.Pair
	files := certmanager.Files{Cert: write(t, dir, "cert.pem", append(sub.PEM(), old.CertPEM...)),
		KeyStore: &keyStore{func(public crypto.PublicKey) (crypto.Signer, error) {
			for _, pair := range token {
				if pair.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(public) {
					return &device{Signer: pair.Key}, nil
				}
			}
			return nil, errors.New("the token has no such key")
		}}}
	_, err := certmanager.New(certmanager.Options{Source: files})
	require.ErrorContains(t, err, "cert.pem")
	require.ErrorContains(t, err, "the token has no such key")
	token = append(token, old)
	m := newManager(t, certmanager.Options{Source: files, PollInterval: time.Hour})
	require.Equal(t, old.Leaf.SerialNumber.String(), serial(t, m, ca))
	require.NoError(t, m.Reload(t.Context()), "nothing has changed")

	write(t, dir, "cert.pem", next.CertPEM)
	require.ErrorContains(t, m.Reload(t.Context()), "the token has no such key")
	require.Equal(t, old.Leaf.SerialNumber.String(), serial(t, m, ca))
	token = append(token, next)
	require.NoError(t, m.Reload(t.Context()))
	require.Equal(t, next.Leaf.SerialNumber.String(), serial(t, m, ca))

	for says, files := range map[string]certmanager.Files{
		"without Files.Cert":   {KeyStore: files.KeyStore, ClientCAs: files.Cert},
		"more than one is set": {Cert: files.Cert, Key: files.Cert, KeyStore: files.KeyStore},
		"neither a key nor an": {Cert: files.Cert, KeyStore: &keyStore{func(crypto.PublicKey) (crypto.Signer, error) { return nil, nil }}},
		"of the library":       {Cert: files.Cert, KeyStore: &keyStore{func(crypto.PublicKey) (crypto.Signer, error) { panic("of the library") }}},
	} {
		_, err := certmanager.New(certmanager.Options{Source: files})
		require.ErrorContains(t, err, says)
	}
}
