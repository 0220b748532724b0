package pemfile_test

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// What cannot be read of a bundle is set aside with its number and name; the rest is there.
func TestUnreadableCertificatesOfABundle(t *testing.T) {
	w := newWorkshop(t)
	w.chain()
	w.openssl("req -x509 -new -key root.key -subj /CN=negative -set_serial -5 -days 2 -out negative.crt")
	w.openssl("ecparam -name secp256k1 -genkey -out k1.key")
	w.openssl("req -x509 -new -key k1.key -subj /CN=koblitz -days 2 -out k1.crt")
	nonsense := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("nonsense")})
	f, err := pemfile.Parse(bytes.Join([][]byte{w.read("root.crt"), w.read("negative.crt"), w.read("k1.crt"), nonsense, w.read("ca.crt")}, nil))
	require.NoError(t, err)
	found, err := f.Certificates()
	require.NoError(t, err)
	certs, aside := found.All, found.Aside
	require.Len(t, certs, 2)
	require.Len(t, aside, 3)
	assert.ErrorContains(t, aside[0].Err, `certificate 2 of 5 ("CN=negative")`)
	assert.ErrorContains(t, aside[1].Err, `certificate 3 of 5 ("CN=koblitz")`)
	assert.ErrorContains(t, aside[2].Err, "certificate 4 of 5 cannot be read")
	assert.Contains(t, string(aside[0].Name), "negative")
	assert.Nil(t, aside[2].Name)
	for _, data := range [][]byte{w.read("k1.crt"), derOf(t, w.read("k1.crt"))} {
		f, err = pemfile.Parse(data)
		require.NoError(t, err)
		_, err = f.Certificates()
		require.ErrorContains(t, err, `certificate 1 of 1 ("CN=koblitz")`)
	}
}

func derOf(t *testing.T, data []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(data)
	require.NotNil(t, block)
	return block.Bytes
}

// Lists of versions 1 and 2, PEM and DER, and one that is none.
func TestLists(t *testing.T) {
	w := newWorkshop(t)
	w.chain()
	w.write("index", "")
	w.write("number", "01\n")
	w.write("conf", "[ca]\ndefault_ca=c\n[c]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=1\nx509_extensions=e\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n")
	w.openssl("ca -config conf -cert ca.crt -keyfile ca.key -revoke leaf.crt")
	w.openssl("ca -config conf -cert ca.crt -keyfile ca.key -gencrl -out v2")
	w.write("conf", strings.Replace(string(w.read("conf")), "crl_extensions=e\n", "", 1))
	w.write("conf", strings.Replace(string(w.read("conf")), "crlnumber=number\n", "", 1))
	w.openssl("ca -config conf -cert ca.crt -keyfile ca.key -gencrl -out v1")
	issuer, err := pemfile.Parse(w.read("ca.crt"))
	require.NoError(t, err)
	found, err := issuer.Certificates()
	require.NoError(t, err)
	certs := found.All
	nonsense := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("nonsense")})
	for name, c := range map[string]struct {
		data         []byte
		lists, aside int
	}{
		"v1": {w.read("v1"), 1, 0}, "v2": {w.read("v2"), 1, 0},
		"v1 DER": {derOf(t, w.read("v1")), 1, 0}, "v2 DER": {derOf(t, w.read("v2")), 1, 0},
		"both, and nonsense": {bytes.Join([][]byte{w.read("v1"), nonsense, w.read("v2")}, nil), 2, 1},
	} {
		f, err := pemfile.Parse(c.data)
		require.NoError(t, err, name)
		found, err := f.Lists()
		require.NoError(t, err, name)
		lists, aside := found.All, found.Aside
		require.Len(t, lists, c.lists, name)
		require.Len(t, aside, c.aside, name)
		for _, l := range lists {
			require.NoError(t, l.CheckSignatureFrom(certs[0]), name)
			assert.Equal(t, certs[0].RawSubject, l.RawIssuer)
			assert.Equal(t, "CN=ca", l.Issuer.String())
			require.Len(t, l.RevokedCertificateEntries, 1)
			assert.False(t, l.NextUpdate.IsZero())
		}
		for _, a := range aside {
			assert.ErrorContains(t, a.Err, "revocation list 2 of 3")
		}
	}
}

// FuzzParse: whatever is in a file, parsing it ends with a value or with an error that quotes none
// of it.
func FuzzParse(f *testing.F) {
	needs.Corpus(f)
	ca, err := tlstest.GenerateCA()
	if err != nil {
		f.Fatal(err)
	}
	pair, err := ca.Generate(tlstest.Leaf{})
	if err != nil {
		f.Fatal(err)
	}
	crl, err := ca.GenerateCRL(tlstest.CRL{})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{
		pair.CertPEM, pair.KeyPEM, ca.PEM(), crl, pair.CertPEM[:100], append(pair.KeyPEM, pair.CertPEM...), nil,
		pem.EncodeToMemory(&pem.Block{Type: "ECHCONFIG", Bytes: []byte{0, 5, 0xfe, 0x0d, 0, 1, 1}}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES"}, Bytes: []byte{1}}),
	} {
		f.Add(seed)
	}
	for _, seed := range [][]byte{pair.CertPEM, pair.KeyPEM, crl} { // the same without the PEM, which mutations only break
		block, _ := pem.Decode(seed)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		parseAll(t, data)
		for _, title := range []string{"CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CRL", "PRIVATE KEY", "ECHCONFIG"} {
			parseAll(t, pem.EncodeToMemory(&pem.Block{Type: title, Bytes: data}))
		}
	})
}

// parseAll parses data as everything that a file can be.
func parseAll(t *testing.T, data []byte) {
	check := func(n int, err error) {
		if (err == nil) == (n == 0) {
			t.Errorf("%d values and the error %v", n, err)
		}
	}
	if _, certs, err := pemfile.PKCS12(data, ""); err == nil {
		check(len(certs), err)
	}
	f, err := pemfile.Parse(data)
	if err != nil {
		return
	}
	certs, err := f.Certificates()
	check(len(certs.All), err)
	for _, a := range certs.Aside {
		check(0, a.Err)
	}
	lists, err := f.Lists()
	check(len(lists.All), err)
	for _, l := range lists.All {
		if len(l.RawIssuer) == 0 {
			t.Error("a list of nobody")
		}
	}
	keys, err := f.Keys()
	check(len(keys), err)
	ech, err := f.ECH()
	check(len(ech), err)
}
