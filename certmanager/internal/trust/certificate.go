package trust

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/internal/dn"
)

// These limit the time to sort a chain, which grows with their product.
const (
	maxCertificates = 1000 // of which a chain is made; a bundle with all public CAs has 150
	maxChain        = 100
)

// Parse parses the certificates of which a chain is made, each once.
func Parse(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) > maxCertificates {
		return nil, fmt.Errorf("%w: it holds %d certificates, and the maximum is %d: a leaf and its issuers are enough", ErrInvalid, len(ders), maxCertificates)
	}
	var certs []*x509.Certificate
	for i, der := range ders {
		if slices.ContainsFunc(ders[:i], func(other []byte) bool { return bytes.Equal(der, other) }) {
			continue
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err := CheckKeySize(cert); err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: it holds no certificate", ErrInvalid)
	}
	return certs, nil
}

// maxRSABits is the largest RSA key with which a signature is checked. With 16,384 bits that takes
// 6 ms, with a million 20 s, and anyone can send a certificate in the name of a CA.
const maxRSABits = 16384

// CheckKeySize refuses a certificate whose key is too large to check signatures with it.
func CheckKeySize(cert *x509.Certificate) error {
	if public, ok := cert.PublicKey.(*rsa.PublicKey); ok && public.N.BitLen() > maxRSABits {
		return fmt.Errorf("%w: the RSA key of %s has %d bits; use 3072", ErrInvalid, Describe(cert), public.N.BitLen())
	}
	return nil
}

// LeafOf returns the certificate of a key. Of several it returns the first that is currently valid.
func LeafOf(certs []*x509.Certificate, key crypto.PrivateKey, now time.Time) (*x509.Certificate, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: its private key is not a crypto.Signer", ErrInvalid)
	}
	var first *x509.Certificate
	for _, cert := range certs {
		if !IsKeyOf(signer, cert) {
			continue
		}
		if CheckDates(cert, now) == nil {
			return cert, nil
		}
		first = cmp.Or(first, cert)
	}
	if first == nil {
		return nil, ErrMismatch
	}
	return first, nil
}

// IsKeyOf reports whether a certificate has the public key of a key.
func IsKeyOf(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

// IsRoot reports whether a certificate names itself as its issuer.
func IsRoot(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubject, cert.RawIssuer) }

// Usage reports whether a leaf may be that of a TLS server, and of a TLS client. If neither, it
// returns an error.
func Usage(leaf *x509.Certificate) (server, client bool, err error) {
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return false, false, fmt.Errorf("%w: its key usage lacks digital signature, which every ECDHE handshake needs", ErrInvalid)
	}
	server, client = Allows(leaf, x509.ExtKeyUsageServerAuth), Allows(leaf, x509.ExtKeyUsageClientAuth)
	if !server && !client {
		err = fmt.Errorf("%w: its extended key usage allows neither TLS servers nor TLS clients", ErrInvalid)
	}
	return server, client, err
}

// Allows reports whether the extended key usage of a certificate allows a usage.
func Allows(cert *x509.Certificate, usage x509.ExtKeyUsage) bool {
	none := len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0
	return none || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) || slices.Contains(cert.ExtKeyUsage, usage)
}

// CheckChainDates refuses a chain if the leaf, or every certificate that issued the leaf, is not
// currently valid. Those above may be unneeded: peers may have another certificate of that issuer.
func CheckChainDates(chain []*x509.Certificate, now time.Time) error {
	err := CheckDates(chain[0], now)
	if err != nil {
		return err
	}
	for _, cert := range chain[1:] {
		if !bytes.Equal(cert.RawSubject, chain[0].RawIssuer) {
			continue
		}
		outside := CheckDates(cert, now)
		if outside == nil {
			return nil
		}
		err = cmp.Or(err, outside)
	}
	return err
}

// CheckDates refuses a certificate that is not currently valid. It is valid up to and including the
// second of NotAfter.
func CheckDates(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%s: %w: begins %s, and the clock here says %s", Describe(cert), ErrNotYetValid, inUTC(cert.NotBefore), inUTC(now))
	case now.After(cert.NotAfter):
		return fmt.Errorf("%s: %w: ended %s, and the clock here says %s", Describe(cert), ErrExpired, inUTC(cert.NotAfter), inUTC(now))
	}
	return nil
}

func inUTC(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// CheckAlgorithm refuses signatures that crypto/x509 does not accept. That of a root is not
// checked.
func CheckAlgorithm(cert *x509.Certificate) error {
	switch cert.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		if !IsRoot(cert) {
			return fmt.Errorf("%w: %s is signed with %s, which TLS peers no longer accept; have it issued again, with SHA-256 instead of SHA-1 or MD5",
				ErrInvalid, Describe(cert), cert.SignatureAlgorithm)
		}
	}
	return nil
}

// oidTLSFeature marks a certificate that requires TLS extensions (RFC 7633).
var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// statusRequest is the extension with an OCSP response (RFC 6066 section 8).
const statusRequest = 5

// MustStaple reports whether peers require a stapled OCSP response.
func MustStaple(leaf *x509.Certificate) bool {
	return slices.ContainsFunc(leaf.Extensions, func(ext pkix.Extension) bool {
		var features []int
		if !ext.Id.Equal(oidTLSFeature) {
			return false
		}
		_, err := asn1.Unmarshal(ext.Value, &features)
		return err == nil && slices.Contains(features, statusRequest)
	})
}

// maxText is the largest number of bytes of a name or serial number in an error: anyone can send a
// certificate with a long one.
const maxText = 256

// Describe returns a short description of a certificate for errors and logs.
func Describe(cert *x509.Certificate) string {
	name := dn.String(cert.Subject)
	switch {
	case name != "":
	case len(cert.DNSNames) > 0:
		name = cert.DNSNames[0]
	case len(cert.URIs) > 0:
		name = cert.URIs[0].String()
	case len(cert.IPAddresses) > 0:
		name = cert.IPAddresses[0].String()
	default:
		name = "without a name"
	}
	return fmt.Sprintf("%q (serial %s)", Cut(name, maxText), Cut(cert.SerialNumber.Text(16), maxText))
}

// Cut returns a copy of text, shortened to at most the given number of bytes.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(strings.Clone(text[:most]), "") + "…"
}
