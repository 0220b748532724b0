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

// member is the actor of one connection. It speaks to the room for its client, and the other way.
type member struct {
	act.Actor
	connection gen.Alias
	name       string
}

func (m *member) HandleMessage(_ gen.PID, message any) error {
	switch v := message.(type) {
	case meta.MessageTCPConnect:
		m.connection, m.name = v.ID, v.TLS.PeerCertificates[0].Subject.CommonName // proven by the handshake
		return m.Send(roomName, join{m.name})
	case meta.MessageTCP:
		return m.Send(roomName, says{fmt.Sprintf("%s: %s", m.name, v.Data)})
	case line: // whoever does not read and has a hundred lines waiting misses it
		_ = m.SendAlias(m.connection, meta.MessageTCP{Data: v})
	case meta.MessageTCPPassive:
		return m.Send(roomName, caughtUp{})
	case caughtUp: // the room has said all lines so far
		_ = m.SendAlias(m.connection, meta.MessageTCPActive{N: 10})
	case meta.MessageTCPDisconnect:
		_ = m.Send(roomName, leave{v.Reason})
		return gen.TerminateReasonNormal
	}
	return nil
}

const roomName = gen.Atom("room")

// What members say to the room, and it to them.
type (
	join     struct{ name string }
	leave    struct{ why error }
	says     struct{ text string }
	line     []byte
	caughtUp struct{} // goes to the room and back
)

// room is an actor that knows everybody who is there.
type room struct {
	act.Actor
	members map[gen.PID]string // their names
}

func (r *room) HandleMessage(from gen.PID, message any) error {
	switch m := message.(type) {
	case join:
		if err := r.MonitorPID(from); err != nil {
			return nil // it has gone already
		}
		r.members[from] = m.name
		r.say("* %s is here", m.name)
	case says:
		r.say("%s", m.text)
	case caughtUp:
		_ = r.Send(from, m)
	case leave:
		r.part(from, m.why)
	case gen.MessageDownPID:
		if m.Reason != gen.TerminateReasonNormal { // else its leave says why
			r.part(m.PID, m.Reason)
		}
	}
	return nil
}

func (r *room) part(member gen.PID, why error) {
	if name, here := r.members[member]; here {
		delete(r.members, member)
		r.say("* %s has gone (%s)", name, why)
	}
}

// say writes a line to everybody.
func (r *room) say(format string, args ...any) {
	text := line(fmt.Appendf(nil, format+"\n", args...))
	for member := range r.members {
		_ = r.Send(member, text)
	}
}
