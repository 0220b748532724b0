package tlstest

import "crypto/tls"

// ServerConfig returns a configuration with a new certificate for the names,
// which default to those of [Leaf]. It asks for no client certificate.
func (ca *CA) ServerConfig(t TB, names ...string) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{
		ca.Issue(t, Leaf{Names: names, Usage: ServerOnly}).Certificate(),
	}}
}

// MutualServerConfig is [CA.ServerConfig] for a server that requires a client
// certificate below the root of this CA.
func (ca *CA) MutualServerConfig(t TB, names ...string) *tls.Config {
	t.Helper()
	config := ca.ServerConfig(t, names...)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	return config
}

// ClientConfig returns a configuration that trusts the root of this CA only and
// expects the server to be serverName. It has no client certificate.
func (ca *CA) ClientConfig(_ TB, serverName string) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: serverName}
}

// MutualClientConfig is [CA.ClientConfig] with a certificate for client. The client also presents
// it to a server that asks for other issuers, for which crypto/tls would send none. So a test can
// see that a client of another CA is refused because of its CA.
func (ca *CA) MutualClientConfig(t TB, serverName string, client Leaf) *tls.Config {
	t.Helper()
	config := ca.ClientConfig(t, serverName)
	cert := ca.Issue(t, client).Certificate()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &cert, nil
	}
	return config
}
