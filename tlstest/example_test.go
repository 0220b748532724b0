package tlstest_test

import (
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/ergotls/ergotls/tlstest"
)

// A server that requires client certificates, and a client that it knows. In a
// test, NewCA(t), Issue(t, ...), MutualServerConfig(t) and MutualClientConfig(t,
// ...) need no error handling.
func Example() {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	serverPair, err := ca.Generate(tlstest.Leaf{Names: []string{"server.example.test"}})
	if err != nil {
		log.Fatal(err)
	}
	clientPair, err := ca.Generate(tlstest.Leaf{CommonName: "alice", Usage: tlstest.ClientOnly})
	if err != nil {
		log.Fatal(err)
	}

	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("client:", r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{serverPair.Certificate()},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    ca.Pool(),
	}
	server.StartTLS()
	defer server.Close()

	transport := &http.Transport{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{clientPair.Certificate()},
		RootCAs:      ca.Pool(),
		ServerName:   "server.example.test",
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	fmt.Println("server:", response.TLS.PeerCertificates[0].DNSNames)
	// Output:
	// client: alice
	// server: [server.example.test]
}

// A loader meets each replacement, and is looked at in every torn moment.
func ExampleReplacement() {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "certs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	load := func() string {
		pair, err := tls.LoadX509KeyPair(dir+"/tls.crt", dir+"/tls.key")
		if err != nil {
			return "nothing usable"
		}
		return pair.Leaf.Subject.CommonName
	}
	for _, name := range []string{"old", "new"} {
		pair, err := ca.Generate(tlstest.Leaf{CommonName: name})
		if err != nil {
			log.Fatal(err)
		}
		files := map[string][]byte{"tls.crt": pair.CertPEM, "tls.key": pair.KeyPEM}
		err = tlstest.KeyBeforeCertificate(dir, files, func() { fmt.Println("between:", load()) })
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("after:", load())
	}
	// Output:
	// between: nothing usable
	// after: old
	// between: nothing usable
	// after: new
}
