package crlfetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Certificates are found wherever the wrapped source has them, each once.
func TestCertificatesOf(t *testing.T) {
	first, second := tlstest.NewCA(t), tlstest.NewCA(t)
	certOf := func(ca *tlstest.CA) *x509.Certificate {
		block, _ := pem.Decode(ca.PEM())
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		return cert
	}
	one, other := certOf(first), certOf(second)
	leaf := first.Issue(t, tlstest.Leaf{})
	part := &certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: leaf.Certificate()}},
		TrustDomains: map[string][]*x509.Certificate{"example.test": {other}},
		RootCAs:      []*x509.Certificate{other},
	}
	all := certificatesOf(&certmanager.Material{Parts: []*certmanager.Material{part, {ClientCAs: []*x509.Certificate{one}}}})
	assert.Contains(t, all, other)
	assert.Contains(t, all, one)
	seen := map[string]bool{}
	for _, cert := range all {
		assert.False(t, seen[string(cert.Raw)])
		seen[string(cert.Raw)] = true
	}
	assert.NotContains(t, issuersOf(part), leaf.Leaf)
}

// However many distribution points there are, so many are fetched, and so many warnings made.
func TestDistributionPointsAreBounded(t *testing.T) {
	s := &Source{Source: certmanager.Static{}, DistributionPoints: true}
	require.NoError(t, s.ready())
	points := func(scheme string, n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("%s://ca.example.test/%d.crl", scheme, i))
		}
		return all
	}
	of := func(points []string) *certmanager.Material {
		return &certmanager.Material{RootCAs: []*x509.Certificate{{CRLDistributionPoints: points}}}
	}
	urls, warnings := s.want(of(points("http", maxURLs+1)))
	assert.Len(t, urls, maxURLs)
	require.Len(t, warnings, 1)
	assert.ErrorContains(t, warnings[0], "only the first 200 are fetched")
	urls, warnings = s.want(of(points("ldap", 20)))
	assert.Empty(t, urls)
	assert.Len(t, warnings, 11)
}

// sluggish is a source that takes long to load a change, however long its caller waits.
type sluggish struct {
	latest *atomic.Pointer[certmanager.Material]
}

func (s sluggish) Load(_ context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	latest := s.latest.Load()
	if previous != nil && previous != latest {
		time.Sleep(15 * time.Second)
	}
	return latest, nil
}

func (sluggish) Watch(context.Context, func(), func(certmanager.Event)) error { return nil } // it is polled

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("unreachable")
}

// A change of a wrapped source that takes longer to load than a Load may take is put in service.
func TestSlowLoadIsNotInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		source := sluggish{new(atomic.Pointer[certmanager.Material])}
		issue := func() *x509.Certificate {
			pair := ca.Issue(t, tlstest.Leaf{})
			static := certmanager.Static{Certificates: []tls.Certificate{pair.Certificate()}}
			material, err := static.Load(t.Context(), nil)
			require.NoError(t, err)
			source.latest.Store(material)
			return pair.Leaf
		}
		issue()
		m, err := certmanager.New(certmanager.Options{Logger: slog.New(slog.DiscardHandler), Source: &Source{
			Source: source, URLs: []string{"http://ca.example.test/1.crl"}, Client: &http.Client{Transport: unreachable{}},
		}})
		require.NoError(t, err)
		defer func() {
			require.NoError(t, m.Close())
			time.Sleep(time.Minute) // a Load may still run
		}()
		leaf := issue()
		time.Sleep(time.Minute)
		assert.True(t, leaf.Equal(m.GetCertificate().Leaf))
	})
}
