package interop

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// certs is one set of files for all programs. For each name there is name.crt, name.key and, with
// both in it, name.pem.
var certs folder

type folder struct{ dir string }

// The reasons for which a client is refused, and what it presents.
var refusals = []struct{ kind, client string }{
	{"no certificate", ""},
	{"wrong CA", "stranger"},
	{"expired", "expired"},
	{"revoked", "revoked"},
}

func (f *folder) file(name string) string { return filepath.Join(f.dir, name) }

// make fills the folder.
func (f *folder) make(dir string) error {
	f.dir = dir
	ca, err1 := tlstest.GenerateCA()
	other, err2 := tlstest.GenerateCA()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	client := func(name string) tlstest.Leaf { return tlstest.Leaf{CommonName: name, Usage: tlstest.ClientOnly} }
	server := tlstest.Leaf{CommonName: "server", Names: []string{"localhost", "127.0.0.1"}, Usage: tlstest.ServerOnly}
	_, err1 = f.issue(ca, "server", server)
	server.Key, server.NotAfter = tlstest.RSA2048, time.Now().AddDate(0, 0, 90)
	_, err6 := f.issue(ca, "rsa", server)
	server.Key = tlstest.ECDSAP256
	_, err7 := f.issue(ca, "ecdsa", server)
	_, err2 = f.issue(ca, "client", client("client"))
	_, err3 := f.issue(other, "stranger", client("stranger"))
	_, err4 := f.issue(ca, "expired", client("expired").Expired())
	revoked, err5 := f.issue(ca, "revoked", client("revoked"))
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		return err
	}
	crl, err := ca.GenerateCRL(tlstest.CRL{Revoked: []*x509.Certificate{revoked.Leaf}})
	return errors.Join(err,
		os.WriteFile(f.file("crl.pem"), crl, 0o644),
		os.WriteFile(f.file("root.crt"), ca.PEM(), 0o644),
		os.WriteFile(f.file("other.crt"), other.PEM(), 0o644),
		f.openSSLConfigs())
}

func (f *folder) issue(ca *tlstest.CA, name string, leaf tlstest.Leaf) (*tlstest.Pair, error) {
	pair, err := ca.Generate(leaf)
	if err != nil {
		return nil, err
	}
	_, _, err = pair.WriteFiles(f.dir, name)
	both := append(append([]byte{}, pair.CertPEM...), pair.KeyPEM...)
	return pair, errors.Join(err, os.WriteFile(f.file(name+".pem"), both, 0o600))
}

// openSSLConfigs are for programs on OpenSSL that have no option for the version.
func (f *folder) openSSLConfigs() error {
	var errs []error
	for _, version := range versions {
		config := fmt.Sprintf("openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nMinProtocol = TLSv%s\nMaxProtocol = TLSv%[1]s\n", version)
		errs = append(errs, os.WriteFile(f.file("openssl-"+version+".cnf"), []byte(config), 0o644))
	}
	return errors.Join(errs...)
}

// alpn is the protocol that both sides offer where they can: the one that all programs know.
const alpn = "http/1.1"

// manager is a certificate manager whose configurations offer the protocol alpn.
type manager struct {
	*certmanager.Manager
	client *tls.Config // one for all connections: the sessions to resume are the configuration's
}

func (m manager) ServerTLS() *tls.Config {
	config := m.Manager.ServerTLS()
	config.NextProtos = []string{alpn}
	return config
}

func (m manager) ClientTLS(string) *tls.Config { return m.client }

// serverManager has the server's certificate and, if mutual, asks for one of a client.
func serverManager(t *testing.T, mutual bool) manager {
	files := certmanager.Files{Cert: certs.file("server.crt"), Key: certs.file("server.key")}
	if mutual {
		files.ClientCAs, files.CRLs = certs.file("root.crt"), certs.file("crl.pem")
	}
	return newManager(t, files)
}

// clientManager trusts the servers of root and presents the certificate of client, none if it is
// empty. The certificate may be one that a manager would not load.
func clientManager(t *testing.T, root, client string) manager {
	m := newManager(t, certmanager.Files{RootCAs: certs.file(root)})
	m.client = m.Manager.ClientTLS("localhost")
	m.client.NextProtos = []string{alpn}
	var own tls.Certificate
	if client != "" {
		var err error
		own, err = tls.LoadX509KeyPair(certs.file(client+".crt"), certs.file(client+".key"))
		require.NoError(t, err)
	}
	m.client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	return m
}

func newManager(t *testing.T, files certmanager.Files) manager {
	m, err := certmanager.New(certmanager.Options{Source: files})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return manager{Manager: m}
}
