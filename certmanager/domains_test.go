package certmanager_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// pushed is a source of a material that a test replaces.
type pushed struct {
	mu       sync.Mutex // guards the fields below
	material *certmanager.Material
	changed  func()
}

func (s *pushed) put(m *certmanager.Material) {
	s.mu.Lock()
	s.material = m
	changed := s.changed
	s.mu.Unlock()
	if changed != nil {
		changed()
	}
}

func (s *pushed) Load(context.Context, *certmanager.Material) (*certmanager.Material, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.material, nil
}

func (s *pushed) Watch(ctx context.Context, changed func(), _ func(certmanager.Event)) error {
	s.mu.Lock()
	s.changed = changed
	s.mu.Unlock()
	<-ctx.Done()
	return nil
}

// member is a leaf with a SPIFFE ID and without a name.
func member(t *testing.T, ca *tlstest.CA, uris ...string) *tlstest.Pair {
	t.Helper()
	return ca.Issue(t, tlstest.Leaf{Usage: tlstest.ServerAndClient, CommonName: "workload", Names: []string{"workload.example.test"}, URIs: uris})
}

func domainsOf(pair *tlstest.Pair, a, b *tlstest.CA) *certmanager.Material {
	return &certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: pair.Certificate(), Origin: "test", Renewed: true}},
		TrustDomains: map[string][]*x509.Certificate{"a.example": {a.Certificate()}, "b.example": {b.Certificate()}},
	}
}

func manager(t *testing.T, source certmanager.Source, rule certmanager.Rule) *certmanager.Manager {
	t.Helper()
	m, err := certmanager.New(certmanager.Options{Source: source, ServerRule: rule, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// meet is a handshake of two configs, and a byte each way.
func meet(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var serving sync.WaitGroup
	serving.Go(func() {
		raw, err := listener.Accept()
		if serverErr = err; err != nil {
			return
		}
		conn := tls.Server(raw, server)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, serverErr = io.ReadFull(conn, make([]byte, 1)); serverErr == nil {
			_, serverErr = conn.Write([]byte{1})
		}
	})
	raw, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	conn := tls.Client(raw, client)
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if clientErr = conn.Handshake(); clientErr == nil {
		conn.Write([]byte{1})
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
		state = conn.ConnectionState()
	}
	conn.Close()
	serving.Wait()
	return state, serverErr, clientErr
}

// A CA vouches for the members of its own trust domain only, on both sides and in both versions.
func TestTrustDomains(t *testing.T) {
	a, b := tlstest.NewCA(t), tlstest.NewCA(t)
	other := tlstest.NewCA(t)
	ours := manager(t, &pushed{material: domainsOf(member(t, a, "spiffe://a.example/server"), a, b)}, certmanager.TrustDomain("a.example", "b.example"))
	for name, test := range map[string]struct {
		peer *tlstest.Pair
		says string // empty: it is let in
	}{
		"of a":                   {member(t, a, "spiffe://a.example/x"), ""},
		"of b":                   {member(t, b, "spiffe://b.example/x"), ""},
		"of b, issued by a":      {member(t, a, "spiffe://b.example/x"), "not trusted"},
		"of a, issued by b":      {member(t, b, "spiffe://a.example/x"), "not trusted"},
		"of a, issued by nobody": {member(t, other, "spiffe://a.example/x"), "not trusted"},
		"of an unknown domain":   {member(t, a, "spiffe://c.example/x"), `no CA of the trust domain "c.example" is known`},
		"a user in the ID":       {member(t, a, "spiffe://evil@a.example/x"), "malformed"},
		"a port in the ID":       {member(t, a, "spiffe://a.example:1/x"), "malformed"},
		"a query in the ID":      {member(t, a, "spiffe://a.example/x?y"), "malformed"},
		"a fragment in the ID":   {member(t, a, "spiffe://a.example/x#y"), "malformed"},
		"capitals in the ID":     {member(t, a, "spiffe://A.example/x"), "malformed"},
		"no domain in the ID":    {member(t, a, "spiffe:///x"), "malformed"},
		"two IDs":                {member(t, a, "spiffe://a.example/x", "spiffe://b.example/x"), "another URI"},
		"an ID and a URL":        {member(t, a, "https://a.example/", "spiffe://a.example/x"), "another URI"},
		"no ID":                  {member(t, a), "it has no SPIFFE ID"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				theirs := &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true, Certificates: []tls.Certificate{test.peer.Certificate()}}
				_, serverErr, _ := meet(t, ours.ServerTLS(), theirs)
				_, _, clientErr := meet(t, theirs, ours.ClientTLS("workload.example.test"))
				if test.says == "" {
					require.NoError(t, serverErr)
					require.NoError(t, clientErr)
					return
				}
				require.Error(t, serverErr)
				if name != "of a, issued by nobody" { // of which crypto/tls says so
					assert.ErrorContains(t, serverErr, test.says)
				}
				require.Error(t, clientErr)
				if name != "no ID" { // for which the system's roots are asked
					assert.ErrorContains(t, clientErr, test.says)
				}
			})
		}
	}
}

// Without a rule the name decides about a server, although it is a member: else every member could
// pose as it.
func TestMembersAsServers(t *testing.T) {
	a, b := tlstest.NewCA(t), tlstest.NewCA(t)
	server := manager(t, &pushed{material: domainsOf(member(t, a, "spiffe://a.example/db"), a, b)}, certmanager.Rule{})
	for name, test := range map[string]struct {
		rule certmanager.Rule
		host string
		ok   bool
	}{
		"no rule, its name":      {certmanager.Rule{}, "workload.example.test", true},
		"no rule, another name":  {certmanager.Rule{}, "db.example.test", false},
		"no rule, no name":       {certmanager.Rule{}, "", false},
		"its ID":                 {certmanager.SPIFFEID("spiffe://a.example/db"), "", true},
		"its ID, another name":   {certmanager.SPIFFEID("spiffe://a.example/db"), "10.0.0.1", true},
		"another ID, its name":   {certmanager.SPIFFEID("spiffe://a.example/web"), "workload.example.test", false},
		"another domain":         {certmanager.TrustDomain("b.example"), "workload.example.test", false},
		"its domain, and a name": {certmanager.TrustDomain("a.example"), "db.example.test", true},
	} {
		t.Run(name, func(t *testing.T) {
			client := manager(t, &pushed{material: domainsOf(member(t, b, "spiffe://b.example/web"), a, b)}, test.rule)
			_, _, err := meet(t, server.ServerTLS(), client.ClientTLS(test.host))
			assert.Equal(t, test.ok, err == nil, "%v", err)
		})
	}
}

// A domain that loses a CA, or is left out, loses its open connections and its sessions, and no
// other does.
func TestTrustDomainRemoved(t *testing.T) {
	a, b := tlstest.NewCA(t), tlstest.NewCA(t)
	pair := member(t, a, "spiffe://a.example/server")
	source := &pushed{material: domainsOf(pair, a, b)}
	m := manager(t, source, certmanager.Rule{})
	var all []*tls.Config
	ended := map[string]chan error{}
	for name, p := range map[string]*tlstest.Pair{"a": member(t, a, "spiffe://a.example/x"), "b": member(t, b, "spiffe://b.example/x")} {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: "workload.example.test", Certificates: []tls.Certificate{p.Certificate()},
			ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		all = append(all, config)
		_, serverErr, _ := meet(t, m.ServerTLS(), config)
		require.NoError(t, serverErr)
		state, _, err := meet(t, m.ServerTLS(), config)
		require.NoError(t, err)
		require.True(t, state.DidResume, name)
		chain := [][]*x509.Certificate{{p.Leaf, map[string]*tlstest.CA{"a": a, "b": b}[name].Certificate()}}
		ends := make(chan error, 1)
		ended[name] = ends
		defer m.Track(&tls.ConnectionState{HandshakeComplete: true, PeerCertificates: chain[0][:1], VerifiedChains: chain}, nil, func(err error) { ends <- err })()
	}
	removed := domainsOf(pair, a, b)
	delete(removed.TrustDomains, "b.example")
	source.put(removed)
	select {
	case err := <-ended["b"]:
		assert.ErrorIs(t, err, certmanager.ErrUntrusted)
	case <-time.After(30 * time.Second):
		t.Fatal("the connection of b stays")
	}
	assert.Empty(t, ended["a"])
	refused := 0
	for _, config := range all {
		if _, serverErr, _ := meet(t, m.ServerTLS(), config); serverErr != nil {
			refused++
		}
	}
	assert.Equal(t, 1, refused, "that of b, although it has a session")

	// What the program sets stands for all that the source gives.
	m.SetClientCAs(tlstest.NewCA(t).Pool())
	for _, config := range all {
		_, serverErr, _ := meet(t, m.ServerTLS(), config)
		assert.Error(t, serverErr)
	}
}

// CAs that the program sets stand for those of one side only: servers are still verified by their
// trust domain after SetClientCAs, and clients after SetRootCAs.
func TestTrustDomainsOfTheOtherSide(t *testing.T) {
	a, b, plain := tlstest.NewCA(t), tlstest.NewCA(t), tlstest.NewCA(t)
	const id, host = "spiffe://a.example/x", "workload.example.test"
	material := domainsOf(member(t, a, id), a, b)
	material.RootCAs, material.ClientCAs = []*x509.Certificate{plain.Certificate()}, []*x509.Certificate{plain.Certificate()}
	m := manager(t, &pushed{material: material}, certmanager.SPIFFEID(id))
	errs := func(issuer *tlstest.CA) (asClient, asServer error) {
		theirs := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{member(t, issuer, id).Certificate()}}
		_, asClient, _ = meet(t, m.ServerTLS(), theirs)
		_, _, asServer = meet(t, theirs, m.ClientTLS(host))
		return asClient, asServer
	}
	for name, c := range map[string]struct {
		clients, roots             *x509.CertPool
		memberClient, memberServer bool // the member that its own domain has issued
		plainClient, plainServer   bool // the one of the CA that is in no domain
	}{
		"of the source":     {nil, nil, true, true, false, false},
		"SetClientCAs":      {plain.Pool(), nil, false, true, true, false},
		"SetRootCAs":        {nil, plain.Pool(), true, false, false, true},
		"SetClientCAs of a": {a.Pool(), nil, true, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			m.SetClientCAs(c.clients)
			m.SetRootCAs(c.roots)
			asClient, asServer := errs(a)
			assert.Equal(t, c.memberClient, asClient == nil, "a client of the domain: %v", asClient)
			assert.Equal(t, c.memberServer, asServer == nil, "a server of the domain: %v", asServer)
			asClient, asServer = errs(plain)
			assert.Equal(t, c.plainClient, asClient == nil, "a client of no domain: %v", asClient)
			assert.Equal(t, c.plainServer, asServer == nil, "a server of no domain: %v", asServer)
		})
	}
}
