package certmanager_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
)

// crossSigner is a CA whose key a test has, to sign across.
type crossSigner struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *crossSigner) sign(t *testing.T, name string, isCA bool, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, SubjectKeyId: key.X.Bytes()[:8],
	}
	if isCA {
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func newCrossKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func newCrossSigner(t *testing.T, name string) *crossSigner {
	t.Helper()
	key := newCrossKey(t)
	return &crossSigner{(&crossSigner{}).sign(t, name, true, key), key}
}

// A peer whose intermediate two roots have signed stays, whichever of the two goes, by removal or
// by revocation, as long as the other vouches for it, and goes with the second.
func TestCrossSignedPeerStays(t *testing.T) {
	first, second := newCrossSigner(t, "first"), newCrossSigner(t, "second")
	key := newCrossKey(t)
	byFirst, bySecond := first.sign(t, "sub", true, key), second.sign(t, "sub", true, key)
	leafKey := newCrossKey(t)
	leaf := (&crossSigner{byFirst, key}).sign(t, "alice", false, leafKey)
	listOf := func(a *crossSigner, revoked *x509.Certificate) *x509.RevocationList {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked.SerialNumber, RevocationTime: time.Now()}}}, a.cert, a.key)
		require.NoError(t, err)
		list, err := x509.ParseRevocationList(der)
		require.NoError(t, err)
		return list
	}
	server := first.sign(t, "server", false, leafKey)
	material := func(edit func(*certmanager.Material)) *certmanager.Material {
		m := &certmanager.Material{ClientCAs: []*x509.Certificate{first.cert, second.cert}, Certificates: []certmanager.Certificate{{Certificate: tls.Certificate{
			Certificate: [][]byte{server.Raw}, PrivateKey: leafKey}, Origin: "test"}}}
		edit(m)
		return m
	}
	for name, test := range map[string]struct {
		begins, then *certmanager.Material
		stays        bool
	}{
		"the first is removed":  {material(func(*certmanager.Material) {}), material(func(m *certmanager.Material) { m.ClientCAs = m.ClientCAs[1:] }), true},
		"the second is removed": {material(func(*certmanager.Material) {}), material(func(m *certmanager.Material) { m.ClientCAs = m.ClientCAs[:1] }), true},
		"the first, and the second is new": {material(func(m *certmanager.Material) { m.ClientCAs = m.ClientCAs[:1] }),
			material(func(m *certmanager.Material) { m.ClientCAs = m.ClientCAs[1:] }), true},
		"revoked by the first": {material(func(m *certmanager.Material) { m.ClientCAs = m.ClientCAs[:1] }),
			material(func(m *certmanager.Material) { m.CRLs = []*x509.RevocationList{listOf(first, byFirst)} }), true},
		"revoked by both": {material(func(*certmanager.Material) {}),
			material(func(m *certmanager.Material) {
				m.CRLs = []*x509.RevocationList{listOf(first, byFirst), listOf(second, bySecond)}
			}), false},
	} {
		t.Run(name, func(t *testing.T) {
			source := &pushed{material: test.begins}
			m := manager(t, source, certmanager.Rule{})
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			listener := m.NewListener(inner)
			defer listener.Close()
			client, err := tls.Dial("tcp", inner.Addr().String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{{
				Certificate: [][]byte{leaf.Raw, byFirst.Raw, bySecond.Raw}, PrivateKey: leafKey}}})
			require.NoError(t, err)
			defer client.Close()
			conn, err := listener.Accept()
			require.NoError(t, err)
			defer conn.Close()
			source.put(test.then)
			require.Eventually(t, func() bool { return m.Status().Generation == 2 }, 30*time.Second, 5*time.Millisecond)
			if test.stays {
				assert.NoError(t, m.Reload(t.Context()))
				assert.Equal(t, 1, m.Status().Connections)
				return
			}
			require.Eventually(t, func() bool { return m.Status().Evicted == 1 }, 30*time.Second, 5*time.Millisecond)
		})
	}
}

// A pool that differs from the one before in a constraint alone is another one: its peers are
// judged by it.
func TestPoolWithAConstraint(t *testing.T) {
	ca := newCrossSigner(t, "ca")
	leafKey := newCrossKey(t)
	leaf := ca.sign(t, "alice", false, leafKey)
	chain := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: leafKey}
	free, closed := x509.NewCertPool(), x509.NewCertPool()
	free.AddCert(ca.cert)
	closed.AddCertWithConstraint(ca.cert, func([]*x509.Certificate) error { return x509.ErrUnsupportedAlgorithm })
	require.True(t, free.Equal(closed), "else the test tests nothing")
	m := manager(t, certmanager.Static{Certificates: []tls.Certificate{chain}, ClientCAs: free}, certmanager.Rule{})
	client := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{chain}, ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "localhost"}
	_, serverErr, _ := meet(t, m.ServerTLS(), client)
	require.NoError(t, serverErr)
	evicted := make(chan error, 1)
	defer m.Track(&tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf},
		VerifiedChains: [][]*x509.Certificate{{leaf, ca.cert}}}, nil, func(err error) { evicted <- err })()
	m.SetClientCAs(closed)
	for range 2 { // with the session, too
		_, serverErr, _ = meet(t, m.ServerTLS(), client)
		assert.Error(t, serverErr)
	}
	select {
	case err := <-evicted:
		assert.ErrorIs(t, err, certmanager.ErrUntrusted)
	case <-time.After(30 * time.Second):
		t.Error("the open connection stays")
	}
}
