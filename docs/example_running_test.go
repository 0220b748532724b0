package docs_test

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
)

// operator is an actor that changes a server while it runs.
type operator struct {
	act.Actor
	server gen.Alias
	done   chan struct{}
}

func (o *operator) HandleMessage(gen.PID, any) error {
	defer close(o.done)
	before, err := o.Call(o.server, meta.MessageTCPLimits{MaxConnections: 2000})
	if err != nil {
		return err
	}
	if wrong, ok := before.(error); ok {
		return wrong // it names the limit
	}
	fmt.Println("the limit was", before.(meta.MessageTCPLimits).MaxConnections)

	_ = o.SendAlias(o.server, meta.MessageTCPSuspend{}) // clients wait from now on
	_ = o.SendAlias(o.server, meta.MessageTCPResume{})  // and come in

	now, err := o.Call(o.server, meta.MessageTCPLimits{}) // changes nothing
	fmt.Println("now it is", now.(meta.MessageTCPLimits).MaxConnections)
	return err
}

// A server is changed while it runs.
func Example_limits() {
	s, stop := serve(meta.TCPServerOptions{MaxConnections: 1000}, echo)
	defer stop()
	o := &operator{server: s.id, done: make(chan struct{})}
	pid, err := s.Node().Spawn(func() gen.ProcessBehavior { return o }, gen.ProcessOptions{})
	if err == nil {
		err = s.Node().Send(pid, "now")
	}
	if err != nil {
		log.Fatal(err)
	}
	<-o.done
	// Output:
	// the limit was 1000
	// now it is 2000
}

// The first process reads the name of a session, and hands the connection to the process of that
// session.
func Example_owner() {
	session := &service{server: meta.TCPServerOptions{}, handle: func(s *service, message any) {
		switch m := message.(type) {
		case meta.MessageTCPConnect: // the connection is its own now
			fmt.Println("handed over")
			_ = s.SendAlias(m.ID, meta.MessageTCPActive{N: 100})
		case meta.MessageTCP:
			_ = s.SendAlias(m.ID, meta.MessageTCP{Data: append(m.Data, "\n"...)})
		}
	}}
	first, stop := serve(meta.TCPServerOptions{Split: bufio.ScanLines, Active: 1}, func(s *service, message any) {
		switch m := message.(type) {
		case meta.MessageTCPPassive: // nothing is on its way
			_ = s.SendAlias(m.ID, meta.MessageTCPOwner{PID: session.PID()})
		case meta.MessageTCPOwner: // nothing more comes here
		}
	})
	defer stop()
	if _, err := first.Node().Spawn(func() gen.ProcessBehavior { return session }, gen.ProcessOptions{}); err != nil {
		log.Fatal(err)
	}
	conn, err := net.Dial("tcp", first.listen)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "session 7\nhello\n")
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(answer)
	// Output:
	// handed over
	// hello
}

// A client hears something now and then, and connects anew some time.
func Example_lasting() {
	s, stop := serve(meta.TCPServerOptions{
		KeepAliveMessage: []byte("ping\n"), KeepAliveMessagePeriod: 20 * time.Millisecond, // in production about a minute
		MaxLifetime: 200 * time.Millisecond, // in production some hours
	}, func(s *service, message any) {
		if m, ok := message.(meta.MessageTCPDraining); ok {
			_ = s.SendAlias(m.ID, meta.MessageTCP{Data: []byte("please connect again\n")})
			_ = s.SendAlias(m.ID, meta.MessageTCPClose{})
		}
	})
	defer stop()
	conn, err := net.Dial("tcp", s.listen)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	all, err := io.ReadAll(conn)
	if err != nil {
		log.Fatal(err)
	}
	lines := strings.Split(string(all), "\n")
	fmt.Println(lines[0])
	fmt.Println(lines[len(lines)-2])
	// Output:
	// ping
	// please connect again
}
