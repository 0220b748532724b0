package certmanager

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/net/idna"
)

// ACME is a Source of certificates that a CA such as Let's Encrypt issues by itself
// (RFC 8555), one for each name. To use it is to agree to the CA's terms of service.
//
//	m, err := certmanager.New(certmanager.Options{Source: &certmanager.ACME{
//		Domains: []string{"www.example.com"},
//		Email:   "tls@example.com",
//	}})
//
// The CA visits the name's address to prove control of it, on port 443 (TLS-ALPN-01, RFC
// 8737), where [Manager.NewListener] and servers of package meta answer, or on port 80
// (HTTP-01), where [Manager.HTTPHandler] does. The challenge handshake asks for no client
// certificate, so a server with [Manager.ServerTLS] alone does not answer it.
//
// Certificates are renewed at a third of their lifetime before the end, with a new key
// each. Failures are retried with a growing interval, in which a Retry-After is
// honoured and which gets shorter towards the end of what is in service. No handshake
// gets an expired certificate.
//
// The pointer belongs to one Manager until that is closed, and its fields must not be
// changed meanwhile.
type ACME struct {
	// Domains are DNS names for which certificates are obtained at start. Wildcards, which
	// need challenges in DNS, and IP addresses are errors.
	Domains []string

	// HostPolicy allows further names, which are ordered when the first handshake asks for
	// them and no other source serves them. Nil allows none. A policy that allows any name is an
	// error: anyone could spend the rate limit of the account by asking for
	// names. It may be called by every handshake for a name that is not served, and is
	// asked again before each renewal; what is in service when it refuses is served to its end.
	HostPolicy autocert.HostPolicy

	// Email is where the CA writes to. Optional.
	Email string

	// Directory is the URL of the CA's directory. Empty is Let's Encrypt, "staging" its
	// staging environment, whose certificates nobody trusts.
	Directory string

	// Roots verify the HTTPS connection to a private CA. Nil is the system's roots.
	Roots *x509.CertPool

	// ExternalAccount binds the ACME account to one that the CA knows otherwise (RFC 8555
	// section 7.3.4). Nil is none.
	ExternalAccount *acme.ExternalAccountBinding

	// Cache holds the account key and the certificates with their keys, in the layout of
	// autocert.Manager: its cache can be taken over. Nil is the folder of
	// autocert.NewListener, golang-autocert in the user's cache folder; use
	// autocert.DirCache for another. Each Directory wants a Cache of its own.
	//
	// Several machines share a Cache. If it has a method
	// Lock(ctx context.Context, name string) (unlock func(), err error), as that of
	// package rediscache, one of them orders and the others take what it got.
	Cache autocert.Cache

	// Key is the type of the certificates' keys. Zero is ECDSA P-256.
	Key KeyType

	// Profile is the CA's certificate profile, for example "shortlived". Empty is the CA's
	// choice.
	Profile string

	// RenewBefore is how long before its end a certificate is renewed, at most half of its
	// lifetime. Zero is a third of the lifetime. Where the CA offers renewal
	// information (RFC 9773), the CA decides, within the same bound.
	RenewBefore time.Duration

	// HandshakeTimeout is how long a handshake for a name without a certificate waits for
	// the one that is being ordered. Zero is 5 seconds, negative not at all.
	HandshakeTimeout time.Duration

	// Background lets New return before the Domains have certificates: they are ordered
	// from a second later on, and until then another source's certificate is served, or
	// none. Otherwise New waits for all of them, at most StartTimeout, zero is a minute.
	Background   bool
	StartTimeout time.Duration

	// Listen is the address on which New itself answers TLS-ALPN-01 while it waits, and
	// only then, since no server of the program can. Empty is ":443". ListenHTTP is the
	// same for HTTP-01. Empty is none.
	Listen, ListenHTTP string

	state *acmeState // set by open
}

// KeyType is the type of a private key.
type KeyType int

// The types of keys that ACME makes.
const (
	ECDSAP256 KeyType = iota
	ECDSAP384
	RSA2048
)

const (
	directoryStaging        = "https://acme-staging-v02.api.letsencrypt.org/directory"
	defaultHandshakeTimeout = 5 * time.Second
	defaultStartTimeout     = time.Minute
	defaultACMEListen       = ":443"
)

// ready returns a copy with defaults filled in and names normalized, or what is wrong.
func (a *ACME) ready() (ACME, error) {
	o := *a
	o.Domains = nil
	for _, domain := range a.Domains {
		name, err := acmeNameOf(domain)
		if err != nil {
			return o, fmt.Errorf("ACME.Domains: %w", err)
		}
		if !slices.Contains(o.Domains, name) {
			o.Domains = append(o.Domains, name)
		}
	}
	switch {
	case len(o.Domains) == 0 && o.HostPolicy == nil:
		return o, fmt.Errorf("%w: ACME.Domains and ACME.HostPolicy are both empty: say which names are yours", ErrInvalid)
	case o.HostPolicy != nil && o.HostPolicy(context.Background(), strings.ToLower(rand.Text())+".invalid") == nil:
		return o, fmt.Errorf("%w: ACME.HostPolicy allows any name: anyone could spend your rate limit at the CA", ErrInvalid)
	case o.RenewBefore < 0 || o.StartTimeout < 0:
		return o, fmt.Errorf("%w: ACME.RenewBefore and ACME.StartTimeout must not be negative", ErrInvalid)
	case o.Key < ECDSAP256 || o.Key > RSA2048:
		return o, fmt.Errorf("%w: ACME.Key %d is none of ECDSAP256, ECDSAP384 and RSA2048", ErrInvalid, o.Key)
	}
	switch o.Directory {
	case "":
		o.Directory = autocert.DefaultACMEDirectory
	case "staging":
		o.Directory = directoryStaging
	}
	if o.Cache == nil {
		folder, err := os.UserCacheDir()
		if err != nil {
			return o, fmt.Errorf("ACME.Cache is not set, and there is no default: %w", err)
		}
		o.Cache = autocert.DirCache(filepath.Join(folder, "golang-autocert"))
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = defaultHandshakeTimeout
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = defaultStartTimeout
	}
	if o.Listen == "" {
		o.Listen = defaultACMEListen
	}
	return o, nil
}

// acmeNameOf returns the form in which a name is ordered and cached, or why no public CA
// would issue for it.
func acmeNameOf(name string) (string, error) {
	if strings.HasPrefix(name, "*.") {
		return "", fmt.Errorf("%w: %q: wildcards need challenges in DNS, which are not supported", ErrInvalid, name)
	}
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
	if err != nil {
		return "", fmt.Errorf("%w: %q is not a DNS name: %w", ErrInvalid, name, err)
	}
	labels := strings.Split(ascii, ".")
	if _, err := netip.ParseAddr(ascii); err == nil || len(labels) < 2 || slices.Contains(labels, "") || len(ascii) > 253 {
		return "", fmt.Errorf("%w: %q is not a DNS name with a dot in it", ErrInvalid, name)
	}
	return ascii, nil
}

// open prepares the source for a Manager, before anything else is called.
func (a *ACME) open(m *Manager) error {
	if a.state != nil && !a.state.ended.Load() {
		return errors.New("the ACME source belongs to another Manager that is not closed: make a new one")
	}
	o, err := a.ready()
	if err != nil {
		return err
	}
	for _, other := range m.acme {
		for _, name := range o.Domains {
			if other.names[name] != nil {
				return fmt.Errorf("%w: ACME.Domains: %q stands in two sources; a name belongs to one", ErrInvalid, name)
			}
		}
	}
	a.state = newACMEState(a, o, m)
	m.acme = append(m.acme, a.state)
	return nil
}

// Load implements [Source]. It waits for what New waits for.
func (a *ACME) Load(ctx context.Context, previous *Material) (*Material, error) {
	s := a.state
	if s == nil { // a candidate of Impact: it brings no trust
		return &Material{}, nil
	}
	select {
	case <-s.started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.startErr != nil {
		return nil, s.startErr
	}
	return s.material(), nil
}

// Watch implements [Source].
func (a *ACME) Watch(ctx context.Context, _ func(), _ func(Event)) error {
	a.state.run(ctx)
	return nil
}
