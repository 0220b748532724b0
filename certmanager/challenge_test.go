package certmanager_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// answer makes what a challenge is answered with (RFC 8737 section 3), or what looks like it.
func answer(t *testing.T, name string, critical bool) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	value, err := asn1.Marshal(make([]byte, 32))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}, Critical: critical, Value: value}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// mutual makes a manager of a server that wants client certificates, with a source that answers
// every challenge.
func mutual(t *testing.T, ca *tlstest.CA, challenge *tls.Certificate) *certmanager.Manager {
	t.Helper()
	m, err := certmanager.New(certmanager.Options{
		Logger: slog.New(slog.DiscardHandler),
		Source: certmanager.Sources{
			certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool()},
			certmanager.Func(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return challenge, nil }),
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// servers are the ways to serve with a manager. Each calls touched where bytes of a client, or the
// client itself, reach the application.
var servers = map[string]func(t *testing.T, m *certmanager.Manager, touched func()) (addr string){
	"tls.Listen": func(t *testing.T, m *certmanager.Manager, touched func()) string {
		listener, err := tls.Listen("tcp", "127.0.0.1:0", m.ServerTLS())
		require.NoError(t, err)
		serveRaw(t, listener, touched, false)
		return listener.Addr().String()
	},
	"NewListener": func(t *testing.T, m *certmanager.Manager, touched func()) string {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listener := m.NewListener(inner)
		serveRaw(t, listener, touched, true)
		return inner.Addr().String()
	},
	"net/http": func(t *testing.T, m *certmanager.Manager, touched func()) string {
		return serveHTTP(t, m, nil, false, touched)
	},
	"net/http with ConnState": func(t *testing.T, m *certmanager.Manager, touched func()) string {
		return serveHTTP(t, m, m.ConnState, false, touched)
	},
	"net/http on NewListener": func(t *testing.T, m *certmanager.Manager, touched func()) string {
		return serveHTTP(t, m, nil, true, touched)
	},
}

// serveRaw reads a byte of every connection and sends it back.
func serveRaw(t *testing.T, listener net.Listener, touched func(), accepting bool) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if accepting {
				touched()
			}
			serving.Go(func() {
				defer conn.Close()
				if n, err := io.ReadFull(conn, make([]byte, 1)); n > 0 && err == nil {
					touched()
					conn.Write([]byte{1})
					io.Copy(io.Discard, conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
}

func serveHTTP(t *testing.T, m *certmanager.Manager, hook func(net.Conn, http.ConnState), wrap bool, touched func()) string {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{TLSConfig: m.ServerTLS(), ConnState: hook, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { touched() })}
	done := make(chan error, 1)
	go func() {
		if wrap {
			done <- server.Serve(m.NewListener(inner, "h2", "http/1.1"))
		} else {
			done <- server.ServeTLS(inner, "", "")
		}
	}()
	t.Cleanup(func() {
		server.Close()
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	})
	return inner.Addr().String()
}

// talk makes a handshake, sends a request, and says how the connection ended.
func talk(t *testing.T, addr string, config *tls.Config) (state tls.ConnectionState, ended error) {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	conn := tls.Client(raw, config)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if err := conn.Handshake(); err != nil {
		return state, err
	}
	conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	_, err = io.ReadFull(conn, make([]byte, 1))
	return conn.ConnectionState(), err
}

// Whoever offers the protocol of a CA's validation, which asks for no client certificate, reaches
// no application: not on servers that do not know of it, and not on those that answer it.
func TestChallengeReachesNoApplication(t *testing.T) {
	ca := tlstest.NewCA(t)
	for name, serve := range servers {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				var touched atomic.Int32
				addr := serve(t, mutual(t, ca, answer(t, "localhost", true)), func() { touched.Add(1) })
				config := &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true, ServerName: "localhost",
					NextProtos: []string{"acme-tls/1"}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
				for range 3 { // the later ones with a ticket, if there was one
					state, err := talk(t, addr, config)
					require.Error(t, err)
					if name == "NewListener" || name == "net/http on NewListener" {
						assert.Equal(t, "acme-tls/1", state.NegotiatedProtocol, "a CA has its answer")
						assert.ErrorIs(t, err, io.EOF, "and no more")
					} else {
						assert.NotEqual(t, "acme-tls/1", state.NegotiatedProtocol)
					}
				}
				assert.Zero(t, touched.Load())
				// With another protocol beside it a client is one like all others.
				config.NextProtos = []string{"acme-tls/1", "http/1.1"}
				_, err := talk(t, addr, config)
				require.Error(t, err)
				assert.Zero(t, touched.Load())
				config.Certificates = []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}
				_, err = talk(t, addr, config)
				require.NoError(t, err)
				assert.NotZero(t, touched.Load())
			})
		}
	}
}

// What has not the extension of an answer, critical as it must be, is a server's certificate and no
// answer.
func TestChallengeAnswerIsChecked(t *testing.T) {
	ca := tlstest.NewCA(t)
	server := ca.Issue(t, tlstest.Leaf{}).Certificate()
	for name, challenge := range map[string]*tls.Certificate{
		"a server's certificate": &server,
		"not critical":           answer(t, "localhost", false),
		"garbage":                {Certificate: [][]byte{{1, 2, 3}}},
		"empty":                  {},
		"none":                   nil,
	} {
		t.Run(name, func(t *testing.T) {
			m := mutual(t, ca, challenge)
			addr := servers["NewListener"](t, m, func() { t.Error("accepted") })
			_, err := talk(t, addr, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"acme-tls/1"}})
			require.ErrorContains(t, err, "unrecognized name")
		})
	}
}

// Where no source answers challenges the protocol means nothing.
func TestChallengeWithoutSource(t *testing.T) {
	ca := tlstest.NewCA(t)
	m, err := certmanager.New(certmanager.Options{Logger: slog.New(slog.DiscardHandler), Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
	}})
	require.NoError(t, err)
	defer m.Close()
	addr := servers["tls.Listen"](t, m, func() { t.Error("reached") })
	_, err = talk(t, addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: []string{"acme-tls/1"}})
	require.ErrorContains(t, err, "certificate required")
}

// Nobody is accepted who has not completed his handshake, the manager ends who is accepted, and
// Close ends the rest.
func TestNewListener(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	m := mutual(t, ca, nil)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	listener := m.NewListener(inner, "h2", "http/1.1")
	silent, err := net.Dial("tcp", inner.Addr().String())
	require.NoError(t, err)
	defer silent.Close()
	_, err = talk(t, inner.Addr().String(), other.MutualClientConfig(t, "localhost", tlstest.Leaf{}))
	require.Error(t, err)

	config := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: "alice"})
	config.NextProtos = []string{"h2"}
	client, err := tls.Dial("tcp", inner.Addr().String(), config)
	require.NoError(t, err)
	defer client.Close()
	conn, err := listener.Accept()
	require.NoError(t, err)
	state := conn.(*tls.Conn).ConnectionState()
	assert.True(t, state.HandshakeComplete)
	assert.Equal(t, "h2", state.NegotiatedProtocol)
	assert.Equal(t, "alice", state.PeerCertificates[0].Subject.CommonName)
	assert.Equal(t, 1, m.Status().Connections)

	m.SetClientCAs(other.Pool())
	_, err = client.Read(make([]byte, 1))
	require.Error(t, err, "it is closed, since its CA was replaced")
	conn.Close() // what is below is closed already
	assert.Zero(t, m.Status().Connections)
	assert.EqualValues(t, 1, m.Status().Evicted)

	require.NoError(t, listener.Close())
	_, err = listener.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	silent.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err = silent.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF)
}

// A connection of an http.Server that has said nothing yet is known as well, and a client that is
// refused is counted.
func TestConnStateKnowsIdleConnections(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, protocol := range []string{"http/1.1", "h2"} {
			t.Run(tls.VersionName(version)+" "+protocol, func(t *testing.T) {
				m := mutual(t, ca, nil)
				addr := servers["net/http with ConnState"](t, m, func() { t.Error("the handler of a removed client runs") })
				config := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
				config.MinVersion, config.MaxVersion, config.NextProtos = version, version, []string{protocol}
				client, err := tls.Dial("tcp", addr, config)
				require.NoError(t, err)
				defer client.Close()
				require.Eventually(t, func() bool { return m.Status().Connections == 1 }, 30*time.Second, time.Millisecond)
				m.SetClientCAs(other.Pool())
				client.SetReadDeadline(time.Now().Add(30 * time.Second))
				_, err = io.Copy(io.Discard, client)
				require.False(t, errors.Is(err, net.ErrClosed))
				require.Eventually(t, func() bool { return m.Status().Connections == 0 }, 30*time.Second, time.Millisecond)
				assert.EqualValues(t, 1, m.Status().Evicted)

				refused := m.Status().Refused
				_, err = talk(t, addr, config)
				require.Error(t, err)
				require.Eventually(t, func() bool { return m.Status().Refused == refused+1 }, 30*time.Second, time.Millisecond, "of a removed CA")
			})
		}
	}
}
