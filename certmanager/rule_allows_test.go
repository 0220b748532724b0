package certmanager

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/tlstest"
)

func TestRules(t *testing.T) {
	ca := tlstest.NewCA(t)
	web := &Peer{Certificate: ca.Issue(t, tlstest.Leaf{Names: []string{"web.example.test"}, URIs: []string{"spiffe://example.test/web"}}).Leaf}
	two := &Peer{Certificate: ca.Issue(t, tlstest.Leaf{URIs: []string{"spiffe://example.test/a", "spiffe://example.test/b"}}).Leaf}
	bare := &Peer{Certificate: ca.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, CommonName: "bare"}).Leaf}
	forger := &Peer{Certificate: ca.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, CommonName: "m\nforged line"}).Leaf}
	for _, c := range []struct {
		rule Rule
		peer *Peer
		says string // empty: allowed
	}{
		{Rule{}, bare, ""},
		{DNSName("web.example.test"), web, ""},
		{DNSName("other.test", "WEB.example.test."), web, ""},
		{DNSName("*.example.test"), web, ""},
		{DNSName("*.test"), web, "nearest match *.test"},
		{DNSName("*"), web, "whole first label"},
		{DNSName("wex.example.test", "b.c"), web, "its DNS name is web.example.test, the nearest match wex.example.test"},
		{DNSName("b.c", "wex.example.test", "web.example.org"), web, "the nearest match wex.example.test"},
		{DNSName("a.test"), bare, "carries no DNS name"},
		{CommonName("alice"), forger, `its common name is m\0Aforged line, the nearest match`},
		{SPIFFEID("spiffe://example.test/web"), web, ""},
		{SPIFFEID("spiffe://example.test/we"), web, "the nearest match spiffe://example.test/we"},
		{SPIFFEID("spiffe://example.test/a"), two, "carries no SPIFFE ID"},
		{TrustDomain("example.test"), web, ""},
		{TrustDomain("test"), web, "its SPIFFE trust domain is example.test, the nearest match test"},
		{TrustDomain("example.test"), bare, "carries no SPIFFE trust domain"},
		{PublicKeyPin(PinOf(web.Certificate)), web, ""},
		{PublicKeyPin("sha256/" + PinOf(web.Certificate)), web, ""},
		{PublicKeyPin(PinOf(two.Certificate)), web, "nearest match " + PinOf(two.Certificate)},
		{AllOf(DNSName("web.example.test"), TrustDomain("example.test"), Rule{}), web, ""},
		{AllOf(DNSName("web.example.test"), TrustDomain("other.test")), web, "trust domain other.test"},
		{AllOf(), web, "it has no rule"},
		{AnyOf(DNSName("x"), TrustDomain("example.test")), web, ""},
		{AnyOf(DNSName("x"), Rule{}), web, "is the zero Rule"},
		{AnyOf(DNSName("x"), DNSName("y")), web, "none holds"},
		{AnyOf(), web, "it has no rule"},
		{NewRule("mine", func(*Peer) error { return errors.New("Tuesday") }), web, "rule mine refuses"},
	} {
		err := c.rule.allows(c.peer)
		if c.says == "" {
			assert.NoError(t, err, "%s", c.rule)
			continue
		}
		assert.ErrorIs(t, err, ErrNotAuthorized, "%s", c.rule)
		assert.ErrorContains(t, err, c.says)
		assert.ErrorContains(t, err, c.rule.String())
		assert.ErrorContains(t, err, c.peer.String())
		assert.NotContains(t, err.Error(), "\n")
	}
}
