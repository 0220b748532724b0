package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Status is what an operator reads, as a value and as JSON.
func TestStatus(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{URIs: []string{"spiffe://example.test/web"}}).Files(t, dir, "tls")
	revoked := ca.Issue(t, tlstest.Leaf{})
	bundle, crl := write(t, dir, "ca.crt", ca.PEM()), write(t, dir, "crl.pem", ca.CRL(t, revoked.Leaf))
	m := newManager(t, certmanager.Options{
		Source:     certmanager.Files{Cert: cert, Key: key, ClientCAs: bundle, RootCAs: bundle, CRLs: crl},
		ClientRule: certmanager.DNSName("localhost"), TicketKeys: [][32]byte{{1}},
	})
	track(m, connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t).server)
	connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{Names: []string{"other.test"}})).refused(t)
	write(t, dir, "tls.crt", []byte("no PEM"))
	require.Error(t, m.Reload(t.Context()))

	text, err := json.Marshal(m.Status())
	require.NoError(t, err)
	var status certmanager.Status
	require.NoError(t, json.Unmarshal(text, &status))
	leaf := m.GetCertificate().Leaf
	assert.Equal(t, uint64(1), status.Generation)
	assert.WithinDuration(t, time.Now(), status.Published, time.Minute)
	require.Len(t, status.Certificates, 1)
	assert.Equal(t, cert, status.Certificates[0].Origin)
	assert.Equal(t, []string{"localhost", "127.0.0.1", "::1", "spiffe://example.test/web"}, status.Certificates[0].Names)
	assert.True(t, leaf.NotAfter.Equal(status.Certificates[0].NotAfter))
	assert.Equal(t, 1, status.Names)
	assert.Len(t, status.ClientCAs, 1)
	assert.Len(t, status.RootCAs, 1)
	require.Len(t, status.CRLs, 1)
	assert.Equal(t, 1, status.CRLs[0].Revoked)
	assert.Equal(t, tls.RequireAndVerifyClientCert.String(), status.ClientAuth)
	assert.Equal(t, "DNS name localhost", status.ClientRule)
	assert.Equal(t, "any peer", status.ServerRule)
	assert.Equal(t, uint64(1), status.Loads)
	assert.Equal(t, uint64(1), status.Rejections)
	assert.Contains(t, status.LastError, cert)
	assert.Equal(t, 1, status.Connections)
	assert.Equal(t, uint64(1), status.Refused)
	assert.NotContains(t, string(text), "PRIVATE")
}

// A client that crypto/tls refuses by itself is reported by whoever made the handshake.
func TestHandshakeFailed(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{
		ClientRule: certmanager.DNSName("localhost"),
		Source:     certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: other.Pool()},
	})
	events := collect(m)
	remote := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1}
	for _, version := range versions {
		unknown := ca.ClientConfig(t, "localhost")
		cert := other.Issue(t, tlstest.Leaf{CommonName: "other"}).Certificate()
		unknown.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		unknown.MaxVersion = version
		m.ReportRefused(connect(t, m.ServerTLS(), unknown).serverErr, remote)
	}
	eventually(t, "the reports", func() bool { return len(events(certmanager.PeerRefused)) == 2 })
	report := events(certmanager.PeerRefused)[0]
	assert.Equal(t, "CN=other", report.Peer.Subject)
	assert.Equal(t, "192.0.2.7:1", report.Peer.Remote)
	assert.ErrorIs(t, report.Err, certmanager.ErrUntrusted)

	// What was reported already, or is no refusal, is not reported again.
	m.ReportRefused(connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{Names: []string{"other.test"}})).serverErr, remote)
	m.ReportRefused(connect(t, m.ServerTLS(), m.ClientTLS("localhost")).clientErr, remote)
	m.ReportRefused(errors.New("EOF"), remote)
	m.ReportRefused(nil, remote)
	assert.Equal(t, uint64(4), m.Status().Refused)
}

func TestSubscribe(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	events := make(chan certmanager.Event, 10)
	cancel := m.Subscribe(func(e certmanager.Event) { events <- e })
	m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
	loaded := <-events
	assert.Equal(t, certmanager.Loaded, loaded.Kind)
	assert.Equal(t, m.GetCertificate().Leaf.Subject.String(), loaded.Certificate.Subject)
	text, err := json.Marshal(loaded)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"Kind":"loaded"`)
	cancel()
	m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
	require.NoError(t, m.Close())
	assert.Empty(t, events)
}

// Refused peers do not fill the log.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		pair := tlstest.NewCA(t).Issue(t, tlstest.Leaf{})
		refusal := &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{pair.Leaf}, Err: errors.New("unknown")}
		m := newManager(t, certmanager.Options{Source: leaf(pair), Logger: log.logger()})
		for range 3 {
			for range 1000 {
				m.ReportRefused(refusal, nil)
			}
			m.Update(tls.Certificate{})
			time.Sleep(time.Second)
		}
		assert.Equal(t, 30, strings.Count(log.String(), "event=peer-refused"))
		assert.Equal(t, 3, strings.Count(log.String(), "event=rejected"))
	})
}

// However many peers are refused, a subscriber hears of everything else.
func TestRefusalsDoNotKeepOtherEventsOut(t *testing.T) {
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{})
	refusal := &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{pair.Leaf}, Err: errors.New("unknown")}
	m := newManager(t, certmanager.Options{Source: leaf(pair)})
	busy, reached := make(chan struct{}), make(chan struct{}, 1)
	var others atomic.Int32
	m.Subscribe(func(e certmanager.Event) {
		select {
		case reached <- struct{}{}:
		default:
		}
		<-busy
		if e.Kind != certmanager.PeerRefused {
			others.Add(1)
		}
	})
	m.ReportRefused(refusal, nil)
	<-reached
	for range 2000 {
		m.ReportRefused(refusal, nil)
	}
	for range 100 {
		m.Update(tls.Certificate{})
	}
	assert.GreaterOrEqual(t, m.Status().DroppedEvents, uint64(1000))
	close(busy)
	eventually(t, "the others", func() bool { return others.Load() == 100 })
}

// Not only the default certificate's chain ends, and an issuer that many share is one.
func TestStatusOfIntermediates(t *testing.T) {
	ca := tlstest.NewCA(t)
	first, second := ca.Intermediate(t), ca.Intermediate(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{
		first.Issue(t, tlstest.Leaf{Names: []string{"a.test"}}).Certificate(),
		second.Issue(t, tlstest.Leaf{Names: []string{"b.test"}}).Certificate(),
		second.Issue(t, tlstest.Leaf{Names: []string{"c.test"}}).Certificate(),
	}}})
	var serials []string
	for _, issuer := range m.Status().Intermediates {
		serials = append(serials, issuer.Serial)
	}
	assert.Equal(t, []string{first.Certificate().SerialNumber.Text(16), second.Certificate().SerialNumber.Text(16)}, serials)
}
