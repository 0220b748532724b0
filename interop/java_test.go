package interop

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// Java on TLS 1.2 writes on after a server has refused it. From a server that closes at once it
// mostly hears of a broken pipe or a reset in place of the alert, as the row of the plain server in
// docs/interop.md shows. From ours it hears the alert, every time.
func TestJavaHearsTheAlert(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	needs.Program(t, "javac")
	ours, plain := subject{name: "Java, our server", role: "refused"}, subject{name: "Java, plain crypto/tls server", role: "refused"}
	plainPort := plainServer(t)
	for _, refusal := range refusals {
		t.Run(refusal.kind, func(t *testing.T) {
			server := listen(t, serverManager(t, true))
			told := javaHears(t, server.port, refusal.kind, refusal.client)
			assert.Equal(t, times, told)
			assert.Equal(t, fmt.Sprint(times), server.inspect()["handshake failures"])
			ours.add(refusal.kind, "1.2", fmt.Sprintf("%d of %d", told, times))
			if refusal.kind != "revoked" { // crypto/tls knows no revocation
				plain.add(refusal.kind, "1.2", fmt.Sprintf("%d of %d", javaHears(t, plainPort, refusal.kind, refusal.client), times))
			}
		})
	}
}

const times = 100

// javaHears lets Java be refused and gives how often it has heard the right alert.
func javaHears(t *testing.T, port uint16, kind, client string) (told int) {
	run := java(t, "client", session{port: port, tls: "1.2", client: client})
	run.env = append(run.env, fmt.Sprintf("CONNECTIONS=%d", times))
	complaints := errorText.FindAllStringSubmatch(run.start(t).finish(), -1)
	require.Len(t, complaints, times)
	for _, c := range complaints {
		if tells(c[1], kind, "1.2") {
			told++
		}
	}
	return told
}

// plainServer asks for client certificates and closes a connection when its handshake has ended.
func plainServer(t *testing.T) uint16 {
	pair, err := tls.LoadX509KeyPair(certs.file("server.crt"), certs.file("server.key"))
	require.NoError(t, err)
	root, err := os.ReadFile(certs.file("root.crt"))
	require.NoError(t, err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
	require.True(t, config.ClientCAs.AppendCertsFromPEM(root))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				tls.Server(conn, config).Handshake()
				conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}
