//go:build upstream

package docs_test

import (
	"crypto/tls"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"testing"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	ergometa "ergo.services/ergo/meta"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

var _ gen.CertAuthManager = (*certmanager.Manager)(nil)

// startMember starts a node whose links to others use mutual TLS.
func startMember(name gen.Atom, port uint16, certs *certmanager.Manager) (gen.Node, error) {
	return ergo.StartNode(name, gen.NodeOptions{
		CertManager: certs, // for links that this node makes
		Network: gen.NetworkOptions{
			Cookie: "the same on all nodes",
			Acceptors: []gen.AcceptorOptions{{
				Host: "localhost", Port: port, CertManager: certs, // for links that others make
			}},
		},
		Log: gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	})
}

// frontend has a web server of Ergo and a TCP server of this project.
type frontend struct {
	act.Actor
	web, tcp uint16
}

func (f *frontend) Init(...any) error {
	certs := f.Node().CertManager()
	web, err := ergometa.CreateWebServer(ergometa.WebServerOptions{
		Host: "localhost", Port: f.web, CertManager: certs, Handler: http.NotFoundHandler(),
	})
	if err != nil {
		return err
	}
	if _, err := f.SpawnMeta(web, gen.MetaOptions{}); err != nil {
		web.Terminate(err)
		return err
	}
	tcp, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "localhost", Port: f.tcp, CertManager: certs})
	if err != nil {
		return err
	}
	if _, err := f.SpawnMeta(tcp, gen.MetaOptions{}); err != nil {
		tcp.Terminate(err)
		return err
	}
	return nil
}

func (f *frontend) HandleCall(gen.PID, gen.Ref, any) (any, error) { return "here", nil }

// A node's links, Ergo's web server and a TCP server have one manager, and a new certificate
// reaches all three.
func TestOneManagerForTheNode(t *testing.T) {
	t.Chdir(t.TempDir())
	ca := tlstest.NewCA(t)
	require.NoError(t, os.WriteFile("cluster.crt", ca.PEM(), 0o600))
	first := issue(t, ca)
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: "node.crt", Key: "node.key",
		ClientCAs: "cluster.crt", // nodes that link to this one show a certificate of this CA
		RootCAs:   "cluster.crt", // and so do those that this one links to
	}})
	require.NoError(t, err)
	defer certs.Close()
	port := needs.Port(t)
	one, err := startMember("one@localhost", port, certs)
	require.NoError(t, err)
	defer one.Stop()
	actor := &frontend{web: needs.Port(t), tcp: needs.Port(t)}
	_, err = one.SpawnRegister("frontend", func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{})
	require.NoError(t, err)
	client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: "client"})
	serials := func() (all []*big.Int) {
		for _, port := range []uint16{port, actor.web, actor.tcp} {
			conn, err := tls.Dial("tcp", fmt.Sprintf("localhost:%d", port), client)
			require.NoError(t, err)
			all = append(all, conn.ConnectionState().PeerCertificates[0].SerialNumber)
			conn.Close()
		}
		return all
	}
	assert.Equal(t, []*big.Int{first, first, first}, serials())
	assert.NoError(t, callFrom(t, "two@localhost", certs))

	second := issue(t, ca)
	require.NoError(t, certs.Reload(t.Context()))
	assert.Equal(t, []*big.Int{second, second, second}, serials())
	assert.NoError(t, callFrom(t, "three@localhost", certs), "a link after the rotation")

	other := tlstest.NewCA(t)
	stranger, err := certmanager.New(certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{other.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
	}})
	require.NoError(t, err)
	defer stranger.Close()
	assert.Error(t, callFrom(t, "four@localhost", stranger), "its certificate is of another CA")
}

// issue writes a new certificate for the nodes.
func issue(t *testing.T, ca *tlstest.CA) (serial *big.Int) {
	leaf := ca.Issue(t, tlstest.Leaf{})
	leaf.Files(t, ".", "node")
	return leaf.Leaf.SerialNumber
}

// callFrom starts a node and calls the frontend of the first over a link.
func callFrom(t *testing.T, name gen.Atom, certs *certmanager.Manager) error {
	node, err := startMember(name, needs.Port(t), certs)
	require.NoError(t, err)
	defer node.Stop()
	c := &linkCaller{answer: make(chan error, 1)}
	pid, err := node.Spawn(func() gen.ProcessBehavior { return c }, gen.ProcessOptions{})
	require.NoError(t, err)
	require.NoError(t, node.Send(pid, "call"))
	return <-c.answer
}

type linkCaller struct {
	act.Actor
	answer chan error
}

func (c *linkCaller) HandleMessage(gen.PID, any) error {
	_, err := c.Call(gen.ProcessID{Name: "frontend", Node: "one@localhost"}, "are you there?")
	c.answer <- err
	return nil
}
