package spiffe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/spiffe"
	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is a Workload API in this process: the protocol and the client are real, what it gives is
// the test's.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	path string

	mu      sync.Mutex // guards all below
	server  *grpc.Server
	answer  *workload.X509SVIDResponse // nil: it has none
	changed chan struct{}              // closed when answer is another
}

func newAgent(t *testing.T, answer *workload.X509SVIDResponse) *agent {
	t.Helper()
	a := &agent{path: filepath.Join(t.TempDir(), "agent.sock"), answer: answer, changed: make(chan struct{})}
	a.start(t)
	t.Cleanup(a.stop)
	return a
}

func (a *agent) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("unix", a.path)
	require.NoError(t, err)
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	a.mu.Lock()
	a.server = server
	a.mu.Unlock()
	go server.Serve(listener)
}

func (a *agent) stop() {
	a.mu.Lock()
	server := a.server
	a.mu.Unlock()
	server.Stop()
}

func (a *agent) addr() string { return "unix://" + a.path }

func (a *agent) give(answer *workload.X509SVIDResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(stream.Context()); len(md.Get("workload.spiffe.io")) == 0 {
		return status.Error(codes.InvalidArgument, "no security header")
	}
	for {
		a.mu.Lock()
		answer, changed := a.answer, a.changed
		a.mu.Unlock()
		if answer == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// domain is a trust domain with its CA.
type domain struct {
	name string
	ca   *tlstest.CA
}

func newDomain(t *testing.T, name string) *domain { return &domain{name, tlstest.NewCA(t)} }

// svid makes an answer with identities of a domain, which federates with others.
func (d *domain) svid(t *testing.T, paths []string, federated ...*domain) *workload.X509SVIDResponse {
	t.Helper()
	var leaves []tlstest.Leaf
	for _, path := range paths {
		leaves = append(leaves, d.leaf(path))
	}
	answer := d.answer(t, leaves...)
	for _, f := range federated {
		answer.FederatedBundles["spiffe://"+f.name] = f.ca.Certificate().Raw
	}
	return answer
}

// answer is one with these certificates.
func (d *domain) answer(t *testing.T, leaves ...tlstest.Leaf) *workload.X509SVIDResponse {
	t.Helper()
	answer := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
	for _, leaf := range leaves {
		pair := d.ca.Issue(t, leaf)
		key, err := x509.MarshalPKCS8PrivateKey(pair.Key)
		require.NoError(t, err)
		answer.Svids = append(answer.Svids, &workload.X509SVID{
			SpiffeId: leaf.URIs[0], X509Svid: pair.Leaf.Raw, X509SvidKey: key, Bundle: d.ca.Certificate().Raw,
		})
	}
	return answer
}

func (d *domain) leaf(path string) tlstest.Leaf {
	return tlstest.Leaf{CommonName: "workload", Usage: tlstest.ServerAndClient, Names: []string{"workload.test"}, URIs: []string{"spiffe://" + d.name + path}}
}

func (d *domain) issue(t *testing.T, path string) *tlstest.Pair {
	t.Helper()
	return d.ca.Issue(t, d.leaf(path))
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) contains(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.text.String(), text)
}

func start(t *testing.T, source *spiffe.Source, rule certmanager.Rule) (*certmanager.Manager, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	m, err := certmanager.New(certmanager.Options{Source: source, ClientRule: rule, ServerRule: rule, Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m, log
}

// talk is a handshake, and a byte each way.
func talk(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	require.NoError(t, err)
	defer listener.Close()
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			conn.Write([]byte{1})
			conn.Read(make([]byte, 1))
		}
	})
	defer serving.Wait()
	conn, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	return err
}

func eventually(t *testing.T, holds func() bool, what string) {
	t.Helper()
	require.Eventually(t, holds, 60*time.Second, 5*time.Millisecond, what)
}

// Two programs of one agent talk over mutual TLS, and a rotation of certificate and CA is in
// service when the agent sends it.
func TestRotation(t *testing.T) {
	d := newDomain(t, "a.example")
	a := newAgent(t, d.svid(t, []string{"/web"}))
	rule := certmanager.SPIFFEID("spiffe://a.example/web")
	m, _ := start(t, &spiffe.Source{Addr: a.addr()}, rule)
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
	serial := m.GetCertificate().Leaf.SerialNumber
	a.give(d.svid(t, []string{"/web"}))
	eventually(t, func() bool { return m.GetCertificate().Leaf.SerialNumber.Cmp(serial) != 0 }, "the new SVID")
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))

	next := &domain{"a.example", tlstest.NewCA(t)}
	both := next.svid(t, []string{"/web"})
	both.Svids[0].Bundle = append(both.Svids[0].Bundle, d.ca.Certificate().Raw...)
	a.give(both)
	old := d.issue(t, "/web").Certificate()
	theirs := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{old}}
	eventually(t, func() bool { return m.GetCertificate().Leaf.Issuer.String() == next.ca.Certificate().Subject.String() }, "the SVID of the new CA")
	require.NoError(t, talk(t, m.ServerTLS(), theirs), "both CAs are trusted")
	a.give(next.svid(t, []string{"/web"}))
	eventually(t, func() bool { return talk(t, m.ServerTLS(), theirs) != nil }, "the old CA is gone")
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
}

// A CA of one domain vouches for nobody in another that it federates with.
func TestFederation(t *testing.T) {
	ours, theirs, unknown := newDomain(t, "a.example"), newDomain(t, "b.example"), newDomain(t, "c.example")
	a := newAgent(t, ours.svid(t, []string{"/db"}, theirs))
	m, _ := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example", "b.example"))
	for name, test := range map[string]struct {
		pair *tlstest.Pair
		ok   bool
	}{
		"ours":                {ours.issue(t, "/x"), true},
		"federated":           {theirs.issue(t, "/x"), true},
		"not federated":       {unknown.issue(t, "/x"), false},
		"theirs, of ours":     {(&domain{"a.example", theirs.ca}).issue(t, "/x"), false},
		"ours, of theirs":     {(&domain{"b.example", ours.ca}).issue(t, "/x"), false},
		"without a SPIFFE ID": {ours.ca.Issue(t, tlstest.Leaf{}), false},
	} {
		t.Run(name, func(t *testing.T) {
			peer := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{test.pair.Certificate()}}
			assert.Equal(t, test.ok, talk(t, m.ServerTLS(), peer) == nil, "as a client")
			assert.Equal(t, test.ok, talk(t, peer, m.ClientTLS("workload.test")) == nil, "as a server")
		})
	}
	a.give(ours.svid(t, []string{"/db"}))
	peer := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{theirs.issue(t, "/x").Certificate()}}
	eventually(t, func() bool { return talk(t, m.ServerTLS(), peer) != nil }, "the federation has ended")
}

// While the agent is away, restarts, or gives nothing any more, what it gave stays in service, and
// the log says so.
func TestAgentAway(t *testing.T) {
	d := newDomain(t, "a.example")
	a := newAgent(t, d.svid(t, []string{"/web"}))
	m, log := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example"))
	a.stop()
	eventually(t, func() bool { return log.contains("what it sent last stays in service") }, "it is told")
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
	serial := m.GetCertificate().Leaf.SerialNumber
	a.give(d.svid(t, []string{"/web"}))
	a.start(t)
	eventually(t, func() bool { return m.GetCertificate().Leaf.SerialNumber.Cmp(serial) != 0 }, "it is followed again")
	a.give(nil)
	eventually(t, func() bool { return log.contains("PermissionDenied") }, "its entry was deleted")
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))
}

// New waits for an agent that comes late, and not for ever.
func TestStart(t *testing.T) {
	d := newDomain(t, "a.example")
	a := newAgent(t, nil)
	_, err := certmanager.New(certmanager.Options{Source: &spiffe.Source{Addr: a.addr(), StartTimeout: 50 * time.Millisecond}, Logger: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, "SPIFFE Workload API")
	late := time.AfterFunc(50*time.Millisecond, func() { a.give(d.svid(t, []string{"/web"})) })
	defer late.Stop()
	m, _ := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example"))
	require.NoError(t, talk(t, m.ServerTLS(), m.ClientTLS("")))

	for name, test := range map[string]struct {
		source *spiffe.Source
		says   string
	}{
		"address": {&spiffe.Source{Addr: "/run/agent.sock"}, "SPIFFE Workload API"},
		"ID":      {&spiffe.Source{Addr: a.addr(), ID: "a.example/web"}, "Source.ID"},
		"other":   {&spiffe.Source{Addr: a.addr(), ID: "spiffe://a.example/other", StartTimeout: time.Second}, "no X509-SVID spiffe://a.example/other"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := certmanager.New(certmanager.Options{Source: test.source, Logger: slog.New(slog.DiscardHandler)})
			require.ErrorContains(t, err, test.says)
			require.NoError(t, ctx.Err(), "it is found at once")
		})
	}
}

// Of several identities the program may choose one.
func TestID(t *testing.T) {
	d := newDomain(t, "a.example")
	a := newAgent(t, d.svid(t, []string{"/web", "/db"}))
	first, _ := start(t, &spiffe.Source{Addr: a.addr()}, certmanager.TrustDomain("a.example"))
	assert.Equal(t, "/web", first.GetCertificate().Leaf.URIs[0].Path)
	second, _ := start(t, &spiffe.Source{Addr: a.addr(), ID: "spiffe://a.example/db"}, certmanager.SPIFFEID("spiffe://a.example/web"))
	assert.Equal(t, "/db", second.GetCertificate().Leaf.URIs[0].Path)
	require.NoError(t, talk(t, first.ServerTLS(), second.ClientTLS("")))
	require.Error(t, talk(t, second.ServerTLS(), second.ClientTLS("")), "the rule asks for another")
}
