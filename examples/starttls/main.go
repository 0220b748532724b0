// Starttls upgrades open connections to TLS, with the necessary part of SMTP (RFC 5321, RFC 3207).
//
//	go run ./examples/starttls
//	openssl s_client -starttls smtp -CAfile testdata/certs/root.crt -connect localhost:2525
//
// It runs until Ctrl-C. Outside of the repository name the files with -cert and -key.
package main

import (
	"bufio"
	"flag"
	"log"
	"strings"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/flags"
	"github.com/ergotls/ergotls/meta"
)

func main() {
	var files certmanager.Files
	flag.StringVar(&files.Cert, "cert", "testdata/certs/server.crt", "`file` with the certificate chain (PEM)")
	flag.StringVar(&files.Key, "key", "testdata/certs/server.key", "`file` with its private key (PEM)")
	port := flags.Port(2525)
	flag.Parse()
	certs, err := certmanager.New(certmanager.Options{Source: files})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	node, err := start(*port, certs)
	if err != nil {
		log.Fatal(err)
	}
	node.SetCTRLC(true)
	node.Wait()
}

// start starts a node with the server on it.
func start(port uint16, certs gen.CertManager) (gen.Node, error) {
	node, err := ergo.StartNode("starttls@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{TimeFormat: time.DateTime}},
	})
	if err != nil {
		return nil, err
	}
	actor := &server{secure: map[gen.Alias]bool{}, options: meta.TCPServerOptions{
		Host: "localhost", Port: port, CertManager: certs,
		StartTLS: true, Active: 1, // one line at a time: nothing behind STARTTLS is read
		Split: bufio.ScanLines, MaxFrame: 1000,
	}}
	if _, err = node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{}); err != nil {
		node.Stop()
	}
	return node, err
}

// server is an actor that serves all connections.
type server struct {
	act.Actor
	options meta.TCPServerOptions
	secure  map[gen.Alias]bool // the connections over TLS
}

func (s *server) Init(...any) error {
	listener, err := meta.CreateTCPServer(s.options)
	if err != nil {
		return err
	}
	if _, err = s.SpawnMeta(listener, gen.MetaOptions{}); err != nil {
		listener.Terminate(err) // frees the port
	}
	return err
}

func (s *server) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect:
		s.say(m.ID, "220 smtp example")
	case meta.MessageTCP:
		s.line(m.ID, string(m.Data))
	case meta.MessageTCPSecured: // from here on nobody on the path reads along
		s.Log().Info("%s is over %s now", m.Peer, m.Peer.Version)
		s.secure[m.ID] = true
		_ = s.SendAlias(m.ID, meta.MessageTCPActive{N: 1})
	case meta.MessageTCPDisconnect:
		delete(s.secure, m.ID)
		s.Log().Info("%s has gone: %s", m.ID, m.Reason)
	}
	return nil
}

// line answers one line and asks for the next.
func (s *server) line(id gen.Alias, line string) {
	switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
	case "STARTTLS":
		if !s.secure[id] {
			_ = s.SendAlias(id, meta.MessageTCPStartTLS{Reply: []byte("220 go ahead\r\n")})
			return // the next line comes over TLS
		}
		s.say(id, "503 this is TLS already")
	case "QUIT":
		s.say(id, "221 bye")
		_ = s.SendAlias(id, meta.MessageTCPClose{})
		return
	case "EHLO":
		if s.secure[id] {
			s.say(id, "250 smtp example") // RFC 3207 section 4.2: it is not offered again
		} else {
			s.say(id, "250-smtp example\r\n250 STARTTLS")
		}
	case "MAIL", "RCPT", "NOOP", "RSET":
		s.say(id, "250 OK")
	default:
		s.say(id, "500 what?")
	}
	_ = s.SendAlias(id, meta.MessageTCPActive{N: 1})
}

// say writes a line. On an error of SendAlias the connection has ended: its Disconnect is on
// the way.
func (s *server) say(id gen.Alias, line string) {
	_ = s.SendAlias(id, meta.MessageTCP{Data: []byte(line + "\r\n")})
}
