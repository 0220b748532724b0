package pemfile

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
)

// fromDER returns a DER file as the equivalent PEM block, none if its kind is unknown.
func fromDER(data []byte) []block {
	if len(data) == 0 || data[0] != 0x30 {
		return nil
	}
	if certs, err := x509.ParseCertificates(data); err == nil {
		var blocks []block
		for _, cert := range certs {
			blocks = append(blocks, block{certificate, "CERTIFICATE", cert.Raw})
		}
		return blocks
	}
	title := titleOfDER(data)
	if title == "" {
		return nil
	}
	return []block{{kindOf(title, nil), title, data}}
}

// titleOfDER returns the PEM title for DER, "" if its kind is unknown.
func titleOfDER(data []byte) string {
	if _, err := parseAnyKey(data); err == nil {
		return "PRIVATE KEY"
	}
	if _, err := x509.ParseCertificateRequest(data); err == nil {
		return "CERTIFICATE REQUEST"
	}
	if _, err := x509.ParsePKIXPublicKey(data); err == nil {
		return "PUBLIC KEY"
	}
	switch {
	case isPKCS12(data):
		return "PKCS12"
	case unmarshals(data, new(struct { // RFC 5652 section 3
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	})):
		return "PKCS7"
	case isEncryptedKey(data):
		return "ENCRYPTED PRIVATE KEY"
	case subjectOf(data) != nil:
		return "CERTIFICATE"
	case issuerOf(data) != nil:
		return "X509 CRL"
	}
	return ""
}

func unmarshals(data []byte, into any) bool {
	rest, err := asn1.Unmarshal(data, into)
	return err == nil && len(rest) == 0
}

// describe returns what a file contains instead of the wanted kind, and what to do about it.
func (f *File) describe() string {
	var all []string
	for _, b := range f.blocks {
		if text := b.describe(); !slices.Contains(all, text) && len(all) < 3 {
			all = append(all, text)
		}
	}
	return strings.Join(all, " and ")
}

func (b block) describe() string {
	switch b.kind {
	case certificate:
		return "a certificate"
	case key:
		return "a private key"
	case encryptedKey:
		return "an encrypted private key"
	case list:
		return "a revocation list"
	case echConfig:
		return "an ECHCONFIG"
	}
	switch b.title {
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		return "a certificate signing request; name the certificate that the CA made of it"
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return "a public key"
	case "PKCS7", "CMS", "PKCS #7 SIGNED DATA":
		return "PKCS #7; convert it with openssl pkcs7 -print_certs -in FILE -out NEW (-inform der if it is not PEM)"
	case "PKCS12":
		return "PKCS #12; name it in Files.PKCS12, or convert it with openssl pkcs12 -nodes -in FILE -out NEW"
	case "OPENSSH PRIVATE KEY":
		return "a private key in OpenSSH's own form; convert it with ssh-keygen -p -m PEM -f FILE"
	}
	return fmt.Sprintf("a PEM block %q", b.title)
}

// unreadable describes a file that is neither PEM nor DER of a known kind.
func unreadable(data []byte) string {
	begins := func(prefix string) bool { return bytes.HasPrefix(data, []byte(prefix)) }
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return "it is empty"
	case begins("\xff\xfe"), begins("\xfe\xff"), begins("-\x00-\x00"), begins("\x00-\x00-"):
		return "it is UTF-16 text; convert it with iconv -f UTF-16 -t UTF-8 FILE"
	case begins("\xfe\xed\xfe\xed"), begins("\xce\xce\xce\xce"):
		return "it is a Java key store; convert it with keytool -importkeystore -srckeystore FILE -destkeystore NEW -deststoretype pkcs12"
	case bytes.Contains(data, []byte("-----BEGIN ")):
		if bytes.Contains(data, []byte(`\n`)) {
			return `its line ends are written as \n; write real ones with printf '%b' "$(cat FILE)"`
		}
		return "it is not PEM: no line of it begins a block"
	case begins("LS0tLS1CRUdJTi"):
		return "it is base64 of PEM, as in a Kubernetes secret; decode it with base64 -d FILE"
	case begins("MII"):
		return "it is base64 without the BEGIN and END lines of PEM; decode it to DER with base64 -d FILE"
	case begins("ssh-"), begins("ecdsa-sha2-"):
		return "it is a public key of OpenSSH"
	case begins("<"):
		return "it is HTML or XML, perhaps the error page of a download"
	case begins("0\x80"):
		return "it is BER of indefinite length; if it is PKCS #12, convert it with openssl pkcs12 -nodes -in FILE -out NEW"
	case data[0] == 0x30:
		return "it is DER of an unknown kind, or damaged or cut off"
	}
	return "it is neither PEM nor DER"
}
