package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	xacme "golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/tlstest"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// When New returns, the certificates are there: several domains, both challenges.
func TestObtainBeforeNewReturns(t *testing.T) {
	for _, kind := range []string{"tls-alpn-01", "http-01"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			folder := t.TempDir()
			source := &acme.Source{Domains: []string{name, "API.example.test."}, Cache: autocert.DirCache(filepath.Join(folder, "acme"))}
			if kind == "http-01" {
				source.ListenHTTP = freeAddr(t)
				source.Listen = freeAddr(t)
				ca.HTTP01(source.ListenHTTP)
			}
			w := start(t, ca, source)
			if kind == "http-01" {
				require.NotContains(t, w.events.String(), "order-failed")
			}
			w.serve(t)
			for _, n := range []string{name, other, "WWW.EXAMPLE.TEST"} {
				require.NoError(t, w.mustDial(t, n).VerifyHostname(n))
			}
			assert.Equal(t, 1, ca.Accounts())
			status := w.Status()
			require.Len(t, status.ACME, 2)
			assert.Equal(t, other, status.ACME[0].Name)
			assert.True(t, status.ACME[0].Serving)
			assert.Len(t, w.events.of(certmanager.Issued), 2)

			info, err := os.Stat(filepath.Join(folder, "acme"))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
			info, err = os.Stat(entry(t, filepath.Join(folder, "acme"), name))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			entries, err := os.ReadDir(filepath.Join(folder, "acme"))
			require.NoError(t, err)
			assert.Len(t, entries, 3, "two certificates, the account, and no token is left: %v", entries)
		})
	}
}

// A challenge is answered where client certificates are required, in TLS 1.2 as in 1.3; it asks
// for none and issues no ticket.
func TestMutualTLS(t *testing.T) {
	for version, number := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			ca, clients := acmetest.Start(t), tlstest.NewCA(t)
			ca.Slow(100 * time.Millisecond) // the challenge stands for a while
			w := start(t, ca, &acme.Source{Domains: []string{name}, Background: true}, certmanager.Static{ClientCAs: clients.Pool()})
			w.serve(t)
			asked, tickets := false, tls.NewLRUClientSessionCache(1)
			w.eventually(t, "a challenge", func() bool {
				conn, err := tls.Dial("tcp", w.addr, &tls.Config{
					ServerName: name, InsecureSkipVerify: true, MinVersion: number, MaxVersion: number,
					NextProtos: []string{xacme.ALPNProto}, ClientSessionCache: tickets,
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
						asked = true
						return &tls.Certificate{}, nil
					},
				})
				if err != nil {
					return false
				}
				defer conn.Close()
				conn.Read(make([]byte, 5)) // tickets come after the handshake
				assert.Equal(t, xacme.ALPNProto, conn.ConnectionState().NegotiatedProtocol)
				assert.Equal(t, number, conn.ConnectionState().Version)
				return true
			})
			assert.False(t, asked)
			_, ok := tickets.Get(name)
			assert.False(t, ok, "no ticket")
			pair := clients.Issue(t, tlstest.Leaf{CommonName: "alice", Usage: tlstest.ClientOnly})
			w.eventually(t, "a certificate", func() bool { return w.Status().ACME[0].Serving })
			w.mustDial(t, name, func(c *tls.Config) { c.Certificates = []tls.Certificate{pair.Certificate()} })
			_, err := w.dial(t.Context(), name)
			require.Error(t, err, "without a client certificate")
		})
	}
}

// A server without ALPN goes on serving clients with ALPN.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}})
	w.serve(t)
	for _, protocols := range [][]string{nil, {"h2", "http/1.1"}, {"h2", xacme.ALPNProto}} {
		w.mustDial(t, name, func(c *tls.Config) { c.NextProtos = protocols })
	}
}

// net/http closes a connection that was a challenge before a handler sees it.
func TestNetHTTPDropsChallenges(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	ca.Slow(50 * time.Millisecond)
	w := start(t, ca, &acme.Source{Domains: []string{name}, Background: true})
	handled := make(chan string, 100)
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		handled <- r.TLS.NegotiatedProtocol
	})}
	listener, err := net.Listen("tcp", w.addr)
	require.NoError(t, err)
	var done sync.WaitGroup
	done.Go(func() { server.Serve(w.NewListener(listener, "h2", "http/1.1")) })
	defer done.Wait()
	defer server.Close()
	w.eventually(t, "a challenge", func() bool {
		conn, err := tls.Dial("tcp", w.addr, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{xacme.ALPNProto}})
		if err != nil {
			return false
		}
		defer conn.Close()
		conn.Write([]byte("GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n"))
		_, err = conn.Read(make([]byte, 1))
		assert.Error(t, err)
		return true
	})
	w.eventually(t, "a certificate", func() bool { return w.Status().ACME[0].Serving })
	assert.Empty(t, handled)
}

// Several sources, each with its names, in one manager.
func TestSeveralSources(t *testing.T) {
	t.Parallel()
	first, second := acmetest.Start(t), acmetest.Start(t)
	standIn, leaf := fallback(t)
	w := &world{ca: first, addr: freeAddr(t), events: &eventLog{}}
	sources := certmanager.Sources{standIn}
	for ca, domain := range map[*acmetest.Server]string{first: name, second: other} {
		ca.TLSALPN01(w.addr) // both come to the same port
		sources = append(sources, &acme.Source{
			Domains: []string{domain}, HostPolicy: autocert.HostWhitelist("later." + domain), HandshakeTimeout: 30 * time.Second,
			Directory: ca.Directory(), Roots: ca.Roots(), Cache: autocert.DirCache(t.TempDir()), Listen: w.addr,
		})
	}
	var err error
	w.Manager, err = certmanager.New(certmanager.Options{Source: sources, Logger: slog.New(w.events)})
	require.NoError(t, err, "%s", w.events)
	defer w.Close()
	w.serve(t)
	for ca, domain := range map[*acmetest.Server]string{first: name, second: other} {
		for _, host := range []string{domain, "later." + domain} {
			w.mustDial(t, host, func(c *tls.Config) { c.RootCAs = ca.Roots() })
			assert.Equal(t, 1, ca.Orders(host))
		}
		assert.Equal(t, 2, ca.Orders(), "none of the other's")
	}
	assert.True(t, leaf.Equal(w.mustDial(t, "fallback.example.test", unverified)))
	assert.Empty(t, w.events.of(certmanager.OrderFailed))
}

// The CA knows where to write to, and a restart makes no other account.
func TestEmail(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	folder := t.TempDir()
	for _, domain := range []string{name, other} {
		w := start(t, ca, &acme.Source{Domains: []string{domain}, Email: "tls@example.test", Cache: autocert.DirCache(folder)})
		require.NoError(t, w.Close())
	}
	block, _ := pem.Decode([]byte(readFile(t, entry(t, folder, "acme_account+key"))))
	key, err := x509.ParseECPrivateKey(block.Bytes)
	require.NoError(t, err)
	account, err := (&xacme.Client{Key: key, DirectoryURL: ca.Directory(), HTTPClient: ca.HTTPClient()}).GetReg(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, []string{"mailto:tls@example.test"}, account.Contact)
	assert.Equal(t, 1, ca.Accounts())
}

func TestExternalAccountAndBadNonces(t *testing.T) {
	t.Parallel()
	secret := []byte("0123456789abcdef0123456789abcdef")
	ca := acmetest.StartWith(t, acmetest.Options{ExternalAccounts: map[string][]byte{"kid": secret}})
	_, err := tryStart(t, ca, &acme.Source{Domains: []string{name}})
	require.ErrorContains(t, err, "acme.Source.ExternalAccount is not set")
	require.ErrorContains(t, err, "externalAccountRequired")
	_, err = tryStart(t, ca, &acme.Source{Domains: []string{name}, ExternalAccount: &acme.ExternalAccount{KeyID: "other", MACKey: "MDEyMzQ1"}})
	require.ErrorContains(t, err, "compare acme.Source.ExternalAccount with what the CA has issued")
	ca.RejectNonces(40)
	start(t, ca, &acme.Source{Domains: []string{name}, ExternalAccount: &acme.ExternalAccount{KeyID: "kid", MACKey: base64.RawURLEncoding.EncodeToString(secret)}})
	assert.Equal(t, 1, ca.Orders())
}

func TestKeyTypesAndProfiles(t *testing.T) {
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Profiles: map[string]time.Duration{"short": time.Hour, "long": 24 * time.Hour}})
	for key, algorithm := range map[acme.KeyType]x509.PublicKeyAlgorithm{
		acme.ECDSAP256: x509.ECDSA, acme.ECDSAP384: x509.ECDSA, acme.RSA2048: x509.RSA,
	} {
		w := start(t, ca, &acme.Source{Domains: []string{name}, Key: key, Profile: "short"})
		w.serve(t)
		leaf := w.mustDial(t, name)
		assert.Equal(t, algorithm, leaf.PublicKeyAlgorithm)
		assert.Equal(t, time.Hour, leaf.NotAfter.Sub(leaf.NotBefore)+time.Second)
	}
	orders := ca.Orders()
	_, err := tryStart(t, ca, &acme.Source{Domains: []string{name}, Profile: "none"})
	require.ErrorContains(t, err, `the CA has no "none", it has ["long" "short"]`)
	assert.NotContains(t, err.Error(), "StartTimeout", "it does not wait for what does not come")
	assert.Equal(t, orders, ca.Orders())
}
