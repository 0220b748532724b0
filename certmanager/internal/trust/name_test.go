package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rawName returns a name of one attribute, a common name, in a kind of string.
func rawName(t testing.TB, tag int, value string) []byte {
	t.Helper()
	der, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}}})
	require.NoError(t, err)
	return der
}

func TestSameName(t *testing.T) {
	const bmp = 30
	name := func(tag int, value string) []byte { return rawName(t, tag, value) }
	example := name(asn1.TagPrintableString, "Example CA")
	for _, other := range [][]byte{
		example, name(asn1.TagUTF8String, "Example CA"), name(asn1.TagIA5String, "example ca"), name(asn1.TagT61String, "Example CA"),
		name(asn1.TagUTF8String, " EXAMPLE   CA "), name(bmp, "\x00E\x00x\x00a\x00m\x00p\x00l\x00e\x00 \x00C\x00A"),
	} {
		assert.True(t, SameName(example, other), "%x", other)
	}
	for _, other := range [][]byte{
		nil, {0x30, 0}, name(asn1.TagUTF8String, "ExampleCA"), name(asn1.TagUTF8String, "Example CA 2"), name(asn1.TagOctetString, "Example CA"),
		append(example, 0), example[:len(example)-1],
	} {
		assert.False(t, SameName(example, other), "%x", other)
	}
	assert.True(t, SameName(name(asn1.TagT61String, "Z\xfcrich"), name(asn1.TagUTF8String, "zürich")))

	cn := func(tag int) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: tag, Bytes: []byte("a")}}
	}
	ou := pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "b"}
	marshal := func(name pkix.RDNSequence) []byte {
		der, err := asn1.Marshal(name)
		require.NoError(t, err)
		return der
	}
	assert.True(t, SameName(marshal(pkix.RDNSequence{{cn(asn1.TagUTF8String), ou}}), marshal(pkix.RDNSequence{{ou, cn(asn1.TagPrintableString)}})))
	assert.False(t, SameName(marshal(pkix.RDNSequence{{cn(asn1.TagUTF8String), ou}}), marshal(pkix.RDNSequence{{cn(asn1.TagUTF8String)}, {ou}})))
	assert.False(t, SameName(marshal(pkix.RDNSequence{{cn(asn1.TagUTF8String)}, {ou}}), marshal(pkix.RDNSequence{{ou}, {cn(asn1.TagUTF8String)}})))
}

// A list counts for the CA whose key signed it, also where the CA's name is written in another kind
// of string in the list, or in another certificate of the same key.
func TestListOfAnotherEncoding(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	otherKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	newCA := func(key *ecdsa.PrivateKey, name []byte) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), RawSubject: name, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
		ca, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return ca
	}
	printable, utf8 := rawName(t, asn1.TagPrintableString, "Example CA"), rawName(t, asn1.TagUTF8String, "Example CA")
	before, after := newCA(key, printable), newCA(key, utf8)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: before.NotBefore, NotAfter: before.NotAfter}
	der, err := x509.CreateCertificate(rand.Reader, leaf, before, key.Public(), key)
	require.NoError(t, err)
	leaf, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	der, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: leaf.SerialNumber, RevocationTime: time.Now()}},
	}, after, key)
	require.NoError(t, err)
	list, err := x509.ParseRevocationList(der)
	require.NoError(t, err)
	require.Equal(t, utf8, list.RawIssuer)

	for what, issuers := range map[string][]*x509.Certificate{
		"one certificate": {before}, "two": {before, after}, "two, the other first": {after, before},
		"beside another key": {newCA(otherKey, utf8), before},
	} {
		lists, err := NewLists([]*x509.RevocationList{list}, issuers, false, time.Now(), nil)
		require.NoError(t, err, what)
		assert.Empty(t, lists.Warnings, what)
		require.ErrorIs(t, lists.check([]*x509.Certificate{leaf, before}, time.Now()), ErrRevoked, what)
		again, err := NewLists([]*x509.RevocationList{list}, issuers, false, time.Now(), lists)
		require.NoError(t, err, what)
		require.ErrorIs(t, again.check([]*x509.Certificate{leaf, before}, time.Now()), ErrRevoked, what)
	}
	lists, err := NewLists([]*x509.RevocationList{list}, []*x509.Certificate{newCA(otherKey, printable)}, false, time.Now(), nil)
	require.NoError(t, err)
	assert.Len(t, lists.Warnings, 1, "of another key")
}
