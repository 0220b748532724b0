// Autocert is an echo server for a public host, with a certificate from Let's Encrypt:
//
//	go run ./examples/autocert -domain www.example.com -email tls@example.com
//
// The CA connects to port 443 of the host, or with -http :80 also to port 80. It runs until Ctrl-C.
// `make demo-acme` issues a certificate on a machine that no CA can reach.
package main

import (
	"flag"
	"log"
	"net"
	"strings"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/meta"
)

func main() {
	domains := flag.String("domain", "", "`names` of this host, separated by commas")
	email := flag.String("email", "", "`address` for the CA to write to")
	cache := flag.String("cache", "certificates", "`folder` for certificates and keys")
	directory := flag.String("directory", "staging", "`URL` of the CA's directory; staging is Let's Encrypt's, empty its production")
	plain := flag.String("http", "", "`address` for HTTP-01 challenges and redirects, such as :80; empty is none")
	listen := flag.String("listen", ":443", "`address` to serve on")
	flag.Parse()
	if *domains == "" {
		log.Fatal("-domain is missing: the names of this host, which a CA can reach on port 443; to see a certificate issued without one run make demo-acme")
	}

	certs, err := certmanager.New(certmanager.Options{Source: &acme.Source{
		Domains: strings.Split(*domains, ","), Email: *email, Directory: *directory,
		Cache: autocert.DirCache(*cache), Listen: *listen, ListenHTTP: *plain,
	}})
	check(err)
	node, err := ergo.StartNode("autocert@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{TimeFormat: time.DateTime}},
	})
	check(err)
	listener, err := net.Listen("tcp", *listen)
	check(err)
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Listener: listener, CertManager: certs})
	check(err)
	servers := []gen.MetaBehavior{server}
	if *plain != "" {
		listener, err = net.Listen("tcp", *plain)
		check(err)
		responder, err := meta.CreateACMEResponder(meta.ACMEResponderOptions{Listener: listener, CertManager: certs})
		check(err)
		servers = append(servers, responder)
	}
	_, err = node.Spawn(func() gen.ProcessBehavior { return &echo{servers: servers} }, gen.ProcessOptions{})
	check(err)
	node.SetCTRLC(true)
	node.Wait()
	check(certs.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err) // the end of the program closes what is open
	}
}

// echo owns the servers and answers each client with its own bytes.
type echo struct {
	act.Actor
	servers []gen.MetaBehavior
}

func (e *echo) Init(...any) error {
	for _, server := range e.servers {
		if _, err := e.SpawnMeta(server, gen.MetaOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		_ = e.SendAlias(m.ID, m) // on error the client has gone
	}
	return nil
}
