package acme

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
)

// Source is a [certmanager.Source] of certificates that a CA issues, one for each name.
//
// The pointer belongs to one Manager until that is closed, and its fields must not be
// changed meanwhile.
type Source struct {
	// Domains are the names for which certificates are obtained at start: DNS names, wildcards such
	// as "*.example.com", which need DNSPersist or DNS, and IP addresses (RFC 8738), for which
	// Let's Encrypt wants the Profile "shortlived". An address is served to clients that name no
	// server and connect to it.
	Domains []string

	// HostPolicy allows further names. They are ordered when a handshake first asks for them and no
	// other source serves them. Nil allows none. A policy that allows any name is an error: anyone
	// could use up the account's rate limit by asking for names. Every handshake for a name that is
	// not served may call it, and so does each renewal; if it then refuses, the certificate in
	// service is served until it expires. With DNSPersist or DNS it is also asked for the wildcard,
	// "*.example.com", of a name that it refuses.
	HostPolicy autocert.HostPolicy

	// MaxNames limits the names of HostPolicy in memory. Above it the least recently used name is
	// dropped; its certificate stays in the Cache. Zero is 1000.
	MaxNames int

	// OrdersPerHour limits the orders for names of HostPolicy that have no certificate. It does not
	// apply to Domains and renewals. Zero is 60.
	OrdersPerHour int

	// DNSPersist proves control of the names by a TXT record that an operator writes once
	// (DNS-PERSIST-01, draft-ietf-acme-dns-persist): no port has to be open and no credentials of a
	// DNS provider have to be in the program. The record is in the error of New, in events and in
	// Status, and [Source.Records] returns it. Nothing is ordered before the record exists. Anyone
	// with the account key in the Cache can order for these names while it exists.
	DNSPersist bool

	// PersistUntil is the expiry in the record of DNSPersist. Zero is none.
	PersistUntil time.Time

	// DNS proves control of the names by records that the program writes itself (DNS-01), with any
	// provider of github.com/libdns. With DNSPersist or DNS the other challenges are used only for
	// IP addresses.
	DNS DNSProvider

	// DNSServers are addresses, host:port, of name servers that are asked for records instead of
	// the system's and the zone's own. DNSTimeout limits the wait until a written record is served.
	// Zero is 2 minutes; StartTimeout bounds it too while New waits.
	DNSServers []string
	DNSTimeout time.Duration

	// Email is the contact address of the account. Optional.
	Email string

	// Directory is the URL of the CA's directory. Empty is Let's Encrypt, "staging" its staging
	// environment, whose certificates are not trusted.
	Directory string

	// Roots verify the HTTPS connection to a private CA. Nil is the system's roots.
	Roots *x509.CertPool

	// ExternalAccount binds the ACME account to an existing account at the CA (RFC 8555 section
	// 7.3.4). Nil is none.
	ExternalAccount *ExternalAccount

	// Fallbacks are further CAs, used in this order if those before them do not issue. A renewal
	// starts with the CA that issued the name's last certificate. Each CA has its own account.
	Fallbacks []CA

	// Cache holds the account key and the certificates with their keys. Nil is the folder of
	// autocert.NewListener, golang-autocert in the user's cache folder; use autocert.DirCache for
	// another. The account and certificates that an autocert.Manager stored in it are reused if
	// they are of the same CA. Several CAs may share a Cache.
	//
	// Several machines may share a Cache too. If it has a method Lock(ctx context.Context, name
	// string) (unlock func(), err error), as that of package rediscache, one of them orders and the
	// others load its certificate.
	Cache autocert.Cache

	// Key is the type of the certificates' keys. Zero is ECDSA P-256.
	Key KeyType

	// Profile is the CA's certificate profile, for example "shortlived". Empty is the CA's
	// choice.
	Profile string

	// RenewBefore is how long before its end a certificate is renewed, at most half of its
	// lifetime. Zero is a third of the lifetime. If the CA offers renewal information (RFC 9773),
	// the CA decides, within the same limit.
	RenewBefore time.Duration

	// HandshakeTimeout is how long a handshake for a name without a certificate waits for an order.
	// Zero is 5 seconds, negative not at all.
	HandshakeTimeout time.Duration

	// Background lets New return before the Domains have certificates. They are ordered a second
	// later; until then another source's certificate is served, or none. Otherwise New waits for
	// all of them, at most StartTimeout. Zero is a minute.
	Background   bool
	StartTimeout time.Duration

	// Listen is the address on which New answers TLS-ALPN-01 while it waits, because no server of
	// the program runs yet. Empty is ":443". ListenHTTP is the same for HTTP-01. Empty is none.
	Listen, ListenHTTP string

	state *state // guarded by binding
}

// CA is a further CA, see [Source.Fallbacks].
type CA struct {
	Directory       string           // as Source.Directory
	Roots           *x509.CertPool   // as Source.Roots
	ExternalAccount *ExternalAccount // as Source.ExternalAccount
	Profile         string           // as Source.Profile
}

// ExternalAccount has the credentials that a CA gives out for external account binding.
type ExternalAccount struct {
	KeyID  string // names the account that the CA knows
	MACKey string // is the secret, in base64url as CAs show it
}

// KeyType is the type of a private key.
type KeyType int

// The types of keys of certificates.
const (
	ECDSAP256 KeyType = iota
	ECDSAP384
	RSA2048
)

const (
	directoryStaging        = "https://acme-staging-v02.api.letsencrypt.org/directory"
	defaultHandshakeTimeout = 5 * time.Second
	defaultStartTimeout     = time.Minute
	defaultListen           = ":443"
	defaultDNSTimeout       = 2 * time.Minute
	defaultMaxNames         = 1000
	defaultOrdersPerHour    = 60
)

// ready returns a copy with defaults filled in and names normalized, or what is wrong.
func (a *Source) ready() (Source, error) {
	o := *a
	o.state = nil
	o.Domains = nil
	for _, domain := range a.Domains {
		name, err := identifier(domain, a.DNSPersist || a.DNS != nil)
		if err != nil {
			return o, fmt.Errorf("acme.Source.Domains: %w", err)
		}
		if !slices.Contains(o.Domains, name) {
			o.Domains = append(o.Domains, name)
		}
	}
	if err := o.possible(); err != nil {
		return o, err
	}
	var err error
	if o.Directory, err = directoryURL(o.Directory); err != nil {
		return o, err
	}
	if o.Fallbacks, err = o.readyFallbacks(); err != nil {
		return o, err
	}
	if o.Cache == nil {
		folder, err := os.UserCacheDir()
		if err != nil {
			return o, fmt.Errorf("acme.Source.Cache is not set, and there is no default: %w", err)
		}
		o.Cache = autocert.DirCache(filepath.Join(folder, "golang-autocert"))
	}
	o.HandshakeTimeout = orDefault(o.HandshakeTimeout, defaultHandshakeTimeout)
	o.StartTimeout = orDefault(o.StartTimeout, defaultStartTimeout)
	o.DNSTimeout = orDefault(o.DNSTimeout, defaultDNSTimeout)
	o.Listen = orDefault(o.Listen, defaultListen)
	o.MaxNames = orDefault(o.MaxNames, defaultMaxNames)
	o.OrdersPerHour = orDefault(o.OrdersPerHour, defaultOrdersPerHour)
	return o, nil
}

// possible says what is wrong with the options, taken by themselves.
func (a *Source) possible() error {
	switch {
	case len(a.Domains) == 0 && a.HostPolicy == nil:
		return invalid("Domains and HostPolicy are both empty: say which names are yours")
	case a.HostPolicy != nil && a.askPolicy(context.Background(), strings.ToLower(rand.Text())+".invalid") == nil:
		return invalid("HostPolicy allows any name: anyone could spend your rate limit at the CA")
	case a.RenewBefore < 0 || a.StartTimeout < 0 || a.DNSTimeout < 0 || a.MaxNames < 0 || a.OrdersPerHour < 0:
		return invalid("RenewBefore, StartTimeout, DNSTimeout, MaxNames and OrdersPerHour must not be negative")
	case a.Key < ECDSAP256 || a.Key > RSA2048:
		return invalid("Key %d is none of ECDSAP256, ECDSAP384 and RSA2048", a.Key)
	}
	return a.ExternalAccount.check()
}

func (e *ExternalAccount) check() error {
	if e == nil {
		return nil
	}
	if key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(e.MACKey, "=")); e.KeyID == "" || err != nil || len(key) == 0 {
		return invalid("ExternalAccount: KeyID or MACKey is empty, or MACKey is not base64url")
	}
	return nil
}

// readyFallbacks returns a copy with URLs in place of short names.
func (a *Source) readyFallbacks() ([]CA, error) {
	all, directories := slices.Clone(a.Fallbacks), []string{a.Directory}
	for i := range all {
		var err error
		if all[i].Directory, err = directoryURL(all[i].Directory); err == nil {
			err = all[i].ExternalAccount.check()
		}
		if err != nil {
			//lint:ignore ST1005 it is the name of an option
			return nil, fmt.Errorf("Fallbacks[%d]: %w", i, err)
		}
		if slices.Contains(directories, all[i].Directory) {
			return nil, invalid("Fallbacks[%d]: %s is there already", i, all[i].Directory)
		}
		directories = append(directories, all[i].Directory)
	}
	return all, nil
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: acme.Source.%s", certmanager.ErrInvalid, fmt.Sprintf(format, args...))
}

// directoryURL returns the URL of a directory, or what is wrong with it.
func directoryURL(directory string) (string, error) {
	switch directory {
	case "":
		return autocert.DefaultACMEDirectory, nil
	case "staging":
		return directoryStaging, nil
	}
	u, err := url.Parse(directory)
	if err == nil && (u.Scheme != "https" || u.Host == "" || u.Fragment != "") {
		err = errors.New("it is not an https URL")
	}
	if err != nil {
		return "", invalid("Directory: %q: %v; use the URL of a CA's directory, \"staging\", or nothing for Let's Encrypt", directory, err)
	}
	return directory, nil
}
