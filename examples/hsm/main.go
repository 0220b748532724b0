//go:build cgo

// Hsm serves TLS with a private key that never leaves a PKCS #11 token. It makes a token of
// SoftHSM 2 (apt-get install softhsm2) in a temporary folder, and shows a handshake, a new key, a
// token that is taken out, and one that is put back. Your own program needs token.go.
package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

func main() {
	dir, err := os.MkdirTemp("", "hsm")
	if err == nil {
		err = errors.Join(run(os.Stdout, dir), os.RemoveAll(dir))
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer, dir string) error {
	device, err := newSoftHSM(dir)
	if err != nil {
		return err
	}
	defer device.close()
	ca, err := tlstest.GenerateCA()
	if err != nil {
		return err
	}
	cert := filepath.Join(dir, "tls.crt")
	issue := func(label string) error {
		public, err := device.newKey(label)
		if err != nil {
			return err
		}
		pair, err := ca.Generate(tlstest.Leaf{CommonName: label, Names: []string{"localhost"}, PublicKey: public})
		if err != nil {
			return err
		}
		return tlstest.WriteFile(cert, pair.CertPEM, 0o644)
	}
	if err := issue("first key"); err != nil {
		return err
	}
	changed := make(chan certmanager.Event, 100)
	certs, err := certmanager.New(certmanager.Options{
		Source: certmanager.Files{Cert: cert, KeyStore: device.token},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer certs.Close()
	certs.Subscribe(func(e certmanager.Event) { changed <- e })
	shake := func() {
		name, err := handshake(certs.ServerTLS(), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
		if err != nil {
			fmt.Fprintln(out, "handshake:", err)
			return
		}
		fmt.Fprintln(out, "handshake: certificate of the", name)
	}
	shake()
	if err := issue("second key"); err != nil {
		return err
	}
	fmt.Fprintln(out, "event:", (<-changed).Kind)
	shake()
	if err := device.remove(); err != nil {
		return err
	}
	shake()
	event := <-changed
	fmt.Fprintln(out, "event:", event.Kind, event.Reason, event.Err)
	if err := device.insert(); err != nil {
		return err
	}
	shake()
	return nil
}

// handshake returns the common name of the certificate that a server shows.
func handshake(server, client *tls.Config) (name string, err error) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		return "", err
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
		served <- err
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err == nil {
		name = conn.ConnectionState().PeerCertificates[0].Subject.CommonName
		conn.Close()
	}
	return name, cmp.Or(<-served, err)
}
