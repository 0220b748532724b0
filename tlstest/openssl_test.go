package tlstest_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// openssl runs the real program, a judge that shares no code with crypto/x509.
func openssl(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), needs.Program(t, "openssl"), args...).CombinedOutput()
	return string(out), err
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, tlstest.WriteFile(path, data, 0o600))
	return path
}

func TestOpenSSLVerifies(t *testing.T) {
	root := tlstest.NewCA(t)
	sub := root.Intermediate(t).Intermediate(t)
	otherCA := tlstest.NewCA(t)
	for name, test := range map[string]struct {
		issuer  *tlstest.CA
		leaf    tlstest.Leaf
		purpose string
		refuse  string
	}{
		"ECDSA":           {root, tlstest.Leaf{}, "sslserver", ""},
		"RSA":             {root, tlstest.Leaf{Key: tlstest.RSA2048}, "sslserver", ""},
		"Ed25519":         {root, tlstest.Leaf{Key: tlstest.Ed25519}, "sslserver", ""},
		"client":          {root, tlstest.Leaf{CommonName: "a", Usage: tlstest.ClientOnly}, "sslclient", ""},
		"intermediates":   {sub, tlstest.Leaf{URIs: []string{"spiffe://example.test/a"}}, "sslserver", ""},
		"expired":         {root, tlstest.Leaf{}.Expired(), "sslserver", "certificate has expired"},
		"not yet valid":   {root, tlstest.Leaf{}.NotYetValid(), "sslserver", "certificate is not yet valid"},
		"server only":     {root, tlstest.Leaf{Usage: tlstest.ServerOnly}, "sslclient", "unsuitable certificate purpose"},
		"wrong usage":     {root, tlstest.Leaf{Usage: tlstest.WrongUsage}, "sslserver", "unsuitable certificate purpose"},
		"another root":    {otherCA, tlstest.Leaf{}, "sslserver", "unable to get local issuer certificate"},
		"self-made names": {root, tlstest.Leaf{Names: []string{"*.example.test", "192.0.2.1"}}, "sslserver", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cert, key := test.issuer.Issue(t, test.leaf).Files(t, dir, "leaf")
			out, err := openssl(t, "verify", "-x509_strict", "-purpose", test.purpose,
				"-CAfile", write(t, dir, "root.crt", root.PEM()), "-untrusted", cert, cert)
			if test.refuse != "" {
				require.Error(t, err)
				require.Contains(t, out, test.refuse)
			} else {
				require.NoError(t, err, out)
			}

			_, err = openssl(t, "pkey", "-in", key, "-noout", "-check")
			require.NoError(t, err)
			ofKey, err := openssl(t, "pkey", "-in", key, "-pubout")
			require.NoError(t, err)
			ofCert, err := openssl(t, "x509", "-in", cert, "-noout", "-pubkey")
			require.NoError(t, err)
			assert.Equal(t, ofKey, ofCert)
		})
	}
}

func TestOpenSSLReadsNames(t *testing.T) {
	cert, _ := tlstest.NewCA(t).Issue(t, tlstest.Leaf{
		CommonName: "reader",
		Names:      []string{"a.example.test", "192.0.2.1", "2001:db8::1"},
		URIs:       []string{"spiffe://example.test/a"},
	}).Files(t, t.TempDir(), "leaf")
	out, err := openssl(t, "x509", "-in", cert, "-noout", "-subject", "-ext", "subjectAltName,extendedKeyUsage")
	require.NoError(t, err)
	for _, want := range []string{"reader", "DNS:a.example.test", "IP Address:192.0.2.1",
		"IP Address:2001:DB8:0:0:0:0:0:1", "URI:spiffe://example.test/a",
		"TLS Web Server Authentication, TLS Web Client Authentication"} {
		assert.Contains(t, out, want)
	}
}

func TestOpenSSLChecksCRL(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	good, _ := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "good")
	revoked := ca.Issue(t, tlstest.Leaf{})
	bad, _ := revoked.Files(t, dir, "bad")
	args := []string{"verify", "-x509_strict", "-crl_check", "-CAfile", write(t, dir, "root.crt", ca.PEM()),
		"-CRLfile", write(t, dir, "list.crl", ca.CRL(t, revoked.Leaf))}

	out, err := openssl(t, append(args, good)...)
	require.NoError(t, err, out)
	out, err = openssl(t, append(args, bad)...)
	require.Error(t, err)
	assert.Contains(t, out, "certificate revoked")
}
