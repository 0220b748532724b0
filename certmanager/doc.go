// Package certmanager reloads the certificates, CAs and revocation lists of a program's TLS
// connections without a restart.
//
// Start with [New] and one [Source], usually [Files], or acme.Source of package acme:
//
//	m, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
//		Cert:      "/etc/tls/tls.crt",
//		Key:       "/etc/tls/tls.key",
//		ClientCAs: "/etc/tls/clients.crt",
//	}})
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//
// Servers use [Manager.ServerTLS], clients [Manager.ClientTLS]; package meta takes the Manager
// itself. A source of your own is a type with two methods: see [Source].
//
// The Manager checks the contents of a source, makes a test signature with each new key, and then
// publishes everything as one immutable snapshot. If a check fails, the last good set stays in
// service. A handshake uses one snapshot from beginning to end and never waits for a file.
//
// When trust changes, open connections that the Manager tracks are verified again. Package meta and
// [Manager.NewListener] register theirs. For an http.Server, set ConnState to [Manager.ConnState];
// otherwise call [Manager.Accepting] or [Manager.Dialing].
//
// The minimum version is TLS 1.2, with ECDHE and AEAD cipher suites only, unless the program sets
// others in the config of [Manager.ServerTLS].
//
// This package does not fetch revocation lists (package crlfetch does), does not support OCSP, does
// not issue certificates, and opens no port.
package certmanager
