// Chat is a chat server over mutual TLS: a line is a frame, names come from client certificates,
// and flow control slows down fast senders.
//
//	go run ./examples/chat -dir /tmp/chat     # makes a CA, and certificates for alice and bob
//	openssl s_client -quiet -connect localhost:4433 -CAfile /tmp/chat/root.crt -cert /tmp/chat/alice.crt -key /tmp/chat/alice.key
package main

import (
	"bufio"
	"flag"
	"log"
	"os"
	"path/filepath"

	"ergo.services/ergo"
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

// issue makes a CA and certificates. In production they come from your own CA.
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
	if _, err = node.SpawnRegister(roomName, func() gen.ProcessBehavior { return &room{members: map[gen.PID]string{}} }, gen.ProcessOptions{}); err == nil {
		_, err = node.Spawn(meta.ActorServer{
			Server: meta.TCPServerOptions{
				Host: "localhost", Port: port, CertManager: certs,
				Split: bufio.ScanLines, MaxFrame: 1000,
				Active:         10, // lines that one may be ahead of the room
				ConnectionMeta: gen.MetaOptions{MailboxSize: 100},
			},
			Actor: func() gen.ProcessBehavior { return &member{} },
		}.Process, gen.ProcessOptions{})
	}
	if err != nil {
		node.Stop()
	}
	return node, err
}
