package e2e

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// listenerActor owns a TLS server and passes on what it hears of connections.
type listenerActor struct {
	act.Actor
	server  gen.MetaBehavior
	connect chan meta.MessageTCPConnect
	gone    chan meta.MessageTCPDisconnect
}

func (a *listenerActor) Init(...any) error {
	_, err := a.SpawnMeta(a.server, gen.MetaOptions{})
	return err
}

func (a *listenerActor) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect:
		a.connect <- m
	case meta.MessageTCPDisconnect:
		a.gone <- m
	case meta.MessageTCP:
		_ = a.SendAlias(m.ID, m)
	}
	return nil
}

// A server of actors that requires client certificates gets its certificate, by challenges
// that no actor hears of.
func TestActorsWithMutualTLS(t *testing.T) {
	t.Parallel()
	ca, clients := acmetest.Start(t), tlstest.NewCA(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}, Background: true}, certmanager.Static{ClientCAs: clients.Pool()})
	listener, err := net.Listen("tcp", w.addr)
	require.NoError(t, err)
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Listener: listener, CertManager: w.Manager})
	require.NoError(t, err)
	node, err := ergo.StartNode("actors@localhost", gen.NodeOptions{Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled}})
	require.NoError(t, err)
	defer node.Stop()
	actor := &listenerActor{server: server, connect: make(chan meta.MessageTCPConnect, 100), gone: make(chan meta.MessageTCPDisconnect, 100)}
	_, err = node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{})
	require.NoError(t, err)

	w.eventually(t, "a certificate", func() bool { return w.Status().ACME[0].Serving })
	assert.Equal(t, 1, ca.Orders())
	pair := clients.Issue(t, tlstest.Leaf{CommonName: "alice", Usage: tlstest.ClientOnly})
	conn, err := tls.Dial("tcp", w.addr, &tls.Config{ServerName: name, RootCAs: ca.Roots(), Certificates: []tls.Certificate{pair.Certificate()}})
	require.NoError(t, err)
	_, err = conn.Write([]byte("hello"))
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 5))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	select {
	case m := <-actor.connect:
		assert.Contains(t, m.TLS.PeerCertificates[0].Subject.CommonName, "alice", "the first that the actor hears of")
	case <-time.After(20 * time.Second):
		t.Fatal("no connection")
	}
	<-actor.gone
	assert.Empty(t, actor.connect)
	assert.Empty(t, actor.gone)
	assert.Zero(t, w.Status().Evicted, "nor is a challenge a peer that has to go")
	assert.Empty(t, w.events.of(certmanager.PeerEvicted))
}
