// Chat is a chat server over mutual TLS: a line is a frame, names come from client certificates, and TCP holds back who talks too fast.
//
//	go run ./examples/chat -dir /tmp/chat     # makes a CA, and certificates for alice and bob
//	openssl s_client -quiet -connect localhost:4433 -CAfile /tmp/chat/root.crt -cert /tmp/chat/alice.crt -key /tmp/chat/alice.key
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/flags"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

func main() {
	dir := flag.String("dir", "chat-certs", "`folder` for the certificates")
	port := flags.Port(4433)
	flag.Parse()
	issue(*dir, "server", "alice", "bob")
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: filepath.Join(*dir, "server.crt"), Key: filepath.Join(*dir, "server.key"), ClientCAs: filepath.Join(*dir, "root.crt"),
	}})
	check(err)
	defer certs.Close()
	node, err := start(*port, certs)
	check(err)
	node.SetCTRLC(true)
	node.Wait()
}

// issue makes a CA and certificates. In earnest they come from your own CA.
func issue(dir string, names ...string) {
	ca, err := tlstest.GenerateCA()
	check(err)
	check(os.MkdirAll(dir, 0o700))
	for _, name := range names {
		pair, err := ca.Generate(tlstest.Leaf{CommonName: name, Names: []string{name, "localhost"}})
		check(err)
		_, _, err = pair.WriteFiles(dir, name)
		check(err)
	}
	check(tlstest.WriteFile(filepath.Join(dir, "root.crt"), ca.PEM(), 0o644))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func start(port uint16, certs gen.CertManager) (gen.Node, error) {
	node, err := ergo.StartNode("chat@localhost", gen.NodeOptions{Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled}})
	if err != nil {
		return nil, err
	}
	chat := &room{port: port, certs: certs, names: map[gen.Alias]string{}}
	if _, err = node.Spawn(func() gen.ProcessBehavior { return chat }, gen.ProcessOptions{}); err != nil {
		node.Stop()
	}
	return node, err
}

// room is an actor with everybody in it.
type room struct {
	act.Actor
	port  uint16
	certs gen.CertManager
	names map[gen.Alias]string
}

func (r *room) Init(...any) error {
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{
		Host: "localhost", Port: r.port, CertManager: r.certs,
		Split: bufio.ScanLines, MaxFrame: 1000,
		Active:         10, // lines that one may be ahead of the room
		ConnectionMeta: gen.MetaOptions{MailboxSize: 100},
	})
	if err != nil {
		return err
	}
	if _, err = r.SpawnMeta(server, gen.MetaOptions{}); err != nil {
		server.Terminate(err) // frees the port
	}
	return err
}

func (r *room) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect:
		r.names[m.ID] = m.TLS.PeerCertificates[0].Subject.CommonName // proven by the handshake
		r.say("* %s is here", r.names[m.ID])
	case meta.MessageTCP:
		r.say("%s: %s", r.names[m.ID], m.Data)
	case meta.MessageTCPPassive: // all lines so far have been said
		_ = r.SendAlias(m.ID, meta.MessageTCPActive{N: 10})
	case meta.MessageTCPDisconnect:
		name := r.names[m.ID]
		delete(r.names, m.ID)
		r.say("* %s has gone (%s)", name, m.Reason)
	}
	return nil
}

// say writes a line to everybody. Whoever does not read and has a hundred lines waiting misses it.
func (r *room) say(format string, args ...any) {
	line := fmt.Appendf(nil, format+"\n", args...)
	for id := range r.names {
		_ = r.SendAlias(id, meta.MessageTCP{Data: line})
	}
}
