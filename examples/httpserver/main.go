// Httpserver serves HTTPS with net/http: it uses the certificate manager without actors.
//
//	go run ./examples/httpserver
//	curl --cacert testdata/certs/root.crt https://localhost:8443
//
// It runs until Ctrl-C. Outside of the repository name the files with -cert and -key.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/ergotls/ergotls/certmanager"
)

func main() {
	var files certmanager.Files
	flag.StringVar(&files.Cert, "cert", "testdata/certs/server.crt", "`file` with the certificate chain (PEM)")
	flag.StringVar(&files.Key, "key", "testdata/certs/server.key", "`file` with its private key (PEM)")
	flag.StringVar(&files.ClientCAs, "client-ca", "", "`file` with the CAs of clients (PEM); empty asks for no client certificate")
	listen := flag.String("listen", "localhost:8443", "`host:port` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("serving https://%s; Ctrl-C ends it\n", listener.Addr())
	if err := serve(ctx, listener, files); err != nil {
		log.Fatal(err)
	}
}

// serve runs until ctx ends.
func serve(ctx context.Context, listener net.Listener, source certmanager.Source) error {
	certs, err := certmanager.New(certmanager.Options{Source: source})
	if err != nil {
		return err
	}
	defer certs.Close()
	server := http.Server{
		Handler:   http.HandlerFunc(greet),
		TLSConfig: certs.ServerTLS(), // follows the files
		ConnState: certs.ConnState,   // closes connections whose peers lose their trust
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return server.Shutdown(bounded) // waits for open requests; ServeTLS does not
}

func greet(w http.ResponseWriter, r *http.Request) {
	name := "somebody"
	if len(r.TLS.PeerCertificates) > 0 { // verified, or the handshake had failed
		name = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	fmt.Fprintf(w, "hello %s\n", name)
}
