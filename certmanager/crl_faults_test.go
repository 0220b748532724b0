package certmanager_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// logged is a log that a test reads.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// listed is a server whose bundle and lists are files.
type listed struct {
	*certmanager.Manager
	t      *testing.T
	server *tlstest.CA
	dir    string
	log    logged
}

// newListed makes the manager; bundle, lists and issuers of lists are PEM.
func newListed(t *testing.T, bundle, lists, issuers []byte) *listed {
	t.Helper()
	l := &listed{t: t, server: tlstest.NewCA(t), dir: t.TempDir()}
	cert, key := l.server.Issue(t, tlstest.Leaf{}).Files(t, l.dir, "server")
	files := certmanager.Files{Cert: cert, Key: key, ClientCAs: l.write("cas.pem", bundle), CRLs: l.write("crls.pem", lists)}
	if issuers != nil {
		files.CRLIssuers = l.write("issuers.pem", issuers)
	}
	m, err := certmanager.New(certmanager.Options{Source: files, Logger: slog.New(slog.NewTextHandler(&l.log, nil))})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	l.Manager = m
	return l
}

func (l *listed) write(name string, data []byte) string {
	path := filepath.Join(l.dir, name)
	require.NoError(l.t, os.WriteFile(path, data, 0o600))
	return path
}

// verdict is how the server ends a client's handshake, in both versions, which must agree.
func (l *listed) verdict(p certificater) error {
	l.t.Helper()
	var verdicts []error
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		_, err, _ := meet(l.t, l.ServerTLS(), &tls.Config{MinVersion: version, MaxVersion: version, RootCAs: l.server.Pool(), ServerName: "localhost",
			Certificates: []tls.Certificate{p.Certificate()}})
		verdicts = append(verdicts, err)
	}
	require.Equal(l.t, verdicts[0] == nil, verdicts[1] == nil)
	return verdicts[0]
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// A CA can be dropped although its list is still there, and a list of nobody keeps nothing else
// from service.
func TestListOfNobody(t *testing.T) {
	stays, goes := tlstest.NewCA(t), tlstest.NewCA(t)
	good, bad, gone := stays.Issue(t, tlstest.Leaf{}), stays.Issue(t, tlstest.Leaf{}), goes.Issue(t, tlstest.Leaf{})
	l := newListed(t, join(stays.PEM(), goes.PEM()), join(goes.CRL(t), stays.CRL(t, bad.Leaf)), nil)
	require.NoError(t, l.verdict(gone))
	l.write("cas.pem", stays.PEM())
	require.NoError(t, l.Reload(t.Context()))
	require.Error(t, l.verdict(gone))
	require.NoError(t, l.verdict(good))
	require.ErrorIs(t, l.verdict(bad), certmanager.ErrRevoked)
	assert.Contains(t, l.log.String(), "its issuer is unknown")
	assert.Len(t, l.Status().CRLs, 1)
	require.NoError(t, l.Reload(t.Context()))
	l.SetServerName("any")
	assert.Equal(t, 1, strings.Count(l.log.String(), "its issuer is unknown"), "it is told once")

	// A CA of the same name with a new key takes its place: the list of the old key is of nobody
	// too.
	twin := tlstest.NewCA(t, func(c *x509.Certificate) { c.Subject = stays.Certificate().Subject })
	l.write("cas.pem", twin.PEM())
	require.NoError(t, l.Reload(t.Context()))
	require.NoError(t, l.verdict(twin.Issue(t, tlstest.Leaf{})))
}

// A CA that OpenSSL marks as not trusted for clients loses its trust, also where it was in service.
func TestCAMarkedAsNotTrusted(t *testing.T) {
	stays, goes := tlstest.NewCA(t), tlstest.NewCA(t)
	good, gone := stays.Issue(t, tlstest.Leaf{}), goes.Issue(t, tlstest.Leaf{})
	l := newListed(t, join(stays.PEM(), goes.PEM()), stays.CRL(t), nil)
	require.NoError(t, l.verdict(gone))
	mark := func(use string) []byte {
		cmd := exec.Command(needs.Program(t, "openssl"), "x509", "-addreject", use, "-trustout")
		cmd.Stdin = bytes.NewReader(goes.PEM())
		out, err := cmd.Output()
		require.NoError(t, err)
		return out
	}
	l.write("cas.pem", join(stays.PEM(), mark("serverAuth")))
	require.NoError(t, l.Reload(t.Context()))
	require.NoError(t, l.verdict(gone))
	l.write("cas.pem", join(stays.PEM(), mark("clientAuth")))
	require.NoError(t, l.Reload(t.Context()))
	require.Error(t, l.verdict(gone))
	require.NoError(t, l.verdict(good))
	assert.Contains(t, l.log.String(), "is marked as not trusted for this use")
	l.write("cas.pem", mark("clientAuth"))
	require.ErrorContains(t, l.Reload(t.Context()), "is marked as not trusted")
	require.NoError(t, l.verdict(good), "what is in service stays")
}

// A list of an intermediate is used when its certificate is named as an issuer of lists, which
// makes it no anchor: its own revocation counts.
func TestIssuersOfListsAreNoAnchors(t *testing.T) {
	root := tlstest.NewCA(t)
	sub := root.Intermediate(t)
	good, bad := sub.Issue(t, tlstest.Leaf{}), sub.Issue(t, tlstest.Leaf{})
	l := newListed(t, root.PEM(), join(root.CRL(t), sub.CRL(t, bad.Leaf)), sub.PEM())
	require.NoError(t, l.verdict(good))
	require.ErrorIs(t, l.verdict(bad), certmanager.ErrRevoked)
	l.write("crls.pem", join(root.CRL(t, sub.Certificate()), sub.CRL(t, bad.Leaf)))
	require.NoError(t, l.Reload(t.Context()))
	require.ErrorIs(t, l.verdict(good), certmanager.ErrRevoked)
}

// A CA that another one has revoked is no anchor, although it is in the bundle; nor is one below
// it.
func TestRevokedAnchor(t *testing.T) {
	root := tlstest.NewCA(t)
	sub := root.Intermediate(t)
	below := sub.Intermediate(t)
	for name, bundle := range map[string][]byte{
		"with the root":       join(root.PEM(), sub.PEM(), below.PEM()),
		"without its root":    join(sub.PEM(), below.PEM()),
		"the root comes last": join(below.PEM(), sub.PEM(), root.PEM()),
	} {
		t.Run(name, func(t *testing.T) {
			l := newListed(t, bundle, root.CRL(t), root.PEM())
			require.NoError(t, l.verdict(sub.Issue(t, tlstest.Leaf{})))
			require.NoError(t, l.verdict(below.Issue(t, tlstest.Leaf{})))
			l.write("crls.pem", root.CRL(t, sub.Certificate()))
			require.NoError(t, l.Reload(t.Context()))
			require.ErrorIs(t, l.verdict(sub.Issue(t, tlstest.Leaf{})), certmanager.ErrRevoked)
			require.ErrorIs(t, l.verdict(below.Issue(t, tlstest.Leaf{})), certmanager.ErrRevoked)
		})
	}
	// The same where the program gives pools, and for servers.
	pool := x509.NewCertPool()
	pool.AddCert(sub.Certificate())
	block, _ := pem.Decode(root.CRL(t, sub.Certificate()))
	list, err := x509.ParseRevocationList(block.Bytes)
	require.NoError(t, err)
	m, err := certmanager.New(certmanager.Options{Logger: slog.New(slog.DiscardHandler), Source: certmanager.Static{
		Certificates: []tls.Certificate{root.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: pool, RootCAs: pool,
		CRLs: []*x509.RevocationList{list}, CRLIssuers: []*x509.Certificate{root.Certificate()},
	}})
	require.NoError(t, err)
	defer m.Close()
	theirs := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{sub.Issue(t, tlstest.Leaf{}).Certificate()}}
	_, serverErr, _ := meet(t, m.ServerTLS(), theirs)
	require.ErrorIs(t, serverErr, certmanager.ErrRevoked)
	_, _, clientErr := meet(t, theirs, m.ClientTLS("localhost"))
	require.ErrorIs(t, clientErr, certmanager.ErrRevoked)
}

// A list that is dated in the future does not take the place of today's, in whatever order they
// stand, but its entries revoke; of two lists of one time the one of the higher number counts.
func TestWhichListCounts(t *testing.T) {
	ca := tlstest.NewCA(t)
	bad, good := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{})
	issue := func(number int64, from time.Time, revoked ...*x509.Certificate) []byte {
		data, err := ca.GenerateCRL(tlstest.CRL{Number: number, ThisUpdate: from, NextUpdate: from.Add(100 * 24 * time.Hour), Revoked: revoked})
		require.NoError(t, err)
		return data
	}
	now := time.Now().Truncate(time.Second)
	today, future := issue(5, now.Add(-time.Hour), bad.Leaf), issue(6, now.Add(48*time.Hour))
	for _, lists := range [][]byte{join(today, future), join(future, today)} {
		l := newListed(t, ca.PEM(), lists, nil)
		require.ErrorIs(t, l.verdict(bad), certmanager.ErrRevoked)
		require.NoError(t, l.verdict(good))
		assert.Contains(t, l.log.String(), "in the future of this machine's clock")
	}
	// What the CA has signed as revoked is revoked, whatever the clock here says; what it has signed
	// as revoked today is revoked today.
	today, future = issue(5, now.Add(-time.Hour), good.Leaf), issue(6, now.Add(48*time.Hour), bad.Leaf)
	for _, lists := range [][]byte{join(today, future), join(future, today), future} {
		l := newListed(t, ca.PEM(), lists, nil)
		require.ErrorIs(t, l.verdict(bad), certmanager.ErrRevoked)
		if !bytes.Equal(lists, future) {
			require.ErrorIs(t, l.verdict(good), certmanager.ErrRevoked)
		}
	}
	first, second := issue(7, now.Add(-time.Hour)), issue(8, now.Add(-time.Hour), bad.Leaf)
	for _, lists := range [][]byte{join(first, second), join(second, first), join(second, second, first)} {
		require.ErrorIs(t, newListed(t, ca.PEM(), lists, nil).verdict(bad), certmanager.ErrRevoked)
	}
	older := issue(9, now.Add(-2*time.Hour), good.Leaf)
	require.NoError(t, newListed(t, ca.PEM(), join(older, second), nil).verdict(good), "the newer list no longer has it")
}

// A list of version 1 is used: openssl makes it where the configuration has no crl_extensions.
func TestListOfVersion1(t *testing.T) {
	openssl := needs.Program(t, "openssl")
	dir := t.TempDir()
	run := func(args ...string) {
		cmd := exec.Command(openssl, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	for name, data := range map[string]string{
		"index.txt": "", "serial": "1000\n", "ca.cnf": `
[ca]
default_ca = one
[one]
database = index.txt
serial = serial
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
[any]
commonName = supplied
`} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=old CA")
	var pairs []loaded
	for _, name := range []string{"good", "bad"} {
		run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN="+name)
		run("ca", "-config", "ca.cnf", "-batch", "-notext", "-in", name+".csr", "-out", name+".crt")
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		require.NoError(t, err)
		pairs = append(pairs, loaded{pair})
	}
	run("ca", "-config", "ca.cnf", "-revoke", "bad.crt")
	run("ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem")
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return data
	}
	block, _ := pem.Decode(read("crl.pem"))
	_, err := x509.ParseRevocationList(block.Bytes)
	require.Error(t, err, "else it is not of version 1")
	caBlock, _ := pem.Decode(read("ca.crt"))
	old, err := x509.ParseCertificate(caBlock.Bytes)
	require.NoError(t, err)
	l := newListed(t, read("ca.crt"), read("crl.pem"), nil)
	require.NoError(t, l.verdict(pairs[0]))
	require.ErrorIs(t, l.verdict(pairs[1]), certmanager.ErrRevoked)

	// A CA of the same name takes the place of this one. The list does not say of which key it is,
	// and does not keep the old CA in service.
	twin := tlstest.NewCA(t, func(c *x509.Certificate) { c.RawSubject = old.RawSubject })
	l.write("cas.pem", twin.PEM())
	require.NoError(t, l.Reload(t.Context()))
	require.Error(t, l.verdict(pairs[0]))
	require.NoError(t, l.verdict(twin.Issue(t, tlstest.Leaf{})))
	l.write("cas.pem", read("ca.crt"))
	require.NoError(t, l.Reload(t.Context()))
	require.NoError(t, l.verdict(pairs[0]))
	require.ErrorIs(t, l.verdict(pairs[1]), certmanager.ErrRevoked)

	// A byte of its signature is another: it is not used, and what was in service stays.
	block.Bytes[len(block.Bytes)-1] ^= 1
	l.write("crls.pem", pem.EncodeToMemory(block))
	require.ErrorContains(t, l.Reload(t.Context()), "signature")
	require.ErrorIs(t, l.verdict(pairs[1]), certmanager.ErrRevoked)
}

// Taking trust away must be said: no setter and no source turns the verification of clients off by
// leaving something out.
func TestClientAuthIsNotTurnedOffSilently(t *testing.T) {
	ca := tlstest.NewCA(t)
	own := ca.Issue(t, tlstest.Leaf{}).Certificate()
	var log logged
	m, err := certmanager.New(certmanager.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Source: certmanager.Static{Certificates: []tls.Certificate{own}}})
	require.NoError(t, err)
	defer m.Close()
	nobody := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
	m.SetClientCAs(ca.Pool())
	_, serverErr, _ := meet(t, m.ServerTLS(), nobody)
	require.Error(t, serverErr)
	m.SetClientCAs(nil)
	_, serverErr, _ = meet(t, m.ServerTLS(), nobody)
	require.Error(t, serverErr, "the client without a certificate is still refused")
	assert.Contains(t, log.String(), "SetClientAuth(tls.NoClientCert)")
	m.SetClientAuth(tls.NoClientCert)
	_, serverErr, _ = meet(t, m.ServerTLS(), nobody)
	require.NoError(t, serverErr)

	source := &pushed{material: &certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: own}}, ClientCAs: []*x509.Certificate{ca.Certificate()}}}
	other := manager(t, source, certmanager.Rule{})
	source.put(&certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: own}}})
	require.Error(t, other.Reload(t.Context()))
	_, serverErr, _ = meet(t, other.ServerTLS(), nobody)
	require.Error(t, serverErr)
}

// Rules that make no sense are an error where they are given, and let nobody in.
func TestRulesOfNonsense(t *testing.T) {
	ca := tlstest.NewCA(t)
	source := certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}
	zero := certmanager.Rule{}
	for name, rule := range map[string]certmanager.Rule{
		"DNS URL":          certmanager.DNSName("https://x"),
		"DNS port":         certmanager.DNSName("x.test:443"),
		"DNS stars":        certmanager.DNSName("*.*.x"),
		"DNS star inside":  certmanager.DNSName("a*.x"),
		"DNS address":      certmanager.DNSName("10.0.0.1"),
		"DNS address 6":    certmanager.DNSName("::1"),
		"DNS empty":        certmanager.DNSName(""),
		"DNS none":         certmanager.DNSName(),
		"DNS one of two":   certmanager.DNSName("ok.test", "not ok.test"),
		"ID without it":    certmanager.SPIFFEID("example.org/x"),
		"ID with a user":   certmanager.SPIFFEID("spiffe://a@example.org/x"),
		"ID with a query":  certmanager.SPIFFEID("spiffe://example.org/x?y"),
		"ID dots":          certmanager.SPIFFEID("spiffe://example.org/../x"),
		"ID slash":         certmanager.SPIFFEID("spiffe://example.org/x/"),
		"ID capitals":      certmanager.SPIFFEID("spiffe://Example.org/x"),
		"ID none":          certmanager.SPIFFEID(),
		"domain an ID":     certmanager.TrustDomain("spiffe://x"),
		"domain a path":    certmanager.TrustDomain("x/y"),
		"domain empty":     certmanager.TrustDomain(""),
		"pin garbage":      certmanager.PublicKeyPin("garbage"),
		"pin hexadecimal":  certmanager.PublicKeyPin(strings.Repeat("ab", 32)),
		"pin none":         certmanager.PublicKeyPin(),
		"CN empty":         certmanager.CommonName(""),
		"OU none":          certmanager.OrganizationalUnit(),
		"all of none":      certmanager.AllOf(),
		"all of zero":      certmanager.AllOf(zero, zero),
		"any of none":      certmanager.AnyOf(),
		"any of a zero":    certmanager.AnyOf(certmanager.DNSName("x.test"), zero),
		"all of a bad one": certmanager.AllOf(certmanager.DNSName("x.test"), certmanager.PublicKeyPin("garbage")),
		"own nil":          certmanager.NewRule("own", nil),
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []certmanager.Options{{Source: source, ClientRule: rule}, {Source: source, ServerRule: rule}} {
				o.Logger = slog.New(slog.DiscardHandler)
				_, err := certmanager.New(o)
				require.ErrorIs(t, err, certmanager.ErrInvalid)
				assert.ErrorContains(t, err, "Rule: ")
			}
			m, err := certmanager.New(certmanager.Options{Source: source, ClientRule: certmanager.CommonName("localhost"), Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			defer m.Close()
			require.Error(t, m.SetClientRule(rule))
			_, serverErr, _ := meet(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: "mallory"}))
			require.ErrorIs(t, serverErr, certmanager.ErrNotAuthorized, "the rule before is still in force")
		})
	}
	leaf := tlstest.Leaf{CommonName: "alice"}
	m, err := certmanager.New(certmanager.Options{Source: source, ClientRule: certmanager.CommonName("bob", "alice"), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer m.Close()
	_, serverErr, _ := meet(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", leaf))
	require.NoError(t, serverErr)
}

// certificater is a *tlstest.Pair, or a pair from elsewhere.
type certificater interface{ Certificate() tls.Certificate }

type loaded struct{ pair tls.Certificate }

func (l loaded) Certificate() tls.Certificate { return l.pair }
