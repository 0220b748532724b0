package certmanager

import (
	"crypto"
	"crypto/x509"
)

// What the tests of package certmanager_test need to see of the inside.

// XSecrets returns the keys that a manager holds.
func XSecrets(m *Manager) (keys []crypto.PrivateKey, secrets [][]byte) {
	s := m.current.Load()
	for _, c := range s.certs {
		keys = append(keys, c.tls.PrivateKey)
	}
	for _, key := range s.in.material.all.ECHKeys {
		secrets = append(secrets, key.PrivateKey)
	}
	for _, key := range m.options.TicketKeys {
		secrets = append(secrets, key[:])
	}
	return keys, secrets
}

// XPaths returns all files that a source of files reads.
func XPaths(f Files) []string {
	pairs, _ := listPairs(f.Dir)
	return append(f.named(), pairs...)
}

// XLists returns the revocation lists in use, as they were parsed.
func XLists(m *Manager) (lists []*x509.RevocationList) {
	for _, l := range m.current.Load().policy.crls.All() {
		lists = append(lists, l.CRL)
	}
	return lists
}

// XHTTPConnections counts what ConnState has noted.
func XHTTPConnections(m *Manager) (n int) {
	m.http.Range(func(any, any) bool { n++; return true })
	return n
}

// XEmit makes an event, after all those that were made before.
func XEmit(m *Manager, kind Kind) { m.emit(Event{Kind: kind}) }

// XSelfSigned makes a certificate of which everything can be wrong.
var XSelfSigned = selfSigned
