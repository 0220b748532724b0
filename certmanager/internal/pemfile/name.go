package pemfile

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/ergotls/ergotls/internal/dn"
)

// subjectOf returns the subject of a certificate that crypto/x509 cannot parse, nil where it cannot
// be found.
func subjectOf(der []byte) []byte {
	version := tags.Tag(0).ContextSpecific().Constructed()
	return nameAfter(der, version, tags.INTEGER, tags.SEQUENCE, tags.SEQUENCE, tags.SEQUENCE)
}

// issuerOf does the same for the issuer of a revocation list.
func issuerOf(der []byte) []byte { return nameAfter(der, tags.INTEGER, tags.SEQUENCE) }

// nameAfter returns the name that follows other elements in the part that is signed.
func nameAfter(der []byte, others ...tags.Tag) []byte {
	var signed, part, name cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&signed, tags.SEQUENCE) || !signed.ReadASN1(&part, tags.SEQUENCE) {
		return nil
	}
	for _, tag := range others {
		part.SkipOptionalASN1(tag)
	}
	if !part.ReadASN1Element(&name, tags.SEQUENCE) || !unmarshals(name, new(pkix.RDNSequence)) {
		return nil
	}
	return name
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
