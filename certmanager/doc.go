// Package certmanager keeps the certificates and the trust of a program's TLS
// connections fresh without a restart.
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
// Servers use [Manager.ServerTLS], clients [Manager.ClientTLS], and package meta takes the
// Manager itself. Other sources are types with two methods: see [Source].
//
// What a source gives is rehearsed first and then published as one immutable
// snapshot: every handshake uses one snapshot from beginning to end, a candidate
// that fails its rehearsal leaves the last good set in service, and a handshake
// never waits for a file. Connections that are open while trust changes are judged
// again if the manager knows of them: package meta tells it, for an http.Server set
// ConnState to [Manager.ConnState], for others call [Manager.Accepting] or [Manager.Dialing].
//
// TLS 1.2 is the floor, with ECDHE and AEAD cipher suites only.
//
// What this package does not do: it fetches no revocation lists and speaks no OCSP, issues
// nothing by itself, and opens no port.
package certmanager
