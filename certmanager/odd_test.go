package certmanager_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math"
	"math/big"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// A rule that panics refuses, in handshakes and for open connections.
func TestRuleThatPanics(t *testing.T) {
	ca := tlstest.NewCA(t)
	var panics atomic.Bool
	m := newManager(t, certmanager.Options{
		Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool()},
		ClientRule: certmanager.NewRule("fragile", func(*certmanager.Peer) error {
			if panics.Load() {
				panic("boom")
			}
			return nil
		}),
	})
	client := ca.ClientConfig(t, "localhost")
	client.Certificates = []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}
	open := track(m, connect(t, m.ServerTLS(), client).ok(t).server)
	panics.Store(true)
	assert.ErrorContains(t, connect(t, m.ServerTLS(), client).refused(t).serverErr, "panicked: boom")
	m.SetClientCAs(ca.Pool())
	assert.ErrorIs(t, open.evicted(t), certmanager.ErrNotAuthorized)
}

// What a function returns that cannot be served is as if it had none. It ends no program where
// handshakes have goroutines of the Manager.
func TestFuncOfNonsense(t *testing.T) {
	ca := tlstest.NewCA(t)
	own := ca.Issue(t, tlstest.Leaf{})
	keyed := func(key any) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: own.Certificate().Certificate, PrivateKey: key}, nil
		}
	}
	for name, f := range map[string]func(*tls.ClientHelloInfo) (*tls.Certificate, error){
		"nil":        func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
		"empty":      func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil },
		"no key":     keyed(nil),
		"other key":  keyed("key"),
		"nil of key": keyed((*ecdsa.PrivateKey)(nil)),
		"panic":      func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("boom") },
	} {
		m := newManager(t, certmanager.Options{Source: certmanager.Sources{leaf(own), certmanager.Func(f)}})
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listener := m.NewListener(inner)
		for _, proto := range []string{"http/1.1", "acme-tls/1"} {
			conn, err := tls.Dial("tcp", inner.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: "other.test", NextProtos: []string{proto}})
			if proto == "acme-tls/1" {
				require.Error(t, err, name)
				continue
			}
			require.NoError(t, err, name)
			assert.Equal(t, own.Leaf.Raw, conn.ConnectionState().PeerCertificates[0].Raw, "the default: %s", name)
			conn.Close()
		}
		require.NoError(t, listener.Close())
	}
}

// oddSource gives a Material and counts how often it is asked.
type oddSource struct {
	material *certmanager.Material
	loads    *atomic.Int32
}

func (s oddSource) Load(context.Context, *certmanager.Material) (*certmanager.Material, error) {
	s.loads.Add(1)
	return s.material, nil
}

func (s oddSource) Watch(ctx context.Context, _ func(), _ func(certmanager.Event)) error {
	<-ctx.Done()
	return nil
}

// exitingSource ends the goroutine of its Load, as FailNow of a test does.
type exitingSource struct{ oddSource }

func (exitingSource) Load(context.Context, *certmanager.Material) (*certmanager.Material, error) {
	runtime.Goexit()
	return nil, nil
}

func TestLoadThatEndsItsGoroutine(t *testing.T) {
	_, err := certmanager.New(certmanager.Options{Source: exitingSource{}})
	require.ErrorContains(t, err, "ended its goroutine")
}

func TestTrustDomainsOfNonsense(t *testing.T) {
	ca := tlstest.NewCA(t)
	for _, name := range []string{"", "spiffe://example.test", "Example.test", "example.test/web"} {
		_, err := certmanager.New(certmanager.Options{Source: oddSource{&certmanager.Material{
			Certificates: []certmanager.Certificate{{Certificate: ca.Issue(t, tlstest.Leaf{}).Certificate()}},
			TrustDomains: map[string][]*x509.Certificate{name: {ca.Certificate()}},
		}, new(atomic.Int32)}})
		assert.ErrorIs(t, err, certmanager.ErrInvalid, "%q", name)
		assert.ErrorContains(t, err, "TrustDomains")
	}
}

// The longest interval is never, and not always.
func TestLongestPollInterval(t *testing.T) {
	pair := tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).Certificate()
	for range 10 { // there is jitter
		source := oddSource{&certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: pair}}}, new(atomic.Int32)}
		m := newManager(t, certmanager.Options{Source: source, PollInterval: math.MaxInt64})
		require.NoError(t, m.Reload(t.Context()))
		assert.EqualValues(t, 2, source.loads.Load())
	}
}

func TestPKCS12PasswordWithMark(t *testing.T) {
	needs.Program(t, "openssl")
	dir := t.TempDir()
	crt, key := tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).Files(t, dir, "a")
	out, err := exec.Command("openssl", "pkcs12", "-export", "-in", crt, "-inkey", key, "-passout", "pass:geheim", "-out", dir+"/p12").CombinedOutput()
	require.NoError(t, err, "%s", out)
	newManager(t, certmanager.Options{Source: certmanager.Files{PKCS12: dir + "/p12", PKCS12Password: put(t, dir, "password", []byte("\xef\xbb\xbfgeheim\r\n"))}})
}

// A chain that no client takes is refused at once, and with its reason: clients refuse handshake
// messages of more than 256 KiB.
func TestChainTooLarge(t *testing.T) {
	var names []string
	for i := range 20_000 {
		names = append(names, fmt.Sprintf("host-%d.example.test", i))
	}
	began := time.Now()
	_, err := certmanager.New(certmanager.Options{Source: leaf(tlstest.NewCA(t).Issue(t, tlstest.Leaf{Names: names}))})
	require.ErrorContains(t, err, "exceeds the maximum of 261144 bytes")
	assert.Less(t, time.Since(began), 9*time.Second, "it does not wait for the key")
}

// The file of a certificate may hold any number of CAs of the same name, which takes no time that
// grows with a power of their number.
func TestChainOfManyCertificates(t *testing.T) {
	root, end := newAuthority(t, "root"), newAuthority(t, "a.test")
	key, err := x509.MarshalPKCS8PrivateKey(end.key)
	require.NoError(t, err)
	for n, says := range map[int]string{
		90: "", 200: "its chain has more than 100 certificates", 5000: "it holds 5001 certificates, and the maximum is 1000",
	} {
		file := [][]byte{pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), end.by(root, nil)}
		for i := range n {
			file = append(file, root.by(root, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(i + 2)) }))
		}
		files := certmanager.Files{Cert: put(t, t.TempDir(), "tls.pem", file...)}
		if says == "" {
			newManager(t, certmanager.Options{Source: files})
			continue
		}
		began := time.Now()
		_, err := certmanager.New(certmanager.Options{Source: files})
		require.ErrorIs(t, err, certmanager.ErrInvalid)
		require.ErrorContains(t, err, says)
		assert.Less(t, time.Since(began), 9*time.Second)
	}
}

// A chain with an RSA key that crypto/tls refuses in peers is no chain to serve.
func TestRSAKeyTooLarge(t *testing.T) {
	ca := tlstest.NewCA(t)
	for bits, serves := range map[int]bool{8192: true, 8200: false} {
		//lint:ignore SA1019 a key of two primes takes minutes to make
		key, err := rsa.GenerateMultiPrimeKey(rand.Reader, 10, bits)
		require.NoError(t, err)
		cert := ca.Issue(t, tlstest.Leaf{PublicKey: key.Public()}).Certificate()
		cert.PrivateKey = key
		m, err := tryNew(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{cert}}})
		if !serves {
			require.ErrorIs(t, err, certmanager.ErrInvalid)
			require.ErrorContains(t, err, "has 8200 bits")
			continue
		}
		require.NoError(t, err)
		connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).ok(t)
		m.Close()
	}
}

// A CA with an RSA key that is much too large is refused before it is used: to check a signature
// with it takes seconds or hours.
func TestHugeRSAKey(t *testing.T) {
	root, end := newAuthority(t, "root"), newAuthority(t, "a.test")
	public := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1<<20), big.NewInt(1)), E: 65537}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, root.key)
	require.NoError(t, err)
	huge := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key, err := x509.MarshalPKCS8PrivateKey(end.key)
	require.NoError(t, err)
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	leafDER, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: template.NotBefore, NotAfter: template.NotAfter, DNSNames: []string{"a.test"}}, template, end.key.Public(), signer)
	require.NoError(t, err)
	var leaf struct {
		Signed    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	_, err = asn1.Unmarshal(leafDER, &leaf)
	require.NoError(t, err)
	leaf.Signature = asn1.BitString{Bytes: make([]byte, public.Size()), BitLength: 8 * public.Size()} // of the length that the huge key has
	leaf.Signature.Bytes[public.Size()-1] = 2
	leafDER, err = asn1.Marshal(leaf)
	require.NoError(t, err)
	leafPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER})
	for name, files := range map[string]certmanager.Files{
		"chain":  {Cert: put(t, t.TempDir(), "tls.pem", keyPEM, leafPEM, huge)},
		"bundle": {ClientCAs: put(t, t.TempDir(), "cas", huge)},
	} {
		began := time.Now()
		_, err = certmanager.New(certmanager.Options{Source: files})
		require.ErrorIs(t, err, certmanager.ErrInvalid, name)
		assert.ErrorContains(t, err, "has 1048577 bits", name)
		assert.Less(t, time.Since(began), 5*time.Second)
	}
}

// The configs work for QUIC, where there is no connection to ask, also with 0-RTT. Its sessions
// follow trust.
func TestQUIC(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
	}})
	client, server := m.ClientTLS("localhost"), m.ServerTLS()
	client.MinVersion, server.MinVersion = tls.VersionTLS13, tls.VersionTLS13
	client.NextProtos, server.NextProtos = []string{"h3"}, []string{"h3"}
	early, err := quic(t, client, server)
	require.NoError(t, err)
	assert.False(t, early)
	early, err = quic(t, client, server)
	require.NoError(t, err)
	assert.True(t, early)
	m.SetClientCAs(tlstest.NewCA(t).Pool())
	early, err = quic(t, client, server)
	require.Error(t, err)
	assert.False(t, early)
}

// quic makes a handshake of two QUIC ends without a network, and says whether the server took 0-RTT
// data.
func quic(t *testing.T, client, server *tls.Config) (early bool, err error) {
	ends := []*tls.QUICConn{tls.QUICClient(&tls.QUICConfig{TLSConfig: client}), tls.QUICServer(&tls.QUICConfig{TLSConfig: server})}
	for _, end := range ends {
		end.SetTransportParameters(nil)
		require.NoError(t, end.Start(t.Context()))
		defer end.Close()
	}
	for i, idle := 0, 0; idle < 4; i = 1 - i {
		e := ends[i].NextEvent()
		idle++
		switch e.Kind {
		case tls.QUICNoEvent:
			continue
		case tls.QUICWriteData:
			if err := ends[1-i].HandleData(e.Level, e.Data); err != nil {
				return early, err
			}
		case tls.QUICSetReadSecret:
			early = early || i == 1 && e.Level == tls.QUICEncryptionLevelEarly
		case tls.QUICHandshakeDone:
			if i == 1 {
				require.NoError(t, ends[1].SendSessionTicket(tls.QUICSessionTicketOptions{EarlyData: true}))
			}
		}
		idle = 0
	}
	return early, nil
}

// What clients refuse whatever roots they have is said where no roots are given.
func TestChainThatClientsRefuse(t *testing.T) {
	unknown := []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	for says, edit := range map[string]func(*x509.Certificate){
		"":                             func(*x509.Certificate) {},
		"unhandled critical extension": func(c *x509.Certificate) { c.ExtraExtensions = unknown },
		"not permitted":                func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other.test"} },
	} {
		m := newLogged(t, leaf(tlstest.NewCA(t).Intermediate(t, edit).Issue(t, tlstest.Leaf{Names: []string{"example.test"}})))
		if warnings := fmt.Sprint(m.warnings()); says == "" {
			assert.Equal(t, "[]", warnings)
		} else {
			assert.Contains(t, warnings, says)
		}
	}
}

// Functions of the program that panic on goroutines of the Manager do not end the program, nor keep
// others from being called.
func TestFunctionsThatPanic(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newLogged(t, certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()})
	m.Subscribe(nil)
	m.Subscribe(func(certmanager.Event) { panic("boom") })
	events := collect(m.Manager)
	state := connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
	m.Track(&state, nil, nil)
	m.Track(&state, nil, func(error) { panic("boom") })
	open := track(m.Manager, state)
	m.SetClientCAs(tlstest.NewCA(t).Pool())
	require.ErrorIs(t, open.evicted(t), certmanager.ErrUntrusted)
	eventually(t, "all events", func() bool { return len(events(certmanager.PeerEvicted)) == 3 })
	assert.Contains(t, m.log.String(), "a subscriber panicked")
	assert.Contains(t, m.log.String(), "the function that closes a connection panicked")
}

// oddConn is a connection whose method panics.
type oddConn struct{ net.Conn }

func (oddConn) Read([]byte) (int, error) { panic("boom") }

type oddListener struct{ *pipeListener }

func (oddListener) Accept() (net.Conn, error) { panic("boom") }

// A listener and connections of the program that are nil or panic are errors of NewListener's
// Accept, or are closed; the others are served.
func TestNewListenerOnOddOnes(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newLogged(t, leaf(ca.Issue(t, tlstest.Leaf{})))
	inner := &pipeListener{conns: make(chan net.Conn, 3), closed: make(chan struct{})}
	listener := m.NewListener(inner)
	defer listener.Close()
	inner.conns <- nil
	_, err := listener.Accept()
	require.ErrorContains(t, err, "neither a connection nor an error")
	serverEnd, clientEnd := net.Pipe()
	inner.conns <- oddConn{serverEnd}
	_, err = clientEnd.Read(make([]byte, 1))
	require.Error(t, err, "it is closed")
	eventually(t, "the log", func() bool { return strings.Contains(m.log.String(), "a handshake below NewListener panicked") })
	serverEnd, clientEnd = net.Pipe()
	inner.conns <- buffer(serverEnd)
	client := tls.Client(buffer(clientEnd), ca.ClientConfig(t, "localhost"))
	defer client.NetConn().Close()
	require.NoError(t, client.HandshakeContext(t.Context()))
	conn, err := listener.Accept()
	require.NoError(t, err)
	conn.Close()

	nobody := m.NewListener(oddListener{&pipeListener{closed: make(chan struct{})}})
	defer nobody.Close()
	_, err = nobody.Accept()
	require.ErrorContains(t, err, "panicked")
}

// A Manager that New did not make refuses, and panics in no handshake.
func TestZeroManager(t *testing.T) {
	m := new(certmanager.Manager)
	require.ErrorIs(t, m.Ready(), certmanager.ErrClosed)
	<-m.Done()
	require.NoError(t, m.Close())
	_, serverErr, _ := meet(t, m.ServerTLS(), &tls.Config{InsecureSkipVerify: true})
	require.ErrorIs(t, serverErr, certmanager.ErrClosed)
}
