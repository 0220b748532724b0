package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"ergo.services/ergo"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// As many first handshakes as a server of package meta makes at a time wait for a certificate, and
// the challenge enters all the same.
func TestFirstHandshakesOfActors(t *testing.T) {
	for _, clients := range []int{4, 50} {
		t.Run(fmt.Sprint(clients), func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name), HandshakeTimeout: 20 * time.Second})
			listener, err := net.Listen("tcp", w.addr)
			require.NoError(t, err)
			server, err := meta.CreateTCPServer(meta.TCPServerOptions{Listener: listener, CertManager: w.Manager})
			require.NoError(t, err)
			node, err := ergo.StartNode(gen.Atom(fmt.Sprintf("first%d@localhost", clients)), gen.NodeOptions{Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled}})
			require.NoError(t, err)
			defer node.Stop()
			actor := &listenerActor{server: server, connect: make(chan meta.MessageTCPConnect, 100), gone: make(chan meta.MessageTCPDisconnect, 100)}
			_, err = node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{})
			require.NoError(t, err)
			errs := make(chan error, clients)
			for range clients {
				go func() {
					conn, err := (&tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: ca.Roots()}}).DialContext(t.Context(), "tcp", w.addr)
					if err == nil {
						err = conn.Close()
					}
					errs <- err
				}()
			}
			for range clients {
				require.NoError(t, <-errs)
			}
			assert.Equal(t, 1, ca.Orders())
		})
	}
}
