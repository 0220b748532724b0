package interop

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
)

// restarted are the servers that are ended and started again under our client, and behind which it
// sends a PROXY header.
var restarted = []string{"openssl s_server", "nginx", "HAProxy", "stunnel"}

// restarts ends the server under a client with the option Reconnect: the client hears of it, what
// it sends meanwhile comes back, and it talks to the server that is started on the same port.
func (s server) restarts(t *testing.T, who subject, tls string) {
	if !slices.Contains(restarted, s.name) {
		return
	}
	passed := t.Run("reconnect", func(t *testing.T) {
		session := session{port: needs.Port(t), tls: tls}
		p := s.start(t, session)
		o := spawn(t, false)
		id := dialAgain(o, meta.TCPConnectionOptions{Port: session.port, CertManager: clientManager(t, "root.crt", "")})
		for range 3 {
			assert.Equal(t, "TLS "+tls, until[meta.MessageTCPConnect](o).Peer.Version)
			p.kill()
			ended := until[meta.MessageTCPDisconnect](o)
			assert.False(t, ended.Retry.IsZero(), "%v", ended.Reason)
			o.do(func() { o.SendAlias(id, meta.MessageTCP{Data: []byte("nobody hears this")}) })
			assert.Equal(t, "nobody hears this", string(until[meta.MessageTCPUnsent](o).Data))
			p = s.start(t, session)
		}
		until[meta.MessageTCPConnect](o)
		o.ask(id, cmp.Or(s.ask, "hello\n"), s.answer)
	})
	if passed {
		who.add("reconnect", tls, "yes")
	}
}

func dialAgain(o *owner, options meta.TCPConnectionOptions) (id gen.Alias) {
	o.t.Helper()
	options.Host, options.ServerName = "127.0.0.1", "localhost"
	options.Reconnect = &meta.Reconnect{MinInterval: 10 * time.Millisecond, MaxInterval: 50 * time.Millisecond}
	connection, err := meta.CreateTCPConnection(options)
	require.NoError(o.t, err)
	o.do(func() { id, err = o.SpawnMeta(connection, gen.MetaOptions{}) })
	require.NoError(o.t, err)
	return id
}

// until takes messages up to a T.
func until[T any](o *owner) T {
	o.t.Helper()
	for {
		if m, ok := o.next().(T); ok {
			return m
		}
	}
}

// ask sends a request, and wants the answer in what comes back.
func (o *owner) ask(id gen.Alias, request, answer string) {
	o.t.Helper()
	o.do(func() { o.SendAlias(id, meta.MessageTCP{Data: []byte(request)}) })
	var got strings.Builder
	for !strings.Contains(got.String(), answer) {
		m, ok := o.next().(meta.MessageTCP)
		require.True(o.t, ok, "it ended after %q", got.String())
		got.Write(m.Data)
	}
}

// Servers that expect a PROXY header take ours, over TLS.
func TestProxyHeader(t *testing.T) {
	const client, authority = "192.0.2.7:4711", "www.example.test"
	header := &meta.ProxyHeader{
		Source:      &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711},
		Destination: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443},
		Authority:   authority, ALPN: "h2", UniqueID: []byte("one"),
	}
	for _, test := range []struct {
		name, binary, answer string
		start                func(t *testing.T, s session) *program
	}{
		{"nginx", "nginx", client, func(t *testing.T, s session) *program {
			return nginx(t, fmt.Sprintf(`server { listen %s ssl proxy_protocol; ssl_protocols TLSv%s; ssl_certificate %s; ssl_certificate_key %s;
				location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port\n"; } }`, s.address(), s.tls, certs.file("server.crt"), certs.file("server.key")))
		}},
		{"HAProxy", "haproxy", client + " " + authority + " one", func(t *testing.T, s session) *program {
			return haproxy(t, fmt.Sprintf(`frontend server
	mode http
	bind %s accept-proxy ssl crt server.pem ssl-min-ver TLSv%s ssl-max-ver TLSv%[2]s
	http-request return status 200 content-type text/plain lf-string "%%[src]:%%[src_port] %%[fc_pp_authority] %%[fc_pp_unique_id]"
`, s.address(), s.tls))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			who := subject{name: test.name, role: "server"}
			needs.Program(t, test.binary)
			for _, tls := range versions {
				if t.Run("TLS "+tls, func(t *testing.T) {
					s := session{port: needs.Port(t), tls: tls}
					test.start(t, s)
					o := spawn(t, false)
					id := dialAgain(o, meta.TCPConnectionOptions{Port: s.port, CertManager: clientManager(t, "root.crt", ""), Proxy: header})
					until[meta.MessageTCPConnect](o)
					o.ask(id, askHTTP, test.answer)
				}) {
					who.add("PROXY header", tls, "yes")
				}
			}
		})
	}
}

// HAProxy, which ends TLS in front of our server, says in its header who the client is.
func TestProxyHeaderOfHAProxy(t *testing.T) {
	needs.Program(t, "haproxy")
	s := spawn(t, true)
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	require.NoError(t, err)
	s.do(func() { _, err = s.SpawnMeta(server, gen.MetaOptions{}) })
	require.NoError(t, err)
	port := needs.Port(t)
	p := haproxy(t, fmt.Sprintf(`listen proxy
	mode tcp
	bind 127.0.0.1:%d ssl crt server.pem ca-file root.crt verify optional crt-ignore-err all ca-ignore-err all
	server s %s send-proxy-v2-ssl-cn
`, port, meta.Stats(server).Listen))
	dial(t, p, port).Close() // it listens
	for client, want := range map[string]meta.ProxyTLS{
		"":         {Version: "TLSv1.3"},
		"client":   {Version: "TLSv1.3", Verified: true, CommonName: "client"},
		"expired":  {Version: "TLSv1.3", CommonName: "expired"},
		"stranger": {Version: "TLSv1.3", CommonName: "stranger"},
	} {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), clientManager(t, "root.crt", client).client)
		require.NoError(t, err, client)
		connect := until[meta.MessageTCPConnect](s)
		require.NotNil(t, connect.Peer.Proxy.TLS, client)
		assert.Equal(t, want, *connect.Peer.Proxy.TLS, client)
		assert.Equal(t, conn.LocalAddr().String(), connect.RemoteAddr.String())
		conn.Close()
	}
}
