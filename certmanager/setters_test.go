package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A setter costs what it changes: with a list of 20,000 entries and 1,000 names as much as without.
func TestSettersCost(t *testing.T) {
	ca := tlstest.NewCA(t)
	var revoked []*x509.Certificate
	for i := range 20_000 {
		revoked = append(revoked, &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), RawIssuer: ca.Certificate().RawSubject})
	}
	list := parseCRL(t, ca.CRL(t, revoked...))
	names := []string{"localhost"}
	for i := range 1000 {
		names = append(names, fmt.Sprintf("%d.example.test", i))
	}
	m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{Names: names}).Certificate()}, ClientCAs: ca.Pool(),
		CRLs: []*x509.RevocationList{list}, CRLIssuers: []*x509.Certificate{ca.Certificate()},
	}})
	require.Equal(t, 20_000, m.Status().CRLs[0].Revoked)
	pool, rule := ca.Pool(), certmanager.DNSName("localhost")
	for name, set := range map[string]func(i int){
		"SetServerName": func(i int) { m.SetServerName(fmt.Sprint(i)) },
		"SetClientRule": func(int) { m.SetClientRule(rule) },
		"SetClientCAs":  func(int) { m.SetClientCAs(pool) },
		"SetRootCAs":    func(int) { m.SetRootCAs(pool) },
		"SetClientAuth": func(int) { m.SetClientAuth(tls.VerifyClientCertIfGiven) },
	} {
		i := 0
		allocs := testing.AllocsPerRun(50, func() {
			i++
			set(i)
		})
		assert.Less(t, allocs, 300.0, name)
	}
	c := connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{}))
	require.NoError(t, c.serverErr, "who is not on the list")
}

// CAs of the source in whose place the program has set others are not in service.
func TestStatusOfReplacedCAs(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	m := newManager(t, certmanager.Options{Source: certmanager.Files{ClientCAs: write(t, dir, "clients", ca.PEM()), RootCAs: write(t, dir, "roots", ca.PEM())}})
	for _, c := range []struct {
		clients, roots *x509.CertPool
		want           [2]int
	}{{nil, nil, [2]int{1, 1}}, {ca.Pool(), nil, [2]int{0, 1}}, {nil, ca.Pool(), [2]int{1, 0}}} {
		m.SetClientCAs(c.clients)
		m.SetRootCAs(c.roots)
		status := m.Status()
		assert.Equal(t, c.want, [2]int{len(status.ClientCAs), len(status.RootCAs)})
	}
}
