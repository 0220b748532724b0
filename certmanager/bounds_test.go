package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A certificate with thousands of names costs an event, a log line and an error text no more than a
// kilobyte or two, on both sides and whoever refuses it.
func TestPeersNamesAreBounded(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("host-%d.example.test", i)
	}
	own := ca.Issue(t, tlstest.Leaf{}).Certificate()
	for name, test := range map[string]struct {
		issuer *tlstest.CA
		reason error
	}{
		"not authorized": {ca, certmanager.ErrNotAuthorized},
		"another CA":     {other, certmanager.ErrUntrusted},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			m, err := certmanager.New(certmanager.Options{
				Logger: slog.New(slog.NewTextHandler(&log, nil)), ClientRule: certmanager.DNSName("nobody.test"), ServerRule: certmanager.DNSName("nobody.test"),
				Source: certmanager.Static{Certificates: []tls.Certificate{own}, ClientCAs: ca.Pool(), RootCAs: ca.Pool()},
			})
			require.NoError(t, err)
			defer m.Close()
			events := make(chan certmanager.Event, 10)
			m.Subscribe(func(e certmanager.Event) {
				if e.Kind == certmanager.PeerRefused {
					events <- e
				}
			})
			many := test.issuer.Issue(t, tlstest.Leaf{CommonName: strings.Repeat("x", 60), Names: names})
			shown := many.Certificate()
			theirs := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{shown},
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }} // whatever CAs are asked for
			before := len(log.String())
			_, serverErr, _ := meet(t, m.ServerTLS(), theirs)
			m.ReportRefused(serverErr, nil)
			_, _, clientErr := meet(t, theirs, m.ClientTLS("localhost"))
			require.Error(t, clientErr)
			for range 2 {
				var e certmanager.Event
				select {
				case e = <-events:
				case <-time.After(30 * time.Second):
					t.Fatalf("no event; the server: %v, the client: %v", serverErr, clientErr)
				}
				text, err := json.Marshal(e)
				require.NoError(t, err)
				assert.Less(t, len(text), 4<<10)
				assert.LessOrEqual(t, len(e.Peer.Names), 21)
				assert.Equal(t, "and 980 more", e.Peer.Names[20])
				require.True(t, errorIsOneOf(e.Err, test.reason, certmanager.ErrUntrusted), "%v", e.Err)
				var holds *tls.CertificateVerificationError
				assert.NotErrorAs(t, e.Err, &holds, "it would keep the certificate")
			}
			assert.Less(t, len(log.String())-before, 8<<10)
		})
	}
}

func errorIsOneOf(err error, reasons ...error) bool {
	for _, reason := range reasons {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// To name a peer takes no time that grows with the square of its name: a certificate with thousands
// of units from a CA with as many fits a handshake, and costs whoever sends it nothing.
func TestPeerWithManyUnits(t *testing.T) {
	ca := tlstest.NewCA(t)
	other := tlstest.NewCA(t, func(template *x509.Certificate) {
		for i := range 6000 {
			template.Subject.OrganizationalUnit = append(template.Subject.OrganizationalUnit, fmt.Sprint(i))
		}
	})
	m := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
	}})
	events := collect(m)
	shown := other.Issue(t, tlstest.Leaf{}).Certificate()
	for _, version := range versions {
		theirs := &tls.Config{MaxVersion: version, InsecureSkipVerify: true, Certificates: []tls.Certificate{shown},
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, serverErr, _ := meet(t, m.ServerTLS(), theirs)
		m.ReportRefused(serverErr, nil)
		_, _, clientErr := meet(t, theirs, m.ClientTLS("localhost"))
		runtime.ReadMemStats(&after)
		require.Error(t, clientErr)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), tls.VersionName(version))
	}
	eventually(t, "the events", func() bool { return len(events(certmanager.PeerRefused)) == 2*len(versions) })
	assert.Regexp(t, "OU=0.OU=1.*…$", events(certmanager.PeerRefused)[0].Peer.Issuer)
}
