package docs_test

import (
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// service is an actor with a server, whose messages go to a function.
type service struct {
	act.Actor
	server meta.TCPServerOptions
	handle func(s *service, message any)
	listen string
	id     gen.Alias
}

// serve starts a service on loopback. The examples show its handle.
func serve(server meta.TCPServerOptions, handle func(*service, any)) (s *service, stop func()) {
	node := startNode()
	s = &service{server: server, handle: handle}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return s }, gen.ProcessOptions{}); err != nil {
		log.Fatal(err)
	}
	return s, node.Stop
}

func startNode() gen.Node {
	node, err := ergo.StartNode("docs@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	})
	if err != nil {
		log.Fatal(err)
	}
	return node
}

func (s *service) Init(...any) (err error) {
	if s.server.Listener == nil {
		s.server.Host = "127.0.0.1"
	}
	server, err := meta.CreateTCPServer(s.server)
	if err != nil {
		return err
	}
	s.listen = meta.Stats(server).Listen
	if s.id, err = s.SpawnMeta(server, gen.MetaOptions{}); err != nil {
		server.Terminate(err)
	}
	return err
}

func (s *service) HandleMessage(_ gen.PID, message any) error {
	s.handle(s, message)
	return nil
}

// echo answers each client with its own bytes.
func echo(s *service, message any) {
	if m, ok := message.(meta.MessageTCP); ok {
		_ = s.SendAlias(m.ID, m)
	}
}

func (s *service) port() uint16 {
	_, port, err := net.SplitHostPort(s.listen)
	if err != nil {
		log.Fatal(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		log.Fatal(err)
	}
	return uint16(number)
}

// folder makes a folder with root.crt, server.crt and server.key, and goes there until leave is
// called.
func folder(ca *tlstest.CA) (dir string, leave func()) {
	dir, err := os.MkdirTemp("", "docs")
	if err != nil {
		log.Fatal(err)
	}
	before, err := os.Getwd()
	if err == nil {
		err = os.Chdir(dir)
	}
	if err == nil {
		err = tlstest.WriteFile(filepath.Join(dir, "root.crt"), ca.PEM(), 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
	if _, _, err := pair(ca, tlstest.Leaf{}).WriteFiles(dir, "server"); err != nil {
		log.Fatal(err)
	}
	return dir, func() {
		os.Chdir(before)
		os.RemoveAll(dir)
	}
}

func newCA() *tlstest.CA {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	return ca
}

func pair(ca *tlstest.CA, leaf tlstest.Leaf) *tlstest.Pair {
	p, err := ca.Generate(leaf)
	if err != nil {
		log.Fatal(err)
	}
	return p
}

// manager is what a program has from certmanager.New, here with certificates of the moment.
func manager(ca *tlstest.CA, o certmanager.Options) *certmanager.Manager {
	o.Source = certmanager.Static{Certificates: []tls.Certificate{pair(ca, tlstest.Leaf{}).Certificate()}}
	m, err := certmanager.New(o)
	if err != nil {
		log.Fatal(err)
	}
	return m
}

// say sends bytes and prints what comes back, as many bytes as were sent.
func say(conn net.Conn, text string) {
	answer := make([]byte, len(text))
	if _, err := conn.Write([]byte(text)); err != nil {
		fmt.Println(err)
		return
	}
	if n, err := conn.Read(answer); err != nil {
		fmt.Println(err)
	} else {
		fmt.Printf("%s\n", answer[:n])
	}
}
