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
// To verify control of a name, the CA connects to the name's address: to port 443 (TLS-ALPN-01, RFC
// 8737), where the Manager's server answers, or to port 80 (HTTP-01), where
// [certmanager.Manager.HTTPHandler] answers.
//
// A certificate is renewed, with a new key, when a third of its lifetime is left. Failed orders are
// repeated at growing intervals, which get shorter as the certificate in service nears its expiry.
// A Retry-After is honored. No handshake gets an expired certificate.
//
// The requests to the CA are made by github.com/mholt/acmez. HostPolicy, Cache and the formats in
// the cache are those of golang.org/x/crypto/acme/autocert.
//
// At Let's Encrypt a Source makes at most 300 orders in a row and then one every 36 seconds, which
// is the limit of an account. Renewals do not count.
//
// This package does not revoke certificates. It opens no ports, except those of [Source.Listen] and
// [Source.ListenHTTP] while certmanager.New waits for the first certificates.
package acme

// The files, in the order in which they are read:
//
//	source.go, options.go    the options, and what is wrong with them
//	state.go, start.go       a Source at work for a Manager: Load, Watch, what New waits for
//	name.go                  a name: its forms, and its certificate
//	maintain.go              the goroutine of a name: what is next, and when
//	schedule.go              when to renew and when to try again: functions of times
//	renew.go                 an attempt: lock, order, putting in service, the next attempt
//	order.go, finish.go      an order, at one CA after the other; the certificate of an order
//	challenge.go             the proof of control
//	dns.go, dns01.go, persist.go   its records in DNS
//	listen.go, handshake.go  answers to CAs and to clients
//	ca.go, transport.go      the account, and the requests
//	storage.go, certificate.go, encoding.go, lock_unix.go   the cache
//	errors.go                what a failure means
