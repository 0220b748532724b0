package certmanager_test

import (
	"crypto/tls"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

func TestFunc(t *testing.T) {
	ca := tlstest.NewCA(t)
	own, theirs := ca.Issue(t, tlstest.Leaf{Names: []string{"own.example.test"}}), ca.Issue(t, tlstest.Leaf{Names: []string{"theirs.example.test"}})
	asked := map[string]int{}
	f := certmanager.Func(func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		asked[hello.ServerName]++
		if hello.ServerName != "theirs.example.test" {
			return nil, errors.New("not mine")
		}
		cert := theirs.Certificate()
		return &cert, nil
	})
	m := newManager(t, certmanager.Options{Source: certmanager.Sources{certmanager.Static{Certificates: []tls.Certificate{own.Certificate()}}, f}})
	serves := func(name string) string {
		c := connect(t, m.ServerTLS(), &tls.Config{ServerName: name, InsecureSkipVerify: true}).ok(t)
		return c.client.PeerCertificates[0].DNSNames[0]
	}
	assert.Equal(t, "own.example.test", serves("own.example.test"))
	assert.Equal(t, "theirs.example.test", serves("theirs.example.test"))
	assert.Equal(t, "own.example.test", serves("unknown.example.test"), "the default where the function has none")
	assert.Equal(t, map[string]int{"theirs.example.test": 1, "unknown.example.test": 1}, asked)

	// Alone, its error is the server's.
	alone := newManager(t, certmanager.Options{Source: f})
	connect(t, alone.ServerTLS(), ca.ClientConfig(t, "theirs.example.test")).ok(t)
	c := connect(t, alone.ServerTLS(), ca.ClientConfig(t, "unknown.example.test")).refused(t)
	assert.ErrorContains(t, c.serverErr, "not mine")

	_, err := certmanager.New(certmanager.Options{Source: certmanager.Func(nil)})
	require.ErrorContains(t, err, "nil")
}
