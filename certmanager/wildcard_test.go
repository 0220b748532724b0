package certmanager_test

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A name whose own certificate has ended is served by a wildcard that is valid, and by its own
// where there is none.
func TestWildcardForAnEndedCertificate(t *testing.T) {
	ca := tlstest.NewCA(t)
	ended := tlstest.Leaf{Names: []string{"a.example.test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	own := ca.Issue(t, ended).Certificate()
	wild, good := ca.Issue(t, tlstest.Leaf{Names: []string{"*.example.test"}}).Certificate(), ca.Issue(t, tlstest.Leaf{Names: []string{"a.example.test"}}).Certificate()
	other := ca.Issue(t, tlstest.Leaf{Names: []string{"other.test"}}).Certificate()
	for name, test := range map[string]struct {
		certs []tls.Certificate
		want  tls.Certificate
	}{
		"beside a wildcard":        {[]tls.Certificate{own, wild}, wild},
		"behind a wildcard":        {[]tls.Certificate{wild, own}, wild},
		"alone":                    {[]tls.Certificate{other, own}, own},
		"its own holds":            {[]tls.Certificate{wild, good}, good},
		"its own is renewed":       {[]tls.Certificate{own, good, wild}, good},
		"in capitals, with a dot.": {[]tls.Certificate{own, wild}, wild},
	} {
		t.Run(name, func(t *testing.T) {
			m := manager(t, certmanager.Static{Certificates: test.certs}, certmanager.Rule{})
			sni := "a.example.test"
			if name == "in capitals, with a dot." {
				sni = "A.Example.TEST"
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				state, _, err := meet(t, m.ServerTLS(), &tls.Config{InsecureSkipVerify: true, ServerName: sni, MinVersion: version, MaxVersion: version})
				require.NoError(t, err)
				assert.Equal(t, test.want.Certificate[0], state.PeerCertificates[0].Raw)
			}
		})
	}
}
