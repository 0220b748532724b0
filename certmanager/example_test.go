package certmanager_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// The files are there before the program; here a CA made for tests writes them.
func ExampleNew() {
	dir := exampleFolder()
	defer os.RemoveAll(dir)
	ca, _ := tlstest.GenerateCA()
	server, _ := ca.Generate(tlstest.Leaf{Names: []string{"localhost"}})
	cert, key, _ := server.WriteFiles(dir, "tls")
	roots := filepath.Join(dir, "ca.crt")
	os.WriteFile(roots, ca.PEM(), 0o644)

	m, err := certmanager.New(certmanager.Options{
		Source:       certmanager.Files{Cert: cert, Key: key, ClientCAs: roots, RootCAs: roots},
		RequireNames: []string{"localhost"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	// Both directions of mutual TLS, with the one certificate.
	listener, err := tls.Listen("tcp", "127.0.0.1:0", m.ServerTLS())
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.Copy(conn, conn)
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), m.ClientTLS("localhost"))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	answer := make([]byte, 5)
	io.ReadFull(conn, answer)
	fmt.Printf("%s from %s", answer, conn.ConnectionState().PeerCertificates[0].Subject.CommonName)
	// Output: hello from localhost
}

// An HTTP server needs the config, and the hook if open connections are to follow trust.
func Example_http() {
	m, err := certmanager.New(certmanager.Options{Source: exampleSource()})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	server := &http.Server{TLSConfig: m.ServerTLS(), ConnState: m.ConnState, Handler: http.NotFoundHandler()}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.ServeTLS(listener, "", "") // the files come from the manager
	defer server.Close()

	transport := &http.Transport{TLSClientConfig: m.ClientTLS("localhost")}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("https://" + listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	fmt.Println(response.Status)
	// Output: 404 Not Found
}

// NewListener serves net/http, or any other server, without a config and a hook. It also answers
// the challenges of an ACME source.
func ExampleManager_NewListener() {
	m, err := certmanager.New(certmanager.Options{Source: exampleSource()})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(m.NewListener(listener, "h2", "http/1.1"))
	defer server.Close()

	transport := &http.Transport{TLSClientConfig: m.ClientTLS("localhost"), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("https://" + listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	fmt.Println(response.Proto, response.Status)
	// Output: HTTP/2.0 404 Not Found
}

// An HTTP client keeps connections for later requests. With Dialing the Manager closes those to a
// server that is no longer trusted.
func ExampleManager_Dialing() {
	m, err := certmanager.New(certmanager.Options{Source: exampleSource()})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	server := &http.Server{Handler: http.NotFoundHandler()}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(m.NewListener(listener, "h2", "http/1.1"))
	defer server.Close()

	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := m.ClientTLS(host)
		config.NextProtos = []string{"h2", "http/1.1"}
		track, below := m.Dialing(), &releasing{Conn: raw}
		conn := tls.Client(below, config) // the Transport needs a *tls.Conn for HTTP/2
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		state := conn.ConnectionState()
		below.release = track(&state, raw.RemoteAddr(), func(error) { raw.Close() })
		return conn, nil
	}
	transport := &http.Transport{DialTLSContext: dial, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	url := "https://" + listener.Addr().String()
	response, err := client.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	fmt.Println(response.Proto, response.Status)

	m.SetRootCAs(x509.NewCertPool()) // no server is trusted
	_, err = client.Get(url)
	fmt.Println("refused:", err != nil)
	// Output:
	// HTTP/2.0 404 Not Found
	// refused: true
}

// releasing is a connection that the Manager forgets when it is closed.
type releasing struct {
	net.Conn
	release func() // nil until the handshake is complete
}

func (c *releasing) Close() error {
	if c.release != nil {
		c.release()
	}
	return c.Conn.Close()
}

func ExampleFiles() {
	dir := exampleFolder()
	defer os.RemoveAll(dir)
	ca, _ := tlstest.GenerateCA()
	for _, name := range []string{"a.example.test", "b.example.test"} {
		pair, _ := ca.Generate(tlstest.Leaf{Names: []string{name}})
		pair.WriteFiles(dir, name)
	}

	m, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Dir: dir}})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	for _, cert := range m.Status().Certificates {
		fmt.Println(filepath.Base(cert.Origin), cert.Names)
	}
	// Output:
	// a.example.test.crt [a.example.test]
	// b.example.test.crt [b.example.test]
}

// A key may be any crypto.Signer, so that it can stay in an HSM or an agent.
func ExampleStatic() {
	ca, _ := tlstest.GenerateCA()
	pair, _ := ca.Generate(tlstest.Leaf{})
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{{Certificate: [][]byte{pair.Leaf.Raw}, PrivateKey: pair.Key}},
		RootCAs:      ca.Pool(),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println(m.Status().Names, m.ClientAuth())
	// Output: 1 NoClientCert
}

// A certificate of a public CA from files, and the clients' CA from the program.
func ExampleSources() {
	dir := exampleFolder()
	defer os.RemoveAll(dir)
	public, _ := tlstest.GenerateCA()
	clients, _ := tlstest.GenerateCA()
	pair, _ := public.Generate(tlstest.Leaf{Names: []string{"www.example.test"}})
	cert, key, _ := pair.WriteFiles(dir, "www")

	m, err := certmanager.New(certmanager.Options{Source: certmanager.Sources{
		certmanager.Files{Cert: cert, Key: key},
		certmanager.Static{ClientCAs: clients.Pool()},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println(m.Status().Certificates[0].Names, m.ClientAuth())
	// Output: [www.example.test] RequireAndVerifyClientCert
}

func ExampleNewRule() {
	internal := certmanager.NewRule("internal CA", func(p *certmanager.Peer) error {
		if p.Certificate.Issuer.CommonName != "internal" {
			return errors.New("its issuer is another")
		}
		return nil
	})
	fmt.Println(judged(internal, tlstest.Leaf{}))
	// Output: refused: its issuer is another
}

func ExampleDNSName() {
	rule := certmanager.DNSName("*.web.example.test", "cron.example.test")
	fmt.Println(judged(rule, tlstest.Leaf{Names: []string{"a.web.example.test"}}))
	fmt.Println(judged(rule, tlstest.Leaf{Names: []string{"corn.example.test"}}))
	// Output:
	// authorized
	// refused: its DNS name is corn.example.test, the nearest match cron.example.test
}

func ExampleSPIFFEID() {
	rule := certmanager.SPIFFEID("spiffe://example.test/web")
	fmt.Println(judged(rule, tlstest.Leaf{URIs: []string{"spiffe://example.test/web"}}))
	fmt.Println(judged(rule, tlstest.Leaf{}))
	// Output:
	// authorized
	// refused: its certificate carries no SPIFFE ID
}

func ExampleTrustDomain() {
	rule := certmanager.TrustDomain("example.test")
	fmt.Println(judged(rule, tlstest.Leaf{URIs: []string{"spiffe://example.test/any/thing"}}))
	fmt.Println(judged(rule, tlstest.Leaf{URIs: []string{"spiffe://example.org/any/thing"}}))
	// Output:
	// authorized
	// refused: its SPIFFE trust domain is example.org, the nearest match example.test
}

func ExamplePublicKeyPin() {
	ca, _ := tlstest.GenerateCA()
	known, _ := ca.Generate(tlstest.Leaf{})
	rule := certmanager.PublicKeyPin(certmanager.PinOf(known.Leaf))
	fmt.Println(judged(rule, tlstest.Leaf{})[:len("refused: its public key pin")])
	// Output: refused: its public key pin
}

// The pin that openssl makes of a certificate:
//
//	openssl x509 -in tls.crt -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64
func ExamplePinOf() {
	ca, _ := tlstest.GenerateCA()
	pair, _ := ca.Generate(tlstest.Leaf{})
	fmt.Println(len(certmanager.PinOf(pair.Leaf)))
	// Output: 44
}

func ExampleAllOf() {
	rule := certmanager.AllOf(certmanager.TrustDomain("example.test"), certmanager.DNSName("*.example.test"))
	fmt.Println(judged(rule, tlstest.Leaf{Names: []string{"a.example.test"}, URIs: []string{"spiffe://example.test/a"}}))
	fmt.Println(judged(rule, tlstest.Leaf{Names: []string{"a.example.test"}}))
	// Output:
	// authorized
	// refused: SPIFFE trust domain example.test: its certificate carries no SPIFFE trust domain
}

func ExampleAnyOf() {
	rule := certmanager.AnyOf(certmanager.TrustDomain("example.test"), certmanager.DNSName("old.example.test"))
	fmt.Println(judged(rule, tlstest.Leaf{Names: []string{"old.example.test"}}))
	// Output: authorized
}

func ExampleManager_Subscribe() {
	ca, _ := tlstest.GenerateCA()
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	events := make(chan certmanager.Event, 1)
	defer m.Subscribe(func(e certmanager.Event) { events <- e })()
	expired, _ := ca.Generate(tlstest.Leaf{}.Expired())
	m.Update(expired.Certificate())
	e := <-events
	fmt.Println(e.Kind, errors.Is(e.Err, certmanager.ErrExpired))
	// Output: rejected true
}

// Before a CA is dropped: who depends on it?
func ExampleManager_DryRun() {
	old, _ := tlstest.GenerateCA()
	next, _ := tlstest.GenerateCA()
	server, _ := old.Generate(tlstest.Leaf{})
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{server.Certificate()}, ClientCAs: old.Pool(),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	client, _ := old.Generate(tlstest.Leaf{Names: []string{"client.example.test"}})
	state, _ := handshake(m.ServerTLS(), client, old)
	release := m.Track(&state, nil, func(reason error) { fmt.Println("close it:", reason) })
	defer release()

	affected, err := m.DryRun(certmanager.Static{ClientCAs: next.Pool()})
	if err != nil {
		log.Fatal(err)
	}
	for _, peer := range affected {
		fmt.Println(peer.Names)
	}
	// Output: [client.example.test]
}

func exampleFolder() string {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

func exampleSource() certmanager.Source {
	ca, _ := tlstest.GenerateCA()
	pair, _ := ca.Generate(tlstest.Leaf{})
	return certmanager.Static{Certificates: []tls.Certificate{pair.Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool()}
}

// judged says what a server with a rule for its clients does with one of them.
func judged(rule certmanager.Rule, client tlstest.Leaf) string {
	ca, _ := tlstest.GenerateCA()
	server, _ := ca.Generate(tlstest.Leaf{})
	m, err := certmanager.New(certmanager.Options{ClientRule: rule, Source: certmanager.Static{
		Certificates: []tls.Certificate{server.Certificate()}, ClientCAs: ca.Pool(),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	pair, _ := ca.Generate(client)
	_, err = handshake(m.ServerTLS(), pair, ca)
	if err == nil {
		return "authorized"
	}
	if !errors.Is(err, certmanager.ErrNotAuthorized) {
		return err.Error()
	}
	_, why, _ := strings.Cut(err.Error(), "): ") // after the peer's serial
	return "refused: " + why
}

// handshake returns what the server sees.
func handshake(config *tls.Config, client *tlstest.Pair, ca *tlstest.CA) (tls.ConnectionState, error) {
	serverEnd, clientEnd := net.Pipe()
	defer serverEnd.Close()
	go func() {
		defer clientEnd.Close()
		conn := tls.Client(clientEnd, &tls.Config{
			RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{client.Certificate()},
		})
		io.Copy(io.Discard, conn) // the handshake, then what the server sends
	}()
	conn := tls.Server(serverEnd, config)
	err := conn.Handshake()
	return conn.ConnectionState(), err
}

// A program that has an autocert.Manager keeps it, beside certificates from files.
func ExampleFunc() {
	manager := &autocert.Manager{Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist("www.example.com")}
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Sources{
		certmanager.Files{Dir: "/etc/tls"},
		certmanager.Func(manager.GetCertificate),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
}

// A source that obtains certificates reports what it got.
func ExampleNewCertificateInfo() {
	cert, err := tls.LoadX509KeyPair("../testdata/certs/server.crt", "../testdata/certs/server.key")
	if err != nil {
		log.Fatal(err)
	}
	info := certmanager.NewCertificateInfo(cert.Leaf, "my vault")
	event := certmanager.Event{Kind: certmanager.Issued, Name: "localhost", Certificate: &info}
	fmt.Println(event.Certificate.Names[0], event.Certificate.Origin)
	// Output: localhost my vault
}
