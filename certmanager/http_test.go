package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// net/http works with the configs as they are, HTTP/2 included.
func TestNetHTTP(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
	}})
	for _, http2 := range []bool{false, true} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := &http.Server{TLSConfig: m.ServerTLS(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Proto+" "+r.TLS.PeerCertificates[0].Subject.CommonName)
		})}
		done := make(chan error, 1)
		go func() { done <- server.ServeTLS(listener, "", "") }()
		transport := &http.Transport{TLSClientConfig: m.ClientTLS(""), ForceAttemptHTTP2: http2}
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		response, err := (&http.Client{Transport: transport}).Get("https://localhost:" + port)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		want := "HTTP/1.1 localhost"
		if http2 {
			want = "HTTP/2.0 localhost"
		}
		assert.Equal(t, want, string(body))

		transport.CloseIdleConnections()
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}
}

// A hook is all that an HTTP server needs for its open connections to follow trust.
func TestHTTPConnectionsAreEvicted(t *testing.T) {
	for i, http2 := range []bool{false, true, false, true} {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
		}})
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := &http.Server{TLSConfig: m.ServerTLS(), ConnState: m.ConnState, ErrorLog: log.New(io.Discard, "", 0),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				<-r.Context().Done() // until the connection ends
			})}
		done := make(chan error, 1)
		if i >= 2 {
			listener = incomparable{listener}
		}
		go func() { done <- server.ServeTLS(listener, "", "") }()
		transport := &http.Transport{TLSClientConfig: m.ClientTLS("localhost"), ForceAttemptHTTP2: http2}
		response, err := (&http.Client{Transport: transport}).Get("https://" + listener.Addr().String())
		require.NoError(t, err)
		require.Equal(t, 1, m.Status().Connections)
		m.SetClientCAs(tlstest.NewCA(t).Pool())
		_, err = io.ReadAll(response.Body)
		require.Error(t, err, "the response is cut off")
		require.NoError(t, response.Body.Close())
		eventually(t, "the release", func() bool { return m.Status().Connections == 0 })
		assert.Equal(t, uint64(1), m.Status().Evicted)
		transport.CloseIdleConnections()
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}
}

// A handler can take a connection over, for a WebSocket for example. With NewListener it is still
// closed when its client is no longer trusted, and released when the handler closes it. With
// ConnState nobody would learn that it was closed: it is no longer tracked.
func TestHijackedConnections(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
	}})
	for _, byListener := range []bool{true, false} {
		hijacked := make(chan net.Conn, 1)
		server := &http.Server{ConnState: m.ConnState, TLSConfig: m.ServerTLS(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			assert.NoError(t, err)
			hijacked <- conn
		})}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			if byListener {
				done <- server.Serve(m.NewListener(listener, "http/1.1"))
			} else {
				done <- server.ServeTLS(listener, "", "")
			}
		}()
		dial := func() (client *tls.Conn, taken net.Conn) {
			client, err := tls.Dial("tcp", listener.Addr().String(), m.ClientTLS("localhost"))
			require.NoError(t, err)
			_, err = io.WriteString(client, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
			require.NoError(t, err)
			return client, <-hijacked
		}
		client, taken := dial()
		want := 0
		if byListener {
			want = 1
		}
		eventually(t, "the connection is tracked, or not", func() bool { return m.Status().Connections == want })
		require.NoError(t, taken.Close())
		require.NoError(t, client.Close())
		assert.Zero(t, m.Status().Connections, "it was closed")
		if byListener {
			client, taken = dial()
			m.SetClientCAs(tlstest.NewCA(t).Pool())
			_, err = client.Read(make([]byte, 1))
			require.Error(t, err, "its client is no longer trusted")
			_, err = taken.Read(make([]byte, 1))
			require.ErrorIs(t, err, net.ErrClosed)
			taken.Close()
			client.Close()
			m.SetClientCAs(ca.Pool())
		}
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}
}

// incomparable gives connections that are no key of a map.
type incomparable struct{ net.Listener }

func (l incomparable) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return struct {
		net.Conn
		sizes []int
	}{conn, nil}, err
}

// closing tells when it is closed.
type closing struct {
	net.Conn
	closed chan time.Time
}

func (c closing) Close() error {
	select {
	case c.closed <- time.Now():
	default:
	}
	return c.Conn.Close()
}

// A peer that reads nothing does not put off its end: tls.Conn.Close would wait 5 seconds for it
// to take the close_notify.
func TestEvictionDoesNotWaitForThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
		serverEnd, clientEnd := net.Pipe()
		below := closing{serverEnd, make(chan time.Time, 1)}
		config := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
		config.MaxVersion = tls.VersionTLS12 // whose server has nothing more to say after the handshake
		client, server := tls.Client(clientEnd, config), tls.Server(below, m.ServerTLS())
		done := make(chan error, 1)
		go func() { done <- client.Handshake() }()
		require.NoError(t, server.Handshake())
		require.NoError(t, <-done)
		m.ConnState(server, http.StateActive)
		m.ConnState(server, http.StateHijacked)
		assert.Zero(t, m.Status().Connections, "it is its new owner's")
		m.ConnState(server, http.StateActive)
		require.Equal(t, 1, m.Status().Connections)
		start := time.Now()
		m.SetClientCAs(tlstest.NewCA(t).Pool())
		assert.Less(t, (<-below.closed).Sub(start), time.Second)
		m.ConnState(server, http.StateClosed)
		assert.Zero(t, m.Status().Connections)
		clientEnd.Close()
	})
}

// An HTTP connection is as old as the set that was in service when it was accepted.
func TestRecycledHTTPConnection(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}}})
	server, peer := net.Pipe()
	below := closing{server, make(chan time.Time, 1)}
	conn := tls.Server(below, m.ServerTLS())
	m.ConnState(conn, http.StateNew)
	go tls.Client(peer, ca.ClientConfig(t, "localhost")).Handshake()
	require.NoError(t, conn.Handshake())
	m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
	m.ConnState(conn, http.StateActive)
	m.ConnState(conn, http.StateIdle)
	m.ConnState(conn, http.StateActive)
	assert.Equal(t, 1, m.Status().Connections)
	require.Equal(t, 1, m.Recycle(m.Status().Generation, 0))
	<-below.closed
	m.ConnState(conn, http.StateClosed)
	assert.Zero(t, m.Status().Connections)

	m.ConnState(conn, http.StateNew)
	m.ConnState(conn, http.StateClosed) // before a request
	assert.Zero(t, certmanager.XHTTPConnections(m), "something is kept")
	peer.Close()
}

// Who is refused is counted by why, also where net/http makes the handshakes.
func TestHTTPRefusalsByReason(t *testing.T) {
	for _, version := range versions {
		ca := tlstest.NewCA(t)
		eve := ca.Issue(t, tlstest.Leaf{CommonName: "eve"})
		revoked, err := x509.ParseCertificate(eve.Certificate().Certificate[0])
		require.NoError(t, err)
		m := newManager(t, certmanager.Options{
			Source: certmanager.Static{
				Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
				CRLs: []*x509.RevocationList{parseCRL(t, ca.CRL(t, revoked))}, CRLIssuers: []*x509.Certificate{ca.Certificate()},
			},
			ClientRule: certmanager.CommonName("alice", "eve", "old"),
		})
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := &http.Server{TLSConfig: m.ServerTLS(), ConnState: m.ConnState, ErrorLog: log.New(io.Discard, "", 0)}
		done := make(chan error, 1)
		go func() { done <- server.ServeTLS(listener, "", "") }()
		for _, client := range []*tlstest.Pair{
			ca.Issue(t, tlstest.Leaf{CommonName: "alice"}), eve, ca.Issue(t, tlstest.Leaf{CommonName: "bob"}),
			tlstest.NewCA(t).Issue(t, tlstest.Leaf{CommonName: "mallory"}),
		} {
			config := ca.ClientConfig(t, "localhost")
			cert := client.Certificate()
			config.MaxVersion = version
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
			if response, err := (&http.Client{Transport: transport}).Get("https://" + listener.Addr().String()); err == nil {
				response.Body.Close()
			}
		}
		want := map[string]uint64{certmanager.ErrRevoked.Error(): 1, certmanager.ErrNotAuthorized.Error(): 1, certmanager.ErrUntrusted.Error(): 1}
		eventually(t, "the refusals", func() bool { return m.Status().Refused == 3 })
		assert.Equal(t, want, m.Status().RefusedBy)
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}
}
