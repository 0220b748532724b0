// Package acmetest runs a real ACME certificate authority inside a Go test:
// Let's Encrypt's Pebble, on loopback, in one line.
//
//	ca := acmetest.Start(t)
//	ca.TLSALPN01(listener.Addr().String()) // where challenges are answered
//	client := &acme.Client{DirectoryURL: ca.Directory(), HTTPClient: ca.HTTPClient(), Key: key}
//
// Every DNS name resolves to loopback, so the CA issues for any name with a dot in it
// (a.example.test). [Server.TLSALPN01] and [Server.HTTP01] set the addresses at which the CA
// validates challenges; before the first call validation fails.
//
// The other methods of [Server] inject faults: the CA rejects nonces, fails validation, is slow,
// refuses, hangs, forgets its accounts, or asks for early renewal. They may be called from any
// goroutine, at any time.
//
// Pebble reads its settings from the environment. They are set while a Server is made; meanwhile
// nothing else in the process should read or set environment variables that begin with PEBBLE_.
//
// What this package does not do: it serves only this machine, and its certificates are not trusted
// anywhere else. For certificates without ACME use package tlstest.
package acmetest

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Options are the settings that a Server cannot change later. The zero value is a CA without
// external accounts whose certificates are valid for 90 days.
type Options struct {
	// Lifetime is the lifetime of certificates, in whole seconds. Zero is 90 days.
	Lifetime time.Duration

	// Profiles are the lifetimes of the profiles that orders may name, instead of the one of
	// Lifetime. For an order that names none, Pebble uses any of them.
	Profiles map[string]time.Duration

	// ExternalAccounts are MAC keys by key ID. If there are any, accounts must be bound
	// to one of them (RFC 8555 section 7.3.4).
	ExternalAccounts map[string][]byte

	// NameServer is the address, host:port, of the name server that the CA asks in place of its
	// own: [Server.FailValidation], [Server.SetTXT] and [Server.SetCNAME] do nothing then.
	NameServer string

	// Log gets Pebble's own log. Nil discards it.
	Log *log.Logger
}

// TB is the part of [testing.TB] that [Start] needs: Helper, Fatalf and Cleanup.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Server is a running CA. Make one with [Start] or [New].
type Server struct {
	*faults
	web     *httptest.Server
	client  *http.Client
	roots   []*x509.Certificate
	va      *va.VAImpl
	dns     *resolver
	http01  *forwarder
	tlsalpn *forwarder
	close   sync.Once
}

// Start runs a CA with the zero [Options] until the end of the test.
func Start(t TB) *Server {
	t.Helper()
	return StartWith(t, Options{})
}

// StartWith is [Start] with options.
func StartWith(t TB, o Options) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// New runs a CA outside of a test, until Close.
func New(o Options) (*Server, error) {
	profiles, err := o.profiles()
	if err != nil {
		return nil, err
	}
	logger := o.Log
	if logger == nil {
		logger = log.New(io.Discard, "", 0)
	}
	s := &Server{}
	if s.dns, err = newResolver(); err != nil {
		return nil, err
	}
	for _, f := range []**forwarder{&s.http01, &s.tlsalpn} {
		if *f, err = newForwarder(); err != nil {
			s.Close()
			return nil, err
		}
	}
	store := db.NewMemoryStore()
	for kid, key := range o.ExternalAccounts {
		if err := store.AddExternalAccountKeyByID(kid, base64.RawURLEncoding.EncodeToString(key)); err != nil {
			s.Close()
			return nil, fmt.Errorf("acmetest: Options.ExternalAccounts: %w", err)
		}
	}
	issuer := ca.New(logger, store, "", "ecdsa", 0, 1, profiles)
	restore := setEnvironment()
	s.va = va.New(logger, s.http01.port(), s.tlsalpn.port(), false, cmp.Or(o.NameServer, s.dns.addr()), store)
	front := wfe.New(logger, store, s.va, issuer, []string{"acmetest.invalid"}, false, len(o.ExternalAccounts) > 0, 0, 0)
	restore()

	s.faults = newFaults(front.Handler(), store, s.dns)
	s.web = httptest.NewUnstartedServer(s.faults)
	s.web.Config.ErrorLog = logger
	s.web.StartTLS()
	s.client = s.web.Client()
	s.roots = []*x509.Certificate{issuer.GetRootCert(0).Cert, s.web.Certificate()}
	return s, nil
}

func (o Options) profiles() (map[string]ca.Profile, error) {
	lifetimes := o.Profiles
	if len(lifetimes) == 0 {
		lifetimes = map[string]time.Duration{"default": o.Lifetime}
	} else if o.Lifetime != 0 {
		return nil, errors.New("acmetest: Options.Lifetime and Options.Profiles are both set; give each profile its lifetime")
	}
	profiles := make(map[string]ca.Profile)
	for name, lifetime := range lifetimes {
		if lifetime < 0 || lifetime%time.Second != 0 {
			return nil, fmt.Errorf("acmetest: the lifetime %v is not a number of whole seconds", lifetime)
		}
		profiles[name] = ca.Profile{Description: "certificates for " + lifetime.String(), ValidityPeriod: uint64(lifetime / time.Second)}
	}
	return profiles, nil
}

var environment sync.Mutex // held while Pebble reads it

// setEnvironment takes Pebble's chance events out: they are switches here.
func setEnvironment() (restore func()) {
	environment.Lock()
	var undo []func() error
	for name, value := range map[string]string{
		"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_VA_ALWAYS_VALID": "0", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0",
	} {
		if old, ok := os.LookupEnv(name); ok {
			undo = append(undo, func() error { return os.Setenv(name, old) })
		} else {
			undo = append(undo, func() error { return os.Unsetenv(name) })
		}
		os.Setenv(name, value)
	}
	return func() {
		defer environment.Unlock()
		for _, u := range undo {
			u()
		}
	}
}

// Directory is the URL of the ACME directory.
func (s *Server) Directory() string { return s.web.URL + wfe.DirectoryPath }

// HTTPClient trusts the CA's own HTTPS endpoint, and only that.
func (s *Server) HTTPClient() *http.Client { return s.client }

// Roots verify the certificates that the CA issues, and its own HTTPS endpoint.
func (s *Server) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range s.roots {
		pool.AddCert(cert)
	}
	return pool
}

// RootCertificates are the members of Roots, for programs that read them from a file.
func (s *Server) RootCertificates() []*x509.Certificate { return slices.Clone(s.roots) }

// HTTP01 sets the addresses, host:port, at which the CA validates HTTP-01 challenges of every name,
// one after the other if there are several. Without addresses they fail.
func (s *Server) HTTP01(addrs ...string) { s.http01.to(addrs) }

// TLSALPN01 sets the addresses at which the CA validates TLS-ALPN-01 challenges, as [Server.HTTP01]
// does.
func (s *Server) TLSALPN01(addrs ...string) { s.tlsalpn.to(addrs) }

// Close ends the CA and waits for its goroutines. It may be called twice.
func (s *Server) Close() {
	s.close.Do(func() {
		if s.web != nil {
			s.faults.clear()
			s.web.CloseClientConnections()
			s.web.Close()
			s.client.CloseIdleConnections()
		}
		for _, f := range []*forwarder{s.http01, s.tlsalpn} {
			if f != nil {
				f.close()
			}
		}
		if s.va != nil {
			stopValidation(s.va)
		}
		s.dns.close()
	})
}

// stopValidation ends the goroutine that Pebble's validation authority waits for tasks
// with, for which Pebble offers nothing: it would be a leak to every test that looks for
// one. No request is left that could send a task.
func stopValidation(v *va.VAImpl) {
	tasks := reflect.ValueOf(v).Elem().FieldByName("tasks")
	reflect.NewAt(tasks.Type(), unsafe.Pointer(tasks.UnsafeAddr())).Elem().Close()
}

// within bounds what must not hold up Close.
func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 5*time.Second)
}
