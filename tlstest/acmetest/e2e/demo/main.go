// Demo shows certificates being issued and renewed on one machine, in seconds: an HTTPS server gets
// its certificate from a real ACME CA (Pebble) in the same process, and is called without a pause
// while the CA fails and the certificate is renewed. Then a wildcard is issued by a record in DNS.
//
//	make demo-acme
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

const (
	name     = "www.example.test"
	lifetime = 15 * time.Second
)

var began = time.Now()

func say(format string, args ...any) {
	fmt.Printf("%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

func main() {
	if err := demonstrate(); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

func demonstrate() error {
	ca, err := acmetest.New(acmetest.Options{Lifetime: lifetime})
	if err != nil {
		return err
	}
	defer ca.Close()
	say("a CA runs at %s; its certificates live for %v", ca.Directory(), lifetime)
	if err := renewal(ca); err != nil {
		return err
	}
	return wildcard(ca)
}

// wildcard gets a certificate for all names of a zone, by a TXT record and with no port open.
func wildcard(ca *acmetest.Server) error {
	cache, err := os.MkdirTemp("", "demo-acme")
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	source := &acme.Source{
		Domains: []string{"*.example.test"}, DNSPersist: true, DNSServers: []string{ca.DNS()},
		Directory: ca.Directory(), Roots: ca.Roots(), Cache: autocert.DirCache(cache),
	}
	options := certmanager.Options{Source: source, Logger: slog.New(slog.DiscardHandler)}
	_, err = certmanager.New(options)
	if err == nil {
		return errors.New("a wildcard was issued without a record")
	}
	say("DNS-PERSIST-01: nothing is ordered without the record:")
	fmt.Printf("        %s\n", strings.ReplaceAll(err.Error(), "\n", "\n        "))
	records, err := source.Records(context.Background())
	if err != nil {
		return err
	}
	for _, r := range records {
		ca.SetTXT(r.Name, r.Value)
	}
	say("the record is written")
	m, err := certmanager.New(options)
	if err != nil {
		return err
	}
	defer m.Close()
	for _, order := range m.Status().ACME {
		say("%s was issued by %s, until %s, with no port open", order.Name, order.Challenge, order.NotAfter.Format(time.TimeOnly))
	}
	return nil
}

// renewal shows a server whose certificate is renewed while the CA fails.
func renewal(ca *acmetest.Server) error {
	cache, err := os.MkdirTemp("", "demo-acme")
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	ca.TLSALPN01(addr)

	m, err := certmanager.New(certmanager.Options{
		Source: &acme.Source{
			Domains: []string{name}, Listen: addr, Cache: autocert.DirCache(cache),
			Directory: ca.Directory(), Roots: ca.Roots(),
		},
		Logger: slog.New(slog.DiscardHandler), // the events are told below
	})
	if err != nil {
		return err
	}
	defer m.Close()
	say("the certificate is there before the server starts")
	defer m.Subscribe(func(e certmanager.Event) {
		switch e.Kind {
		case certmanager.OrderFailed:
			say("  event %s: %v", e.Kind, e.Err)
		case certmanager.Issued:
			say("  event %s: %s until %s", e.Kind, e.Certificate.Serial, e.Certificate.NotAfter.Format(time.TimeOnly))
		}
	})()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)} // clients here only shake hands
	defer server.Close()
	go server.Serve(m.NewListener(listener))
	return visit(ca, addr)
}

// visit calls the server until it has met a second certificate, with the CA out of order in
// between.
func visit(ca *acmetest.Server, addr string) error {
	var first *x509.Certificate
	for calls := 1; time.Since(began) < 2*lifetime; calls++ {
		leaf, err := call(ca, addr)
		if err != nil {
			return fmt.Errorf("call %d: %w", calls, err)
		}
		switch {
		case first == nil:
			first = leaf
			say("a client gets %x for %s, until %s", leaf.SerialNumber, name, leaf.NotAfter.Format(time.TimeOnly))
			ca.Refuse(http.StatusServiceUnavailable, 0)
			say("the CA answers 503 to everything")
		case !leaf.Equal(first):
			say("a client gets %x, until %s", leaf.SerialNumber, leaf.NotAfter.Format(time.TimeOnly))
			say("%d calls, none failed, none got an expired certificate; %d orders", calls, ca.Orders())
			return nil
		case time.Until(first.NotAfter) < lifetime/4: // a third is left when the renewal begins
			ca.Refuse(0, 0)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("the certificate was not renewed")
}

// call makes one handshake, verified as any client does.
func call(ca *acmetest.Server, addr string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: ca.Roots()}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
