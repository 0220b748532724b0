// Package soak runs everything together for a while: proven peers that talk and churn, certificates
// and trust that change, an ACME source with short lives, and hostile peers beside them.
package soak

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

var (
	lasts = flag.Duration("soak", 10*time.Second, "how long to run")
	peers = flag.Int("peers", 100, "proven peers, half of which come and go")
)

func TestMain(m *testing.M) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
}

const publicName = "www.example.test"

// world is a server with all that may change about it.
type world struct {
	t       *testing.T
	dir     string
	ca      *tlstest.CA // of servers and proven peers
	guests  *tlstest.CA // in the bundle now and then
	revoked []*x509.Certificate
	files   map[string][]byte
	manager *certmanager.Manager
	server  gen.MetaBehavior
	addr    string
	acme    *acmetest.Server
	visits  sync.RWMutex // held while a hostile peer visits, who may make the server hold a megabyte or more

	echoed, connected, refused, evicted, hostile, renewed, rotations atomic.Int64
}

func TestSoak(t *testing.T) {
	descriptors := len(openDescriptors(t))
	w := &world{t: t, dir: t.TempDir(), ca: tlstest.NewCA(t), guests: tlstest.NewCA(t), files: map[string][]byte{}}
	stop := w.start()
	ctx, cancel := context.WithTimeout(t.Context(), *lasts)
	defer cancel()
	var running sync.WaitGroup
	for i := range *peers {
		config := w.client(w.ca, fmt.Sprintf("peer-%d", i)) // the keys take a while, which spreads the first handshakes
		if i%2 == 0 {
			running.Go(func() { w.stay(ctx, config) })
		} else {
			running.Go(func() { w.churn(ctx, config) })
		}
	}
	running.Go(func() { w.comeAndGo(ctx) })
	running.Go(func() { w.public(ctx) })
	for range 4 {
		running.Go(func() { w.misbehave(ctx) })
	}
	samples := w.watch(ctx)
	running.Wait()

	w.summary(samples)
	assert.Positive(t, w.echoed.Load())
	assert.Positive(t, w.refused.Load())
	assert.Positive(t, w.evicted.Load())
	if *lasts >= time.Minute {
		assert.Positive(t, w.renewed.Load())
	}
	assert.Zero(t, w.manager.Status().Rejections, w.manager.Status().LastError)
	flat(t, samples)
	stop()
	gone := func() bool {
		runtime.GC() // closes the pipes through which net has spliced, which it pools
		return len(openDescriptors(t)) <= descriptors+2
	}
	if !assert.Eventually(t, gone, 10*time.Second, 10*time.Millisecond, "descriptors are left") {
		t.Log(openDescriptors(t))
	}
}

// start starts the server. What it returns stops all of it.
func (w *world) start() (stop func()) {
	w.newServerCertificate()
	w.files["clients.pem"], w.files["crl.pem"] = w.ca.PEM(), w.ca.CRL(w.t)
	require.NoError(w.t, tlstest.RenameOver(w.dir, w.files, nil))
	ca, err := acmetest.New(acmetest.Options{Lifetime: 30 * time.Second}) // long enough to renew beside 2,000 peers on two cores
	require.NoError(w.t, err)
	w.acme = ca
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	w.addr = listener.Addr().String()
	ca.TLSALPN01(w.addr)
	w.manager, err = certmanager.New(certmanager.Options{
		Source: certmanager.Sources{
			certmanager.Files{
				Cert: filepath.Join(w.dir, "server.crt"), Key: filepath.Join(w.dir, "server.key"),
				ClientCAs: filepath.Join(w.dir, "clients.pem"), CRLs: filepath.Join(w.dir, "crl.pem"),
			},
			&acme.Source{
				Domains: []string{publicName}, Directory: ca.Directory(), Roots: ca.Roots(), Cache: autocert.DirCache(w.t.TempDir()), Background: true,
			},
		},
		PollInterval: time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(w.t, err)
	node, err := ergo.StartNode("soak@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	})
	require.NoError(w.t, err)
	w.server, err = meta.CreateTCPServer(meta.TCPServerOptions{Listener: listener, CertManager: w.manager, WriteTimeout: 5 * time.Second})
	require.NoError(w.t, err)
	_, err = node.Spawn(func() gen.ProcessBehavior { return &echo{server: w.server} }, gen.ProcessOptions{})
	require.NoError(w.t, err)
	return func() {
		node.Stop()
		require.Eventually(w.t, func() bool { s := meta.Stats(w.server); return s.Connections+s.Establishing == 0 }, 10*time.Second, 10*time.Millisecond)
		assert.NoError(w.t, w.manager.Close())
		ca.Close()
	}
}

type echo struct {
	act.Actor
	server gen.MetaBehavior
}

func (e *echo) Init(...any) error {
	_, err := e.SpawnMeta(e.server, gen.MetaOptions{})
	return err
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		_ = e.SendAlias(m.ID, m)
	}
	return nil
}

func (w *world) newServerCertificate() (serial string) {
	pair := w.ca.Issue(w.t, tlstest.Leaf{})
	w.files["server.crt"], w.files["server.key"] = pair.CertPEM, pair.KeyPEM
	return fmt.Sprintf("%x", pair.Leaf.SerialNumber)
}

// client is the configuration of a peer that expects the server's file certificate.
func (w *world) client(ca *tlstest.CA, name string) *tls.Config {
	pair := ca.Issue(w.t, tlstest.Leaf{CommonName: name, Names: []string{name}, Usage: tlstest.ClientOnly})
	return &tls.Config{
		RootCAs: w.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{pair.Certificate()},
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
}

func (w *world) dial(ctx context.Context, config *tls.Config) (*tls.Conn, error) {
	conn, err := (&tls.Dialer{Config: config, NetDialer: &net.Dialer{Timeout: 20 * time.Second}}).DialContext(context.WithoutCancel(ctx), "tcp", w.addr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	return conn.(*tls.Conn), nil
}

// exchange sends numbered messages of all sizes and wants the same bytes back.
func (w *world) exchange(conn net.Conn, number *uint64) error {
	sent := make([]byte, 8+rand.IntN(1<<rand.IntN(15)))
	binary.BigEndian.PutUint64(sent, *number)
	for i := 8; i < len(sent); i++ {
		sent[i] = byte(i) ^ byte(*number)
	}
	*number++
	wrote := make(chan error, 1)
	go func() { _, err := conn.Write(sent); wrote <- err }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return errors.Join(err, <-wrote)
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("message %d came back changed", *number-1)
	}
	w.echoed.Add(1)
	return <-wrote
}

// stay keeps one connection for the whole time.
func (w *world) stay(ctx context.Context, config *tls.Config) {
	conn, err := w.dial(ctx, config)
	if !assert.NoError(w.t, err) {
		return
	}
	w.connected.Add(1)
	defer conn.Close()
	for number := uint64(0); ctx.Err() == nil; {
		conn.SetDeadline(time.Now().Add(60 * time.Second))
		if !assert.NoError(w.t, w.exchange(conn, &number), "a proven peer was cut off") {
			return
		}
		pause(ctx, 2*(*peers)) // a thousand messages a second in all
	}
}

// churn connects again and again.
func (w *world) churn(ctx context.Context, config *tls.Config) {
	for ctx.Err() == nil {
		conn, err := w.dial(ctx, config)
		if !assert.NoError(w.t, err, "a proven peer was refused") {
			return
		}
		w.connected.Add(1)
		for number := uint64(0); number < 3; {
			if !assert.NoError(w.t, w.exchange(conn, &number), "a proven peer was cut off") {
				break
			}
		}
		conn.Close()
		pause(ctx, 10*(*peers)) // a hundred connections a second in all
	}
}

// public visits the name whose certificate ACME renews all the time.
func (w *world) public(ctx context.Context) {
	config := w.client(w.ca, "visitor")
	config.ServerName, config.RootCAs, config.ClientSessionCache = publicName, w.acme.Roots(), nil
	for last := ""; ctx.Err() == nil; pause(ctx, 100) {
		conn, err := w.dial(ctx, config)
		if last == "" && err != nil {
			continue // before the first certificate
		}
		if !assert.NoError(w.t, err, "a visitor of the public name failed") {
			return
		}
		if serial := conn.ConnectionState().PeerCertificates[0].SerialNumber.String(); serial != last {
			if last != "" {
				w.renewed.Add(1)
			}
			last = serial
		}
		conn.Close()
	}
}

// comeAndGo changes certificates and trust, one thing after another, and sees to it that who was
// removed is out.
func (w *world) comeAndGo(ctx context.Context) {
	replacements := slices.DeleteFunc(slices.Clone(tlstest.Replacements), func(g tlstest.Replacement) bool { return g.Silent })
	for round := 0; ctx.Err() == nil || round < 4; round++ { // each once at least
		var removed *tls.Config
		var open *tls.Conn
		var inService func(certmanager.Status) bool // not the generation: renewals of the ACME source count there too
		switch round % 4 {
		case 0:
			serial := w.newServerCertificate()
			inService = func(s certmanager.Status) bool {
				return slices.ContainsFunc(s.Certificates, func(c certmanager.CertificateInfo) bool { return c.Serial == serial })
			}
		case 1: // guests come
			w.files["clients.pem"] = slices.Concat(w.ca.PEM(), w.guests.PEM())
			inService = func(s certmanager.Status) bool { return len(s.ClientCAs) == 2 }
		case 2: // and have to go
			removed = w.client(w.guests, "guest")
			open = w.letIn(ctx, removed)
			w.files["clients.pem"] = w.ca.PEM()
			inService = func(s certmanager.Status) bool { return len(s.ClientCAs) == 1 }
		case 3: // one peer is revoked
			removed = w.client(w.ca, "victim")
			open = w.letIn(ctx, removed)
			w.revoked = append(w.revoked, removed.Certificates[0].Leaf)
			w.files["crl.pem"] = w.ca.CRL(w.t, w.revoked...)
			inService = func(s certmanager.Status) bool { return len(s.CRLs) == 1 && s.CRLs[0].Revoked == len(w.revoked) }
		}
		replacement := replacements[rand.IntN(len(replacements))]
		if !assert.NoError(w.t, replacement.Replace(w.dir, maps.Clone(w.files), nil), replacement.Name) {
			return
		}
		if !w.eventually(func() bool { return inService(w.manager.Status()) }, "%s is not noticed", replacement.Name) {
			return
		}
		w.rotations.Add(1)
		if removed != nil {
			w.isOut(ctx, removed, open)
		}
		pause(ctx, 300)
	}
}

func (w *world) letIn(ctx context.Context, config *tls.Config) *tls.Conn {
	conn, err := w.dial(ctx, config)
	if err == nil {
		number := uint64(0)
		err = w.exchange(conn, &number) // and has a session ticket to come back with
	}
	assert.NoError(w.t, err, "a peer that is trusted still")
	return conn
}

// isOut says that a removed peer has lost its connection, and does not come back by its ticket
// either.
func (w *world) isOut(ctx context.Context, config *tls.Config, open *tls.Conn) {
	if open != nil {
		open.SetDeadline(time.Now().Add(30 * time.Second))
		_, err := open.Read(make([]byte, 1))
		var ne net.Error
		assert.False(w.t, err == nil || errors.As(err, &ne) && ne.Timeout(), "a removed peer keeps its connection: %v", err)
		open.Close()
		w.evicted.Add(1)
	}
	conn, err := w.dial(ctx, config)
	if err == nil { // TLS 1.3: the refusal comes at the first read
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	assert.Error(w.t, err, "a removed peer is let in")
	w.refused.Add(1)
}

// misbehave visits as every hostile peer there is.
func (w *world) misbehave(ctx context.Context) {
	config := w.client(w.ca, "traitor")
	for ctx.Err() == nil {
		w.visit(tlstest.HostileClients[rand.IntN(len(tlstest.HostileClients))], config)
	}
}

func (w *world) visit(hostile tlstest.HostileClient, config *tls.Config) {
	w.visits.RLock()
	defer w.visits.RUnlock()
	conn, err := net.Dial("tcp", w.addr)
	if assert.NoError(w.t, err) {
		hostile.Visit(conn, config, min(2*time.Second, *lasts/20))
		w.hostile.Add(1)
	}
}

func (w *world) eventually(condition func() bool, format string, args ...any) bool {
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			assert.Fail(w.t, fmt.Sprintf(format, args...))
			return false
		}
	}
	return true
}

func pause(ctx context.Context, most int) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(rand.IntN(most)) * time.Millisecond):
	}
}
