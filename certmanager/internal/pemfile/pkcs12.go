package pemfile

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// PKCS12 returns the private key and the certificates of a PKCS #12 file. The certificates are in
// the order of the file, which is arbitrary.
func PKCS12(data []byte, password string) (crypto.Signer, []*x509.Certificate, error) {
	if !isPKCS12(data) {
		f, err := Parse(data)
		if err != nil {
			return nil, nil, fmt.Errorf("it is not a PKCS #12 file: %w", err)
		}
		return nil, nil, fmt.Errorf("it is not a PKCS #12 file, but %s", f.describe())
	}
	if iterations(data, 0) > maxIterations {
		return nil, nil, fmt.Errorf("it asks for more than %d iterations to derive its keys", maxIterations)
	}
	key, first, others, err := pkcs12.DecodeChain(data, password)
	switch {
	case (errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption)) && password == "":
		return nil, nil, errors.New("it has a password: name the file that holds it in Files.PKCS12Password")
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return nil, nil, errors.New("not a PKCS #12 file of this password")
	case err != nil:
		return nil, nil, fmt.Errorf("not a PKCS #12 file of one key and its chain: %w", err)
	}
	signer, err := asSigner(key)
	return signer, append([]*x509.Certificate{first}, others...), err
}

func isPKCS12(data []byte) bool {
	var pfx struct { // RFC 7292 section 4
		Version  int
		AuthSafe struct {
			Type    asn1.ObjectIdentifier
			Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
		}
		MAC asn1.RawValue `asn1:"optional"`
	}
	return unmarshals(data, &pfx) && pfx.Version == 3
}

// maxIterations takes some seconds to compute. Tools use thousands.
const maxIterations = 5_000_000

// iterations returns the largest number of iterations in a PKCS #12 file. In all of its structures
// the number follows the salt, an octet string. Without a limit a tiny file could use a CPU for
// hours.
func iterations(der []byte, depth int) int64 {
	var most int64
	salt := false
	for len(der) > 0 && depth < 32 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			break
		}
		if salt && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger {
			var n int64
			if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil {
				n = maxIterations + 1 // it does not fit
			}
			most = max(most, n)
		}
		salt = v.Tag == asn1.TagOctetString // of any class, as in go-pkcs12
		if v.IsCompound || salt {
			most = max(most, iterations(v.Bytes, depth+1))
		}
		der = rest
	}
	return most
}
