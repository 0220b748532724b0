// Package acme obtains certificates from a CA such as Let's Encrypt (RFC 8555), renews them
// and serves them through a certmanager.Manager. To use it is to agree to the CA's terms of
// service.
//
// Start with [Source]:
//
//	m, err := certmanager.New(certmanager.Options{Source: &acme.Source{
//		Domains: []string{"www.example.com"},
//		Email:   "tls@example.com",
//	}})
//
// The CA visits the name's address to prove control of it, on port 443 (TLS-ALPN-01, RFC
// 8737), where the Manager's server answers, or on port 80 (HTTP-01), where
// [certmanager.Manager.HTTPHandler] does.
//
// Certificates are renewed at a third of their lifetime before the end, with a new key
// each. Failures are retried with a growing interval, in which a Retry-After is
// honoured and which gets shorter towards the end of what is in service. No handshake
// gets an expired certificate.
//
// The requests to the CA are made by github.com/mholt/acmez. HostPolicy, Cache and the formats in
// the cache are those of golang.org/x/crypto/acme/autocert.
//
// What this package does not do: it revokes nothing, and it opens no port but those that
// Source.Listen and Source.ListenHTTP name, while certmanager.New waits for the first certificates.
package acme
