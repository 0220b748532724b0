package acme

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
)

func TestNormalName(t *testing.T) {
	for in, want := range map[string]string{
		"www.example.test": "www.example.test", "WWW.Example.Test.": "www.example.test",
		"bücher.example.test": "xn--bcher-kva.example.test", "xn--bcher-kva.example.test": "xn--bcher-kva.example.test",
	} {
		got, err := normalName(in)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, in := range []string{"", ".", "localhost", "*.example.test", "127.0.0.1", "::1", "a b.test", "a..test", strings.Repeat("a.", 150) + "test", "a.test/../b"} {
		_, err := normalName(in)
		assert.ErrorIs(t, err, certmanager.ErrInvalid, in)
	}
}

// What is no DNS name is called what it is, with what to write instead.
func TestWhyNoName(t *testing.T) {
	for in, want := range map[string]string{
		"": "is empty", "a b.test": "has a space", "a.test,b.test": "separator", "https://a.test": "is a URL", "a.test/x": "is a URL", "a@b.test": "e-mail",
		"192.0.2.1": "IP address", "2001:db8::1": "IP address", "a.test:443": `has a port: give "a.test"`, "*.a.test": "wildcard", "a.*.test": "pattern",
		"localhost": "no dot", "a..test": "not a DNS name", "[2001:db8::1]:443": `give "2001:db8::1"`, "[2001:db8::1]": `give "2001:db8::1"`,
		"fe80::1%eth0": "one network interface",
	} {
		_, err := normalName(in)
		require.ErrorContains(t, err, want, in)
		assert.ErrorContains(t, err, fmt.Sprintf("%q", in))
	}
}

func TestIdentifier(t *testing.T) {
	for in, want := range map[string]string{"*.Example.test": "*.example.test", "2001:DB8::1": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1", "a.example.test": "a.example.test"} {
		got, err := identifier(in, true)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, in := range []string{"*.test", "*", "*.*.example.test", "a.*.example.test", "fe80::1%eth0", "*.192.0.2.1"} {
		_, err := identifier(in, true)
		require.ErrorIs(t, err, certmanager.ErrInvalid, in)
	}
	_, err := identifier("*.example.test", false)
	require.ErrorContains(t, err, "DNSPersist or DNS")
	assert.Equal(t, "1.2.0.192.in-addr.arpa", testName("192.0.2.1").sni())
	assert.Equal(t, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", testName("2001:db8::1").sni())
	assert.Equal(t, "_.example.test", testName("*.example.test").file())
	assert.Equal(t, "2001-db8--1", testName("2001:db8::1").file())
}

func testName(text string) *name { return &name{text: text} }
