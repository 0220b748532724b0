package docs_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"log"
	"strings"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// session is the actor of one connection.
type session struct {
	act.Actor
	name string // of the peer: an actor has one connection, so this needs no map
}

func (s *session) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect:
		s.name = m.RemoteAddr.Network()
	case meta.MessageTCP:
		if strings.HasPrefix(string(m.Data), "name ") {
			s.name = string(m.Data[5:])
		}
		return s.SendAlias(m.ID, meta.MessageTCP{Data: fmt.Appendf(nil, "hello %s\n", s.name)})
	case meta.MessageTCPDisconnect:
		return gen.TerminateReasonNormal // the actor ends with its connection
	}
	return nil
}

func Example_actorForEachConnection() {
	ca := newCA()
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{pair(ca, tlstest.Leaf{}).Certificate()},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	node := startNode()
	defer node.Stop()

	var server gen.MetaBehavior
	_, err = node.SpawnRegister("sessions", meta.ActorServer{
		Server:  meta.TCPServerOptions{Host: "localhost", CertManager: certs, Split: bufio.ScanLines},
		Actor:   func() gen.ProcessBehavior { return &session{} },
		Started: func(s gen.MetaBehavior) { server = s },
	}.Process, gen.ProcessOptions{})
	if err != nil {
		log.Fatal(err)
	}

	alice := dialLines(meta.Stats(server).Listen, ca)
	bob := dialLines(meta.Stats(server).Listen, ca)
	fmt.Print(alice("name alice"), bob("hi"), alice("hi"))
	// Output:
	// hello alice
	// hello tcp
	// hello alice
}

// dialLines returns a function that sends a line and reads one.
func dialLines(addr string, ca *tlstest.CA) func(line string) string {
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	return func(line string) string {
		fmt.Fprintln(conn, line)
		answer, err := lines.ReadString('\n')
		if err != nil {
			log.Fatal(err)
		}
		return answer
	}
}
