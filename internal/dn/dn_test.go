package dn_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/internal/dn"
)

func TestString(t *testing.T) {
	for want, name := range map[string]pkix.Name{
		"":                            {},
		"CN=alice,OU=ops+OU=dev,C=XX": {CommonName: "alice", OrganizationalUnit: []string{"ops", "dev"}, Country: []string{"XX"}},
		`CN=a\,b\+c`:                  {CommonName: "a,b+c"},
		"CN=Zoë 世界":                   {CommonName: "Zoë 世界"},
		`CN=a\0A2026 [error] b\0D`:    {CommonName: "a\n2026 [error] b\r"},
		`CN=a\1B[2J\00\E2\80\AEb`:     {CommonName: "a\x1b[2J\x00\u202eb"},
	} {
		assert.Equal(t, want, dn.String(name))
	}
}

// A name of the largest certificate that a handshake can carry takes no more time than any other.
func TestManyAttributes(t *testing.T) {
	var names []string
	var attributes []pkix.AttributeTypeAndValue
	for i := range 20_000 {
		names = append(names, fmt.Sprint(i))
		attributes = append(attributes, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 42}, Value: fmt.Sprint(i)})
	}
	for kind, name := range map[string]pkix.Name{
		"units":  {OrganizationalUnit: names},
		"others": {Names: attributes},
		"extra":  {ExtraNames: attributes},
	} {
		text := dn.String(name)
		assert.True(t, strings.HasSuffix(text, "…"), "%s: %.100s", kind, text)
		assert.Less(t, len(text), 1000, kind)
		assert.Less(t, testing.AllocsPerRun(1, func() { dn.String(name) }), 1000.0, kind)
	}
}
