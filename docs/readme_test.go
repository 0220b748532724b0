package docs_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// What follows is what README.md shows first.

type Echo struct {
	act.Actor
	Certs *certmanager.Manager
}

func (e *Echo) Init(...any) error {
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Port: 4433, CertManager: e.Certs})
	if err != nil {
		return err
	}
	_, err = e.SpawnMeta(server, gen.MetaOptions{})
	return err
}

func (e *Echo) HandleMessage(_ gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		e.SendAlias(m.ID, m) // a message to a connection is a write to the peer
	}
	return nil
}

// A newcomer who takes the server from README.md has one, and with three more lines one that lets nobody in without a certificate.
func TestReadme(t *testing.T) {
	free, err := net.Listen("tcp", ":4433")
	if err != nil {
		t.Skip("the port that README.md shows is taken: ", err)
	}
	require.NoError(t, free.Close())
	ca := newCA()
	dir, leave := folder(ca)
	defer leave()
	also(dir, "root.crt", "clients.crt")
	alice := pair(ca, tlstest.Leaf{CommonName: "alice"}).Certificate()
	t.Run("server", func(t *testing.T) {
		certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: "server.crt", Key: "server.key"}})
		require.NoError(t, err)
		defer certs.Close()
		defer spawn(t, &Echo{Certs: certs})()
		assert.NoError(t, hello(&tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}))
	})
	t.Run("mutual TLS", func(t *testing.T) {
		certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
			Cert: "server.crt", Key: "server.key",
			ClientCAs: "clients.crt", // asks for client certificates, and lets nobody in without one
		}})
		require.NoError(t, err)
		defer certs.Close()
		defer spawn(t, &Echo{Certs: certs})()
		assert.NoError(t, hello(&tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{alice}}))
		assert.ErrorContains(t, hello(&tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}), "certificate required")
	})
}

func spawn(t *testing.T, actor gen.ProcessBehavior) (stop func()) {
	t.Helper()
	node := startNode()
	_, err := node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{})
	require.NoError(t, err)
	return node.Stop
}

// hello says hello to the server on port 4433 and hears it.
func hello(config *tls.Config) error {
	conn, err := tls.Dial("tcp", "localhost:4433", config)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 5))
	return err
}

// Every option is in README.md with its default, and in the table for those who come from Ergo.
func TestEveryOptionIsListed(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	fromErgo, err := os.ReadFile("from-ergo.md")
	require.NoError(t, err)
	for _, options := range []any{meta.TCPServerOptions{}, meta.TCPConnectionOptions{}} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(options)) {
			assert.True(t, strings.Contains(string(readme), "`"+field.Name+"`"), "README.md misses %T.%s", options, field.Name)
			assert.True(t, strings.Contains(string(fromErgo), "`"+field.Name+"`"), "from-ergo.md misses %T.%s", options, field.Name)
		}
	}
}
