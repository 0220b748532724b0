package certmanager_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A refused client is counted and reported once, with its address, by whatever server it was
// refused: by a rule, or because its CA is unknown, it has expired, is not valid yet or showed no
// certificate, which crypto/tls says without asking anyone.
func TestRefusedClientsHaveAnAddress(t *testing.T) {
	ca, unknown := tlstest.NewCA(t), tlstest.NewCA(t)
	servers := map[string]func(m *certmanager.Manager, l net.Listener) error{
		"net/http": func(m *certmanager.Manager, l net.Listener) error {
			server := &http.Server{TLSConfig: m.ServerTLS(), ConnState: m.ConnState, ErrorLog: log.New(io.Discard, "", 0)}
			return server.ServeTLS(l, "", "")
		},
		"net/http on NewListener": func(m *certmanager.Manager, l net.Listener) error {
			return (&http.Server{}).Serve(m.NewListener(l, "h2", "http/1.1"))
		},
		"tls.NewListener": func(m *certmanager.Manager, l net.Listener) error {
			listener := tls.NewListener(l, m.ServerTLS())
			for {
				conn, err := listener.Accept()
				if err != nil {
					return err
				}
				if err := conn.(*tls.Conn).Handshake(); err != nil {
					m.ReportRefused(err, conn.RemoteAddr())
				}
				conn.Close()
			}
		},
	}
	clients := map[string]struct {
		config func() *tls.Config
		why    error
	}{
		"rule":           {func() *tls.Config { return ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: "mallory"}) }, certmanager.ErrNotAuthorized},
		"no certificate": {func() *tls.Config { return ca.ClientConfig(t, "localhost") }, certmanager.ErrUntrusted},
		"unknown CA": {func() *tls.Config {
			config, cert := ca.ClientConfig(t, "localhost"), unknown.Issue(t, tlstest.Leaf{CommonName: "mallory"}).Certificate()
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			return config
		}, certmanager.ErrUntrusted},
		"expired": {func() *tls.Config {
			return ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: "alice"}.Expired())
		}, certmanager.ErrExpired},
		"not yet valid": {func() *tls.Config {
			return ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: "alice"}.NotYetValid())
		}, certmanager.ErrNotYetValid},
	}
	for name, serve := range servers {
		for kind, client := range clients {
			for _, version := range versions {
				t.Run(name+"/"+kind+"/"+tls.VersionName(version), func(t *testing.T) {
					m := newManager(t, certmanager.Options{ClientRule: certmanager.CommonName("alice"), Source: certmanager.Static{
						Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
					}})
					events := collect(m)
					listener, err := net.Listen("tcp", "127.0.0.1:0")
					require.NoError(t, err)
					done := make(chan error, 1)
					go func() { done <- serve(m, listener) }()

					config := client.config()
					config.MaxVersion = version
					raw, err := net.Dial("tcp", listener.Addr().String())
					require.NoError(t, err)
					conn := tls.Client(raw, config)
					if err = conn.Handshake(); err == nil {
						_, err = conn.Read(make([]byte, 1))
					}
					require.Error(t, err)
					eventually(t, "the event", func() bool { return len(events(certmanager.PeerRefused)) > 0 })
					raw.Close()
					listener.Close()
					<-done
					event := events(certmanager.PeerRefused)[0]
					assert.ErrorIs(t, event.Err, client.why)
					assert.Equal(t, raw.LocalAddr().String(), event.Peer.Remote)
					status := m.Status()
					assert.Equal(t, uint64(1), status.Refused)
					var wanted uint64
					for _, n := range status.RefusedBy {
						wanted += n
					}
					assert.Equal(t, uint64(1), wanted)
					assert.Equal(t, uint64(1), status.RefusedBy[client.why.Error()])
				})
			}
		}
	}
}

// Other errors of a handshake are no refusals.
func TestReportRefusedOfOthers(t *testing.T) {
	m := newManager(t, certmanager.Options{Source: leaf(tlstest.NewCA(t).Issue(t, tlstest.Leaf{}))})
	for _, err := range []error{nil, io.EOF, errors.New("tls: first record does not look like a TLS handshake")} {
		m.ReportRefused(err, nil)
	}
	assert.Zero(t, m.Status().Refused)
}
