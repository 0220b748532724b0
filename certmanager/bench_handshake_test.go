package certmanager_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// BenchmarkHandshake is both ends of a connection in one process: of plain crypto/tls, and with the
// manager at the server, which tracks the connection as meta does. Run it with -cpu 1.
func BenchmarkHandshake(b *testing.B) {
	ca := tlstest.NewCA(b)
	served := ca.Issue(b, tlstest.Leaf{}).Certificate()
	for _, mutual := range []bool{false, true} {
		source := certmanager.Static{Certificates: []tls.Certificate{served}}
		plain := &tls.Config{Certificates: []tls.Certificate{served}}
		if mutual {
			source.ClientCAs = ca.Pool()
			plain.ClientAuth, plain.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
		}
		m := newManager(b, certmanager.Options{Source: source})
		for _, resumed := range []bool{false, true} {
			for _, way := range []string{"raw", "manager"} {
				b.Run(fmt.Sprintf("mutual=%t/resumed=%t/%s", mutual, resumed, way), func(b *testing.B) {
					client := ca.ClientConfig(b, "localhost")
					if mutual {
						client = ca.MutualClientConfig(b, "localhost", tlstest.Leaf{})
					}
					if resumed {
						client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
					}
					var tracker *certmanager.Manager
					config := plain
					if way == "manager" {
						tracker, config = m, m.ServerTLS()
					}
					shakeHands(b, tracker, config, client)
					b.ReportAllocs()
					for b.Loop() {
						if shakeHands(b, tracker, config, client) != resumed {
							b.Fatal("resumed or not, and not as wanted")
						}
					}
				})
			}
		}
	}
}

// shakeHands makes one over a pipe and has the client read its ticket.
func shakeHands(b *testing.B, m *certmanager.Manager, config, client *tls.Config) (resumed bool) {
	serverPipe, clientPipe := net.Pipe()
	serverEnd, clientEnd := buffer(serverPipe), buffer(clientPipe)
	defer clientEnd.Close()
	done := make(chan error, 1)
	go func() {
		conn := tls.Client(clientEnd, client)
		_, err := conn.Read(make([]byte, 1))
		done <- err
	}()
	conn := tls.Server(serverEnd, config)
	if m == nil {
		require.NoError(b, conn.HandshakeContext(context.Background()))
	} else {
		track := m.Accepting()
		require.NoError(b, m.ServerHandshake(context.Background(), conn))
		state := conn.ConnectionState()
		defer track(&state, nil, nil)()
	}
	_, err := conn.Write([]byte{1})
	require.NoError(b, err)
	require.NoError(b, <-done)
	serverEnd.Close()
	return conn.ConnectionState().DidResume
}
