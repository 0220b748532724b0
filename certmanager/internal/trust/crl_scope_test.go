package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// partialCRL makes a list with an extension.
func partialCRL(t *testing.T, ca *x509.Certificate, key crypto.Signer, ext pkix.Extension) *x509.RevocationList {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{ext},
	}, ca, key)
	require.NoError(t, err)
	list, err := x509.ParseRevocationList(der)
	require.NoError(t, err)
	return list
}

func TestCRLOfAPart(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte{1},
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	ca, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	bit := func(tag byte) []byte { return []byte{0x30, 3, 0x80 | tag, 1, 0xff} }
	uri := "http://ca.example.test/1.crl"
	ofURI := append([]byte{0x30, byte(6 + len(uri)), 0xa0, byte(4 + len(uri)), 0xa0, byte(2 + len(uri)), 0x86, byte(len(uri))}, uri...)
	for name, c := range map[string]struct {
		ext  pkix.Extension
		says string // empty: it is used
		left bool   // it is left out
	}{
		"nothing":                {pkix.Extension{Id: []int{1, 2, 3, 4}, Value: []byte{5, 0}}, "", false},
		"empty":                  {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: []byte{0x30, 0}}, "", false},
		"a URI":                  {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: ofURI}, "", false},
		"users":                  {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: bit(1)}, "", false},
		"CAs":                    {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: bit(2)}, "", false},
		"some reasons":           {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: []byte{0x30, 4, 0x83, 2, 6, 0x40}}, "some reasons", false},
		"indirect":               {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: bit(4)}, "indirect", false},
		"attribute certificates": {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: bit(5)}, "attribute certificates", false},
		"malformed":              {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: []byte{0x31, 0}}, "malformed", false},
		"garbage behind it":      {pkix.Extension{Id: oidIssuingDistributionPoint, Critical: true, Value: []byte{0x30, 2, 5, 0}}, "malformed", false},
		"unknown":                {pkix.Extension{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}, "critical extension 1.2.3.4", false},
		"delta":                  {pkix.Extension{Id: oidDeltaCRLIndicator, Critical: true, Value: []byte{2, 1, 1}}, "delta list", true},
		"delta, not critical":    {pkix.Extension{Id: oidDeltaCRLIndicator, Value: []byte{2, 1, 1}}, "delta list", true},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := NewLists([]*x509.RevocationList{partialCRL(t, ca, key, c.ext)}, []*x509.Certificate{ca}, false, time.Now(), nil)
			switch {
			case c.left:
				require.NoError(t, err)
				require.Len(t, r.Warnings, 1)
				assert.ErrorContains(t, r.Warnings[0], c.says)
				assert.Empty(t, r.All())
			case c.says != "":
				require.ErrorIs(t, err, ErrInvalid)
				assert.ErrorContains(t, err, c.says)
			default:
				require.NoError(t, err)
				assert.Empty(t, r.Warnings)
				assert.Len(t, r.All(), 1)
			}
		})
	}
}

// The parts of a list whose distribution points are names stand beside each other: the newest does
// not take the place of the others.
func TestPartsByName(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte{1},
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	ca, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	attribute := func(name string) []byte { // CN=name, a RelativeDistinguishedName
		return append([]byte{0x31, byte(9 + len(name)), 0x30, byte(7 + len(name)), 6, 3, 0x55, 4, 3, 0x0c, byte(len(name))}, name...)
	}
	wrap := func(tag byte, der []byte) []byte { return append([]byte{tag, byte(len(der))}, der...) }
	for form, point := range map[string]func(name string) []byte{
		"a directory name":          func(name string) []byte { return wrap(0xa0, wrap(0xa4, wrap(0x30, attribute(name)))) },
		"a name under the issuer's": func(name string) []byte { return wrap(0xa1, attribute(name)[2:]) },
	} {
		var lists []*x509.RevocationList
		part := func(name string, serial int64) {
			der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
				Number: big.NewInt(serial), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
				RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now()}},
				ExtraExtensions:           []pkix.Extension{{Id: oidIssuingDistributionPoint, Critical: true, Value: wrap(0x30, wrap(0xa0, point(name)))}},
			}, ca, key)
			require.NoError(t, err)
			list, err := x509.ParseRevocationList(der)
			require.NoError(t, err)
			lists = append(lists, list)
		}
		part("CRL1", 7)
		part("CRL2", 8)
		part("CRL2", 9)
		r, err := NewLists(lists, []*x509.Certificate{ca}, false, time.Now(), nil)
		require.NoError(t, err, form)
		assert.Len(t, r.All(), 2, form)
		for serial, revoked := range map[int64]bool{7: true, 8: false, 9: true, 10: false} {
			err := r.check([]*x509.Certificate{{SerialNumber: big.NewInt(serial)}, ca}, time.Now())
			assert.Equal(t, revoked, err != nil, "%s: %d", form, serial)
		}
	}
}

// At an address a list is followed by one that is for the same certificates, or for more.
func TestSamePart(t *testing.T) {
	wrap := func(tag byte, der ...byte) []byte { return append([]byte{tag, byte(len(der))}, der...) }
	list := func(names ...string) *x509.RevocationList {
		l := &x509.RevocationList{RawIssuer: []byte("the CA")}
		var full []byte
		for _, name := range names {
			tag := byte(0x86) // a URI
			if !strings.Contains(name, ":") {
				tag = 0x88 // another form
			}
			full = append(full, wrap(tag, []byte(name)...)...)
		}
		if len(names) > 0 {
			l.Extensions = []pkix.Extension{{Id: oidIssuingDistributionPoint, Value: wrap(0x30, wrap(0xa0, wrap(0xa0, full...)...)...)}}
		}
		return l
	}
	const address = "http://mirror/1"
	for _, c := range []struct {
		before, list []string
		same         bool
	}{
		{nil, nil, true},
		{nil, []string{address}, true},
		{nil, []string{"http://ca/1"}, false},
		{nil, []string{"CRL1"}, false},
		{[]string{"http://ca/1"}, nil, true},
		{[]string{"http://ca/1"}, []string{"http://ca/2"}, false},
		{[]string{"http://ca/1"}, []string{"CRL2"}, false},
		{[]string{"http://ca/1", "ldap:1"}, []string{"ldap:1", "ldap:2"}, true},
		{[]string{"http://ca/1"}, []string{"http://ca/2", address}, true},
		{[]string{"CRL1"}, []string{"CRL1"}, true},
		{[]string{"CRL1"}, []string{"CRL2"}, false},
		{[]string{"CRL1"}, []string{"http://ca/2"}, false},
		{[]string{"CRL1", "http://ca/1"}, []string{"CRL1", "http://ca/2"}, true},
	} {
		assert.Equal(t, c.same, SamePart(list(c.before...), list(c.list...), address), "%v, %v", c.before, c.list)
	}
}
