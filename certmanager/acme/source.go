package acme

import (
	"crypto/x509"
	"time"

	"golang.org/x/crypto/acme/autocert"
)

// Source is a [certmanager.Source] of certificates that a CA issues, one for each name.
//
// A Source belongs to one Manager until the Manager is closed; its fields must not be changed
// meanwhile. Invalid options are an error of New.
type Source struct {
	// Domains are the names for which certificates are obtained at start: DNS names, wildcards such as
	// "*.example.com", which need DNSPersist or DNS, and IP addresses (RFC 8738), for which Let's
	// Encrypt wants the Profile "shortlived". The certificate of an address is served to clients that
	// connect to it without SNI.
	Domains []string

	// HostPolicy allows further names. They are ordered when a handshake first asks for them and no
	// other source serves them. Nil allows none. A policy that allows any name is an error: anyone
	// could use up the account's rate limit by asking for names. HostPolicy is called in handshakes
	// for names that are not served, from many goroutines, and before each renewal; if it then
	// refuses, the certificate in service is served until it expires. With DNSPersist or DNS it is
	// also called with the wildcard, "*.example.com", of a name that it refuses.
	HostPolicy autocert.HostPolicy

	// MaxNames limits the names of HostPolicy in memory. Beyond it the least recently used name is
	// dropped; its certificate stays in the Cache. Zero is 1000.
	MaxNames int

	// OrdersPerHour limits the orders for names of HostPolicy that have no certificate. It does not
	// apply to Domains and renewals. Zero is 60.
	OrdersPerHour int

	// DNSPersist proves control of the names by a TXT record that an operator writes once
	// (DNS-PERSIST-01, draft-ietf-acme-dns-persist): no port has to be open and no credentials of a
	// DNS provider have to be in the program. The error of New, events and Status contain the record,
	// and [Source.Records] returns it. Nothing is ordered before the record exists. While it exists,
	// anyone with the account key in the Cache can order certificates for these names.
	DNSPersist bool

	// PersistUntil is the expiry in the record of DNSPersist. Zero is none.
	PersistUntil time.Time

	// DNS proves control of the names by records that the program writes itself (DNS-01), with any
	// provider of github.com/libdns. With DNSPersist or DNS the other challenges are used only for
	// IP addresses.
	DNS DNSProvider

	// DNSServers are addresses, host:port, of name servers to ask for records instead of the system's
	// and the zone's own. DNSTimeout limits the wait until a written record is served. Zero is 2
	// minutes; StartTimeout limits it too while New waits.
	DNSServers []string
	DNSTimeout time.Duration

	// Email is the contact address of the account; it is optional.
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
	// another. The account that an autocert.Manager stored in it is reused, and its certificates if
	// Roots, or those of the system, verify them. Several CAs may share a Cache.
	//
	// Several machines may share a Cache too. If it has a method Lock(ctx context.Context, name
	// string) (unlock func(), err error), as that of package rediscache, one of them orders and the
	// others load its certificate. The programs of one machine may share an autocert.DirCache in the
	// same way, except on Windows.
	Cache autocert.Cache

	// Key is the type of the certificates' keys. Zero is ECDSA P-256.
	Key KeyType

	// Profile is the CA's certificate profile, for example "shortlived". Empty is the CA's
	// choice.
	Profile string

	// RenewBefore is how long before its expiry a certificate is renewed, at most half of its
	// lifetime. Zero is a third of the lifetime. If the CA offers renewal information (RFC 9773), the
	// CA decides, but the certificate is renewed at the latest when half of this time is left.
	RenewBefore time.Duration

	// HandshakeTimeout is how long a handshake for a name without a certificate waits for an order.
	// Zero is 5 seconds, negative not at all.
	HandshakeTimeout time.Duration

	// Background lets New return before the Domains have certificates. They are ordered a second
	// later; until then the certificate of another source is served, or none. Without Background, New
	// waits for all of them, at most StartTimeout. Zero is a minute.
	Background   bool
	StartTimeout time.Duration

	// Listen is the address on which New answers TLS-ALPN-01 while it waits, because no server of the
	// program runs yet. Empty is ":443". ListenHTTP is the same for HTTP-01; empty means none.
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

// ExternalAccount has the credentials from a CA for external account binding.
type ExternalAccount struct {
	KeyID  string // the identifier of the account at the CA
	MACKey string // the secret, in base64url as CAs display it
}

// KeyType is the type of a private key.
type KeyType int

// The types of keys of certificates.
const (
	ECDSAP256 KeyType = iota
	ECDSAP384
	RSA2048
)
