package meta_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// Watcher is an actor that gets the events of its certificates.
type Watcher struct {
	act.Actor
	certs   *certmanager.Manager
	watcher gen.Alias
	status  chan certmanager.Status
	kinds   chan certmanager.Kind
}

// askStatus is the first message of a Watcher: an actor makes no calls in its Init.
type askStatus struct{}

func (w *Watcher) Init(...any) error {
	watcher, err := meta.CreateCertWatcher(w.certs, meta.CertWatcherOptions{})
	if err != nil {
		return err
	}
	if w.watcher, err = w.SpawnMeta(watcher, gen.MetaOptions{}); err != nil {
		return err
	}
	return w.Send(w.PID(), askStatus{})
}

func (w *Watcher) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case askStatus:
		status, err := w.CallAlias(w.watcher, meta.MessageCertStatus{}, gen.DefaultRequestTimeout)
		if err != nil {
			return err
		}
		w.status <- status.(certmanager.Status) // every later change is an event
	case meta.MessageCertEvent:
		w.kinds <- m.Event.(certmanager.Event).Kind
	}
	return nil
}

func ExampleCreateCertWatcher() {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	node := exampleNode()
	defer node.Stop()
	watcher := &Watcher{certs: certs, status: make(chan certmanager.Status, 1), kinds: make(chan certmanager.Kind, 1)}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return watcher }, gen.ProcessOptions{}); err != nil {
		log.Fatal(err)
	}
	pair, err := ca.Generate(tlstest.Leaf{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("certificates:", len((<-watcher.status).Certificates))
	certs.Update(pair.Certificate())
	fmt.Println(<-watcher.kinds)
	// Output:
	// certificates: 0
	// loaded
}

// Responder is an actor that owns port 80 of a host whose certificates come from an ACME CA.
type Responder struct {
	act.Actor
	certs    *certmanager.Manager
	listener net.Listener
}

func (r *Responder) Init(...any) error {
	// Without Listener it listens on port 80, where CAs look.
	responder, err := meta.CreateACMEResponder(meta.ACMEResponderOptions{CertManager: r.certs, Listener: r.listener})
	if err != nil {
		return err
	}
	if _, err = r.SpawnMeta(responder, gen.MetaOptions{}); err != nil {
		responder.Terminate(err) // frees the port
	}
	return err
}

func ExampleCreateACMEResponder() {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}}) // in earnest: acme.Source
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	node := exampleNode()
	defer node.Stop()
	responder := &Responder{certs: certs, listener: listener}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return responder }, gen.ProcessOptions{}); err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	request, err := http.NewRequest(http.MethodGet, "http://"+listener.Addr().String()+"/page", nil)
	if err != nil {
		log.Fatal(err)
	}
	request.Host = "www.example.test"
	response, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	fmt.Println(response.StatusCode, response.Header.Get("Location"))
	// Output: 302 https://www.example.test/page
}

func exampleNode() gen.Node {
	node, err := ergo.StartNode("certificates@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	})
	if err != nil {
		log.Fatal(err)
	}
	return node
}
