// Package acme obtains certificates from a CA such as Let's Encrypt (RFC 8555), renews them and
// serves them through a certmanager.Manager. By using it you agree to the CA's terms of service.
//
// Start with [Source]:
//
//	m, err := certmanager.New(certmanager.Options{Source: &acme.Source{
//		Domains: []string{"www.example.com"},
//		Email:   "tls@example.com",
//	}})
//
// To verify control of a name the CA connects to the name's address: to port 443 (TLS-ALPN-01, RFC
// 8737), where the Manager's server answers, or to port 80 (HTTP-01), where
// [certmanager.Manager.HTTPHandler] answers.
//
// A certificate is renewed, with a new key, when a third of its lifetime is left. Failed orders are
// repeated at growing intervals, which get shorter as the certificate in service nears its end. A
// Retry-After is honoured. No handshake gets an expired certificate.
//
// The requests to the CA are made by github.com/mholt/acmez. HostPolicy, Cache and the formats in
// the cache are those of golang.org/x/crypto/acme/autocert.
//
// What this package does not do: it does not revoke certificates. It opens no ports, except those
// of [Source.Listen] and [Source.ListenHTTP] while certmanager.New waits for the first
// certificates.
package acme
