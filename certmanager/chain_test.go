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

// alone is a certificate without what stands behind it.
func alone(pair *tlstest.Pair) tls.Certificate {
	cert := pair.Certificate()
	cert.Certificate = cert.Certificate[:1]
	return cert
}

// A chain that leads to none of the known roots is a warning where it may be that it should, and
// refused where it surely should and nothing else is there to serve.
func TestIncompleteChains(t *testing.T) {
	root, other := tlstest.NewCA(t), tlstest.NewCA(t)
	intermediate := root.Intermediate(t)
	issue := func(ca *tlstest.CA, name string) *tlstest.Pair {
		return ca.Issue(t, tlstest.Leaf{Names: []string{name}})
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(intermediate.Certificate())
	a, b := issue(intermediate, "a.test"), issue(intermediate, "b.test")
	ended := tlstest.Leaf{Names: []string{"spare.test"}}.Expired()
	spare := intermediate.Issue(t, ended).Certificate()
	client := other.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly})
	for name, c := range map[string]struct {
		certs             []tls.Certificate
		rootCAs, clientCA *x509.CertPool
		refused, doubted  string
	}{
		"whole":                                       {certs: []tls.Certificate{a.Certificate()}, rootCAs: root.Pool()},
		"its issuer stands behind another":            {certs: []tls.Certificate{a.Certificate(), alone(b)}, rootCAs: root.Pool(), doubted: "lacks the intermediate"},
		"whatever their order":                        {certs: []tls.Certificate{alone(a), b.Certificate()}, rootCAs: root.Pool(), doubted: "Static.Certificates[0]"},
		"and there is no other":                       {certs: []tls.Certificate{alone(a), alone(b), spare}, rootCAs: root.Pool(), refused: "lacks the intermediate"},
		"the same, roots unknown":                     {certs: []tls.Certificate{alone(a), b.Certificate()}, doubted: "lacks its issuer"},
		"its issuer is trusted itself":                {certs: []tls.Certificate{a.Certificate(), alone(b)}, rootCAs: trusted},
		"nothing known of its issuer":                 {certs: []tls.Certificate{alone(a)}, rootCAs: root.Pool(), doubted: "none of the CAs in RootCAs or ClientCAs"},
		"the same beside one that leads":              {certs: []tls.Certificate{issue(root, "c.test").Certificate(), alone(a)}, rootCAs: root.Pool(), doubted: "Static.Certificates[1]"},
		"roots unknown":                               {certs: []tls.Certificate{alone(a)}, doubted: "is not known: append it if it is an intermediate"},
		"the same, roots of clients known":            {certs: []tls.Certificate{alone(a)}, clientCA: other.Pool(), doubted: "is not known: append it if it is an intermediate"},
		"of the CA that clients are of, and no roots": {certs: []tls.Certificate{issue(other, "a.test").Certificate()}, clientCA: other.Pool()},
		"of the CA that clients are of":               {certs: []tls.Certificate{issue(other, "a.test").Certificate()}, rootCAs: root.Pool(), clientCA: other.Pool()},
		"for servers of another CA":                   {certs: []tls.Certificate{client.Certificate()}, rootCAs: root.Pool()},
		"of a CA that nobody knows":                   {certs: []tls.Certificate{issue(other, "a.test").Certificate()}, rootCAs: root.Pool(), doubted: "none of the CAs"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &logBuffer{}
			m, err := certmanager.New(certmanager.Options{Logger: log.logger(), Source: certmanager.Static{Certificates: c.certs, RootCAs: c.rootCAs, ClientCAs: c.clientCA}})
			if c.refused != "" {
				require.ErrorIs(t, err, certmanager.ErrUntrusted)
				require.ErrorContains(t, err, c.refused)
				return
			}
			require.NoError(t, err)
			require.NoError(t, m.Close())
			if c.doubted != "" {
				assert.Contains(t, log.String(), "reason=regressed")
				assert.Contains(t, log.String(), c.doubted)
			} else {
				assert.NotContains(t, log.String(), "level=WARN")
			}
		})
	}
}

// What led to the roots has to lead there, whatever the program sets in between, and one that never
// did may be renewed.
func TestRenewedChainLosesItsIntermediate(t *testing.T) {
	root, other := tlstest.NewCA(t), tlstest.NewCA(t)
	intermediate, next := root.Intermediate(t), root.Intermediate(t)
	foreign := func() tls.Certificate {
		return other.Issue(t, tlstest.Leaf{Names: []string{"other.test"}}).Certificate()
	}
	with := func(first tls.Certificate) certmanager.Static {
		return certmanager.Static{Certificates: []tls.Certificate{first, foreign()}, RootCAs: root.Pool()}
	}
	source := &remembered{static: with(intermediate.Issue(t, tlstest.Leaf{}).Certificate())}
	m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: source})
	events := collect(m)
	m.SetServerName("x")
	for _, cut := range []tls.Certificate{alone(intermediate.Issue(t, tlstest.Leaf{})), alone(next.Issue(t, tlstest.Leaf{}))} {
		source.static = with(cut)
		require.ErrorIs(t, m.Reload(t.Context()), certmanager.ErrUntrusted)
	}
	source.static = with(next.Issue(t, tlstest.Leaf{}).Certificate())
	require.NoError(t, m.Reload(t.Context()))
	certmanager.XEmit(m, certmanager.OrderFailed) // the last
	eventually(t, "all events", func() bool { return len(events(certmanager.OrderFailed)) == 1 })
	assert.Empty(t, events(certmanager.Warning), "the other was told of by New")
}
