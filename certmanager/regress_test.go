package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// What is less than before is taken with one warning, and what is as good or better without.
func TestRegressions(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert := func(l tlstest.Leaf) tls.Certificate { return ca.Issue(t, l).Certificate() }
	list := func(age time.Duration) *x509.RevocationList {
		data, err := ca.GenerateCRL(tlstest.CRL{ThisUpdate: time.Now().Add(-age)})
		require.NoError(t, err)
		return parseCRL(t, data)
	}
	at := func(age time.Duration) time.Time { return time.Now().Add(-age) }
	server := cert(tlstest.Leaf{Usage: tlstest.ServerOnly, NotBefore: at(time.Minute)}) // the default is an hour
	workload := tlstest.Leaf{Usage: tlstest.ClientOnly, URIs: []string{"spiffe://example.test/web"}}
	with := func(certs ...tls.Certificate) certmanager.Static { return certmanager.Static{Certificates: certs} }
	lists := func(issuers []*x509.Certificate, lists ...*x509.RevocationList) certmanager.Static {
		return certmanager.Static{Certificates: []tls.Certificate{server}, CRLs: lists, CRLIssuers: issuers}
	}
	issuers := []*x509.Certificate{ca.Certificate()}
	older, newer := workload, workload
	older.NotBefore, newer.NotBefore = at(48*time.Hour), at(time.Minute)
	for name, c := range map[string]struct {
		before, after certmanager.Static
		says          string
	}{
		"renewed":            {with(cert(older)), with(cert(newer)), ""},
		"older":              {with(cert(tlstest.Leaf{})), with(cert(tlstest.Leaf{NotBefore: at(48 * time.Hour)})), "for "},
		"older without name": {with(server, cert(newer)), with(server, cert(older)), "Static.Certificates[1]"},
		"name":               {with(cert(tlstest.Leaf{Names: []string{"a.test", "b.test"}})), with(cert(tlstest.Leaf{Names: []string{"b.test"}})), "no longer served: a.test"},
		"address":            {with(cert(tlstest.Leaf{Names: []string{"a.test", "192.0.2.1", "::2"}})), with(cert(tlstest.Leaf{Names: []string{"a.test", "::2"}})), "no longer served: 192.0.2.1"},
		"for servers only":   {with(cert(tlstest.Leaf{Usage: tlstest.ServerAndClient})), with(server), "lacks TLS clients"},
		"list renewed":       {lists(issuers, list(2*time.Hour)), lists(issuers, list(time.Hour)), ""},
		"list older":         {lists(issuers, list(time.Hour)), lists(issuers, list(2*time.Hour)), "issued before"},
		"list gone":          {lists(issuers, list(time.Hour)), lists(issuers), "no longer there"},
		"CA and list gone":   {lists(issuers, list(time.Hour)), lists(nil), ""},
	} {
		t.Run(name, func(t *testing.T) {
			source := &remembered{static: c.before}
			m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: source})
			events := collect(m)
			source.static = c.after
			require.NoError(t, m.Reload(t.Context()))
			certmanager.XEmit(m, certmanager.OrderFailed) // the last
			eventually(t, "all events", func() bool { return len(events(certmanager.OrderFailed)) == 1 })
			if c.says == "" {
				assert.Empty(t, events(certmanager.Warning))
				return
			}
			require.Len(t, events(certmanager.Warning), 1)
			assert.ErrorContains(t, events(certmanager.Warning)[0].Err, c.says)
		})
	}
}

// The list of a CA of a trust domain, or of a chain that is served, is missed as that of any other.
func TestListGone(t *testing.T) {
	root := tlstest.NewCA(t)
	between := root.Intermediate(t)
	for name, material := range map[string]*certmanager.Material{
		"trust domain": {TrustDomains: map[string][]*x509.Certificate{"example.test": {between.Certificate()}}, RootCAs: []*x509.Certificate{root.Certificate()}},
		"chain":        {Certificates: []certmanager.Certificate{{Certificate: between.Issue(t, tlstest.Leaf{}).Certificate(), Origin: "test"}}},
	} {
		t.Run(name, func(t *testing.T) {
			with := *material
			with.CRLs = []*x509.RevocationList{parseCRL(t, between.CRL(t))}
			source := &pushed{material: &with}
			m := newManager(t, certmanager.Options{Source: source, PollInterval: time.Hour})
			require.Len(t, m.Status().CRLs, 1)
			events := collect(m)
			source.put(material)
			require.NoError(t, m.Reload(t.Context()))
			require.Empty(t, m.Status().CRLs)
			eventually(t, "a warning", func() bool { return len(events(certmanager.Warning)) > 0 })
			assert.ErrorContains(t, events(certmanager.Warning)[0].Err, "is no longer there")
		})
	}
}
