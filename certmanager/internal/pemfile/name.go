package pemfile

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/ergotls/ergotls/internal/dn"
)

// subjectOf returns the subject of a certificate that crypto/x509 cannot parse, nil where it cannot
// be found.
func subjectOf(der []byte) []byte {
	var cert struct {
		TBS struct {
			Version   int `asn1:"optional,explicit,default:0,tag:0"`
			Serial    *big.Int
			Algorithm asn1.RawValue
			Issuer    asn1.RawValue
			Validity  asn1.RawValue
			Subject   asn1.RawValue
			Rest      asn1.RawValue
		}
		Algorithm asn1.RawValue
		Signature asn1.RawValue
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return nil
	}
	return name(cert.TBS.Subject.FullBytes)
}

// issuerOf does the same for the issuer of a revocation list.
func issuerOf(der []byte) []byte {
	var crl struct {
		TBS struct {
			Version   int `asn1:"optional,default:0"`
			Algorithm asn1.RawValue
			Issuer    asn1.RawValue
			Rest      asn1.RawValue
		}
		Algorithm asn1.RawValue
		Signature asn1.RawValue
	}
	if _, err := asn1.Unmarshal(der, &crl); err != nil {
		return nil
	}
	return name(crl.TBS.Issuer.FullBytes)
}

// name returns DER if it is a name.
func name(der []byte) []byte {
	if !unmarshals(der, new(pkix.RDNSequence)) {
		return nil
	}
	return der
}

// inWords quotes a name for an error.
func inWords(der []byte) string {
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &rdns); err != nil {
		return ""
	}
	var name pkix.Name
	name.FillFromRDNSequence(&rdns)
	text := dn.String(name)
	return fmt.Sprintf(" (%q)", text[:min(len(text), 200)])
}
