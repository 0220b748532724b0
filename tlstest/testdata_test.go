package tlstest_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const testdata = "../testdata/certs"

func loadPool(t *testing.T, name string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testdata, name))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	return pool
}

func loadPair(t *testing.T, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(testdata, name+".crt"), filepath.Join(testdata, name+".key"))
	require.NoError(t, err)
	assert.Equal(t, time.Date(2085, 1, 1, 0, 0, 0, 0, time.UTC), pair.Leaf.NotAfter)
	return pair
}

func TestFixedCertificates(t *testing.T) {
	server := &tls.Config{
		Certificates: []tls.Certificate{loadPair(t, "server")},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    loadPool(t, "root.crt"),
	}
	var peer *x509.Certificate
	server.VerifyConnection = func(state tls.ConnectionState) error {
		peer = state.PeerCertificates[0]
		return nil
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "server.example.test"} {
		serverErr, clientErr := handshake(t, server, &tls.Config{
			Certificates: []tls.Certificate{loadPair(t, "client")},
			RootCAs:      loadPool(t, "root.crt"),
			ServerName:   name,
		})
		require.NoError(t, serverErr)
		require.NoError(t, clientErr)
		assert.Equal(t, "client.example.test", peer.Subject.CommonName)
		assert.Equal(t, "spiffe://example.test/client", peer.URIs[0].String())
	}

	other := loadPair(t, "other-client")
	serverErr, clientErr := handshake(t, server, &tls.Config{
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &other, nil },
		RootCAs:              loadPool(t, "root.crt"),
		ServerName:           "localhost",
	})
	require.ErrorContains(t, serverErr, "unknown authority")
	require.Error(t, clientErr)
	_, err := other.Leaf.Verify(x509.VerifyOptions{
		Roots:     loadPool(t, "other-root.crt"),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	require.NoError(t, err)
}
