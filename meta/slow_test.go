package meta

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/tlstest"
)

// Who takes long for one message is neither idle nor a slow consumer, as long as it takes some of
// it.
func TestSlowIsNotIdle(t *testing.T) {
	ca := tlstest.NewCA(t)
	client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
	server := ca.ServerConfig(t)
	now := time.Now() // in a bubble it is the year 2000
	client.Time, server.Time = func() time.Time { return now }, func() time.Time { return now }
	mutual := server.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	oldest := server.Clone()
	oldest.MaxVersion = tls.VersionTLS12
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS 1.2": oldest, "TLS 1.3": server, "mTLS": mutual} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testSlowIsNotIdle(t, client, config) })
		})
	}
}

func testSlowIsNotIdle(t *testing.T, client, server *tls.Config) {
	const size, step = 1 << 20, 16 << 10
	near, far := net.Pipe()
	defer far.Close()
	options := TCPConnectionOptions{Port: 1, IdleTimeout: time.Second, WriteTimeout: time.Second}
	if server != nil {
		options.CertManager = gen.CreateCertManager(tls.Certificate{})
	}
	require.NoError(t, options.parse())
	process := &teller{}
	c := newConnection(&options, nil, newSocket(near), nil)
	c.clientTLS = client
	require.NoError(t, c.Init(process))
	go c.Start()
	var peer io.Reader = far
	if server != nil {
		secure := tls.Server(far, server)
		require.NoError(t, secure.Handshake())
		peer = secure
	}
	synctest.Wait()
	since := time.Now()
	require.NoError(t, c.HandleMessage(gen.PID{}, MessageTCP{Data: make([]byte, size)}))
	for range size / step {
		time.Sleep(100 * time.Millisecond)
		_, err := io.CopyN(io.Discard, peer, step)
		require.NoError(t, err)
		require.Nil(t, c.view().reason, "after %s", time.Since(since))
	}
	assert.Greater(t, time.Since(since), 6*time.Second)
	go io.Copy(io.Discard, peer)
	awaitOver(c)
	disconnect := process.sent[len(process.sent)-1].(MessageTCPDisconnect)
	assert.ErrorIs(t, disconnect.Reason, ErrIdle, "when all is taken")
	assert.EqualValues(t, size, c.writer.stats().sent)
}
