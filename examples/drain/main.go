//go:build unix

// Drain restarts an echo server without refusing or closing a connection. On SIGHUP it starts a new
// process with the listening socket, and drains: the new process accepts new connections, and the
// old one stays until its own have ended, at most for -grace.
//
//	go build ./examples/drain && ./drain    # prints its process id
//	kill -HUP ID
//
// Ctrl-C ends it. Outside of the repository name the files with -cert and -key.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

func main() {
	var files certmanager.Files
	flag.StringVar(&files.Cert, "cert", "testdata/certs/server.crt", "`file` with the certificate chain (PEM)")
	flag.StringVar(&files.Key, "key", "testdata/certs/server.key", "`file` with its private key (PEM)")
	listen := flag.String("listen", "localhost:4433", "`host:port` to listen on")
	grace := flag.Duration("grace", 30*time.Second, "how long to wait for open connections")
	flag.Parse()
	if err := serve(files, *listen, *grace); err != nil {
		log.Fatal(err)
	}
}

func serve(files certmanager.Files, listen string, grace time.Duration) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	listener, err := socket(listen)
	if err != nil {
		return err
	}
	certs, err := certmanager.New(certmanager.Options{Source: files})
	if err != nil {
		return err
	}
	defer certs.Close()
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Listener: listener, CertManager: certs})
	if err != nil {
		return err
	}
	node, err := ergo.StartNode("drain@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{TimeFormat: time.DateTime}},
	})
	if err != nil {
		return err
	}
	defer node.Stop()
	actor := &echo{server: server}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{}); err != nil {
		return err
	}
	fmt.Printf("process %d serves %s\n", os.Getpid(), listener.Addr())
	<-signals
	if err := successor(listener); err != nil {
		return err
	}
	if err := node.Send(actor.id, meta.MessageTCPDrain{Timeout: grace}); err != nil {
		return err
	}
	for stats := meta.Stats(server); stats.Connections+stats.Establishing > 0; stats = meta.Stats(server) {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("process %d has drained: %v\n", os.Getpid(), meta.Stats(server).Ended)
	return nil
}

// socket takes the listening socket of the process before, or opens one.
func socket(addr string) (net.Listener, error) {
	if os.Getenv("LISTENER") != "" {
		return net.FileListener(os.NewFile(3, "listener")) // where successor has put it
	}
	return net.Listen("tcp", addr)
}

// successor starts this program again. ForkExec leaves the socket as it is; os/exec would make it
// blocking, for our own server too.
func successor(listener net.Listener) error {
	socket, err := listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var started error
	err = socket.Control(func(fd uintptr) {
		_, started = syscall.ForkExec(os.Args[0], os.Args, &syscall.ProcAttr{
			Env: append(os.Environ(), "LISTENER=inherited"), Files: []uintptr{0, 1, 2, fd},
		})
	})
	return errors.Join(err, started)
}

type echo struct {
	act.Actor
	server gen.MetaBehavior
	id     gen.Alias
}

func (e *echo) Init(...any) (err error) {
	e.id, err = e.SpawnMeta(e.server, gen.MetaOptions{})
	return err
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		_ = e.SendAlias(m.ID, m)
	}
	return nil
}
