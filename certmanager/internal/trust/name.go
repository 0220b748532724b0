package trust

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// SameName reports whether two distinguished names, in DER, are the same (RFC 5280 section 7.1):
// string type, letter case and spaces do not matter. A CA's string type may change with its
// software, and then differs in new revocation lists.
func SameName(a, b []byte) bool { return bytes.Equal(a, b) || CanonicalName(a) == CanonicalName(b) }

// CanonicalName returns a string that is equal for all forms of the same distinguished name. Bytes
// that are no name are returned as they are.
func CanonicalName(der []byte) string {
	var name []byte
	var rdns cryptobyte.String
	if input := cryptobyte.String(der); !input.ReadASN1(&rdns, asn1.SEQUENCE) || !input.Empty() {
		return string(der)
	}
	for !rdns.Empty() {
		var rdn cryptobyte.String
		if !rdns.ReadASN1(&rdn, asn1.SET) {
			return string(der)
		}
		var attributes []string
		for !rdn.Empty() {
			var attribute, kind, value cryptobyte.String
			var tag asn1.Tag
			if !rdn.ReadASN1(&attribute, asn1.SEQUENCE) || !attribute.ReadASN1(&kind, asn1.OBJECT_IDENTIFIER) ||
				!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
				return string(der)
			}
			attributes = append(attributes, string(withLength(kind))+canonicalValue(tag, value))
		}
		slices.Sort(attributes)
		name = binary.AppendUvarint(name, uint64(len(attributes)))
		for _, attribute := range attributes {
			name = append(name, withLength([]byte(attribute))...)
		}
	}
	return string(name)
}

func withLength(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// bmpString is an ASN.1 string in UTF-16.
const bmpString asn1.Tag = 30

func canonicalValue(tag asn1.Tag, value []byte) string {
	var text string
	switch tag {
	case asn1.UTF8String, asn1.PrintableString, asn1.IA5String:
		text = string(value)
	case asn1.T61String: // Latin-1 by common usage
		runes := make([]rune, len(value))
		for i, b := range value {
			runes[i] = rune(b)
		}
		text = string(runes)
	case bmpString:
		units := make([]uint16, len(value)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(value[2*i:])
		}
		text = string(utf16.Decode(units))
	default:
		return string(byte(tag)) + string(value)
	}
	return strings.ToLower(strings.Join(strings.Fields(text), " "))
}
