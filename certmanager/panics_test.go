package certmanager_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// No function of the program that a goroutine of the manager calls ends the program. The first
// panic is logged, with its stack.
func TestPanicsAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
		cert := certmanager.Certificate{Certificate: ca.Issue(t, tlstest.Leaf{}).Certificate()}
		source := &edited{material: certmanager.Material{Certificates: []certmanager.Certificate{cert}, ClientCAs: []*x509.Certificate{ca.Certificate()}}}
		var log logBuffer
		m := newManager(t, certmanager.Options{Source: source, Logger: log.logger()})
		m.Subscribe(func(certmanager.Event) { panic("of a subscriber") })
		events := collect(m)
		got := connectPipe(m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t)
		m.Track(&got.server, nil, func(error) { panic("of evict") })
		m.SetClientCAs(other.Pool())
		m.SetClientCAs(ca.Pool())
		time.Sleep(time.Minute)
		assert.Len(t, events(certmanager.PeerEvicted), 1)
		assert.Len(t, events(certmanager.Loaded), 2)
		for _, what := range []string{"a subscriber panicked", "the function that closes a connection panicked"} {
			assert.Equal(t, 1, strings.Count(log.String(), what), what)
		}
		assert.Contains(t, log.String(), "panics_test.go", "the stack")

		cert.PrivateKey = (*ecdsa.PrivateKey)(nil)
		source.set(func(m *certmanager.Material) { m.Certificates = []certmanager.Certificate{cert} })
		time.Sleep(time.Minute)
		assert.Len(t, events(certmanager.Rejected), 1)
		assert.True(t, m.GetCertificate().Leaf.Equal(got.client.PeerCertificates[0]))
	})
}

type panicking struct{ slog.Handler }

func (panicking) Handle(context.Context, slog.Record) error { panic("of a handler") }

func TestLogHandlerThatPanics(t *testing.T) {
	m, err := certmanager.New(certmanager.Options{Source: leaf(tlstest.NewCA(t).Issue(t, tlstest.Leaf{})), Logger: slog.New(panicking{slog.DiscardHandler})})
	require.NoError(t, err)
	defer m.Close()
	m.SetServerName("a.test")
	assert.Equal(t, "a.test", m.ServerName())
}

// A list that is dated in the future takes the place of today's when its time comes.
func TestListOfTomorrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		pair := ca.Issue(t, tlstest.Leaf{})
		list := func(number int64, from time.Time, revoked ...*x509.Certificate) *x509.RevocationList {
			data, err := ca.GenerateCRL(tlstest.CRL{Number: number, ThisUpdate: from, NextUpdate: from.AddDate(0, 0, 100), Revoked: revoked})
			require.NoError(t, err)
			block, _ := pem.Decode(data)
			parsed, err := x509.ParseRevocationList(block.Bytes)
			require.NoError(t, err)
			return parsed
		}
		source := &edited{material: certmanager.Material{
			Certificates: []certmanager.Certificate{{Certificate: ca.Issue(t, tlstest.Leaf{NotAfter: time.Now().AddDate(1, 0, 0)}).Certificate()}},
			ClientCAs:    []*x509.Certificate{ca.Certificate()},
			CRLs:         []*x509.RevocationList{list(1, time.Now(), pair.Leaf), list(2, time.Now().Add(6*time.Hour))},
		}}
		m := newManager(t, certmanager.Options{Source: source})
		client := ca.ClientConfig(t, "localhost")
		client.Certificates = []tls.Certificate{pair.Certificate()}
		time.Sleep(5 * time.Hour)
		require.ErrorIs(t, connectPipe(m.ServerTLS(), client).serverErr, certmanager.ErrRevoked)
		require.EqualValues(t, 1, m.Status().Generation)
		time.Sleep(time.Hour)
		require.NoError(t, connectPipe(m.ServerTLS(), client).serverErr)
		require.EqualValues(t, 2, m.Status().Generation)
		time.Sleep(time.Hour)
		require.EqualValues(t, 2, m.Status().Generation)
	})
}

// Peers refuse a leaf whose issuer's extended key usage does not allow what it is used for.
func TestIntermediateForAnotherUse(t *testing.T) {
	ca := tlstest.NewCA(t)
	for usage, other := range map[x509.ExtKeyUsage]struct {
		usage, its tlstest.Usage
		warns      string
	}{
		x509.ExtKeyUsageClientAuth: {tlstest.ServerOnly, tlstest.ClientOnly, "does not allow: clients refuse it"},
		x509.ExtKeyUsageServerAuth: {tlstest.ClientOnly, tlstest.ServerOnly, "does not allow: servers refuse it"},
	} {
		sub := ca.Intermediate(t, func(template *x509.Certificate) { template.ExtKeyUsage = []x509.ExtKeyUsage{usage} })
		for _, leafUsage := range []tlstest.Usage{other.usage, other.its} {
			var log logBuffer
			newManager(t, certmanager.Options{Logger: log.logger(), Source: leaf(sub.Issue(t, tlstest.Leaf{Usage: leafUsage}))})
			assert.Equal(t, leafUsage == other.usage, strings.Contains(log.String(), other.warns), log.String())
		}
	}
}
