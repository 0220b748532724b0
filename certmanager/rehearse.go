package certmanager

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// A reload of very many certificates leaves a core to those who are being served. Yielding is not
// enough: where there is one core, nobody looks at the network as long as somebody can run. So a
// rehearsal sleeps for a moment each time that it has worked for a slice, all moments together no
// longer than allMoments.
const (
	slice      = 200 * time.Microsecond
	moment     = 2 * time.Millisecond
	allMoments = 5 * time.Second
)

// pacer is shared by the two ends of a rehearsed handshake. A nil one spares nobody.
type pacer struct {
	mu    sync.Mutex
	since time.Time
	slept time.Duration
}

func (p *pacer) step() {
	if p == nil {
		return
	}
	p.mu.Lock()
	due := p.slept < allMoments && time.Since(p.since) > slice
	if due {
		p.since = time.Now().Add(moment)
		p.slept += moment
	}
	p.mu.Unlock()
	if due {
		time.Sleep(moment)
	}
}

// rehearsalTimeout bounds a rehearsed handshake. Only a key that is not in memory, in an HSM for
// example, can come near it. The reload loop waits for such keys no longer than keyWait, so that a
// change of something else does not wait for them: the certificate is put in service at the next
// try after its key has signed.
const (
	rehearsalTimeout = keyTimeout + time.Second
	keyWait          = 2 * time.Second
)

// rehearse checks everything that could make handshakes with the candidate fail. What
// previous served already is not tried again.
func (s *snapshot) rehearse(ctx context.Context, o *Options, previous *snapshot, now time.Time) error {
	compared := newComparison(s, previous, now)
	errs := append(s.lost(previous), compared.check()...)
	errs = append(errs, s.tryKeys(ctx, compared)...)
	if err := s.tryECH(ctx); err != nil {
		errs = append(errs, err)
	}
	if err := s.tryClients(ctx, previous); err != nil {
		errs = append(errs, err)
	}
	for _, name := range o.RequireNames {
		// What is in service may miss it too, where an ACME certificate ended: that must not
		// keep the next from taking its place.
		if !s.covers(name) && (previous == nil || previous.coversItself(name)) {
			errs = append(errs, fmt.Errorf("%w: %s; the certificates for servers have %s", ErrNotCovered, name, s.served()))
		}
	}
	return errors.Join(errs...)
}

// tryKeys proves that the keys sign which are not in service already.
func (s *snapshot) tryKeys(ctx context.Context, compared *comparison) (errs []error) {
	var pace *pacer
	left := rehearsalTimeout // for keys that are not in memory
	if compared.previous != nil {
		pace, left = &pacer{since: time.Now()}, keyWait
	}
	for _, c := range s.certs {
		pace.step()
		if compared.served[c] {
			continue
		}
		began, wait := time.Now(), rehearsalTimeout
		_, device := c.tls.PrivateKey.(*deviceKey)
		if device {
			wait = max(left, 10*time.Millisecond)
		}
		if err := c.tryHandshake(ctx, wait, pace); err != nil {
			errs = append(errs, err)
		}
		if device {
			left -= time.Since(began)
		}
	}
	return errs
}

// tryHandshake proves once that the key signs for the chain. It waits for no longer than wait; the
// next call finds what came of it. A key that did not answer is not asked again before it does.
func (c *certificate) tryHandshake(ctx context.Context, wait time.Duration, pace *pacer) error {
	if c.proven.Load() {
		return nil
	}
	if !c.trying.CompareAndSwap(false, true) {
		return fmt.Errorf("%s: certificate %s: %w: rehearsed handshake: %w", c.origin, trust.Describe(c.tls.Leaf), ErrInvalid, errKeyBusy)
	}
	config, peer := newTLSConfig(), newTLSConfig()
	config.Certificates = []tls.Certificate{c.tls}
	err := tryHandshake(ctx, wait, config, peer, pace, func(err error) {
		if err == nil {
			c.proven.Store(true)
		}
		c.trying.Store(false)
	})
	if err != nil {
		return fmt.Errorf("%s: certificate %s: %w: rehearsed handshake: %w", c.origin, trust.Describe(c.tls.Leaf), ErrInvalid, err)
	}
	return nil
}

// tryECH proves that every Encrypted Client Hello key fits its config. One that crypto/tls
// cannot use would fail all clients that send the extension, also those that send it
// without having a key.
func (s *snapshot) tryECH(ctx context.Context) error {
	if s.names.fallback.none() {
		return nil // no server
	}
	for _, key := range s.ech {
		config, peer := newTLSConfig(), newTLSConfig()
		config.Certificates = []tls.Certificate{s.names.fallback.first.tls}
		config.EncryptedClientHelloKeys = s.ech
		peer.MinVersion, peer.ServerName = tls.VersionTLS13, "rehearsal.invalid"
		peer.EncryptedClientHelloConfigList = append(binary.BigEndian.AppendUint16(nil, uint16(len(key.Config))), key.Config...)
		if err := tryHandshake(ctx, rehearsalTimeout, config, peer, nil, func(error) {}); err != nil {
			return fmt.Errorf("%w: Encrypted Client Hello key: rehearsed handshake: %w", ErrInvalid, err)
		}
	}
	return nil
}

// tryClients proves that clients can be asked for their certificates: the names of the CAs are part
// of that message.
func (s *snapshot) tryClients(ctx context.Context, previous *snapshot) error {
	if s.policy.clientAuth == tls.NoClientCert || s.names.fallback.none() || previous != nil && previous.policy.clientID == s.policy.clientID {
		return nil
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config, peer := newTLSConfig(), newTLSConfig()
		config.Certificates = []tls.Certificate{rehearsalCertificate()}
		s.policy.askClients(config)
		config.ClientAuth = tls.RequireAnyClientCert // nobody has a client's key here
		peer.MaxVersion = version
		peer.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert := rehearsalCertificate()
			return &cert, nil
		}
		if err := tryHandshake(ctx, rehearsalTimeout, config, peer, nil, func(error) {}); err != nil {
			return fmt.Errorf("client CAs: %w: rehearsed handshake over %s: %w", ErrInvalid, tls.VersionName(version), err)
		}
	}
	return nil
}

// rehearsalCertificate is one for both ends of a handshake in which nobody has to be verified.
var rehearsalCertificate = sync.OnceValue(func() tls.Certificate {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // never, see crypto/rand
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		panic(err) // never, of this template
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// tryHandshake makes a real handshake over net.Pipe and waits for it no longer than wait. ended is
// called with its outcome, which may be after the return.
func tryHandshake(ctx context.Context, wait time.Duration, config, peer *tls.Config, pace *pacer, ended func(error)) error {
	config.SessionTicketsDisabled = true // nobody reads them from the pipe
	peer.InsecureSkipVerify = true       // keys are tried here; the chain was checked before
	// The key signs the same whatever is exchanged: the cheapest.
	peer.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}

	outcome := make(chan error, 1)
	go func() {
		err := bothEnds(ctx, config, peer, pace)
		ended(err)
		outcome <- err
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-outcome:
		return err
	case <-timer.C:
		return fmt.Errorf("the key did not sign within %v", wait.Round(10*time.Millisecond))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bothEnds returns when both ends have ended.
func bothEnds(ctx context.Context, config, peer *tls.Config, pace *pacer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, rehearsalTimeout)
	defer cancel()
	pipeServer, pipeClient := net.Pipe()
	serverEnd, clientEnd := newPolite(pipeServer, pace), newPolite(pipeClient, pace)
	done := make(chan error, 2)
	go func() { done <- tls.Server(serverEnd, config).HandshakeContext(ctx) }()
	go func() { done <- tls.Client(clientEnd, peer).HandshakeContext(ctx) }()
	for range 2 {
		if e := <-done; e != nil {
			err = cmp.Or(err, e)
			pipeServer.Close() // the other end fails of it
			pipeClient.Close()
		}
	}
	close(serverEnd.out)
	close(clientEnd.out)
	return err
}

// polite lets others go first before each step of a handshake. Without it the two ends hand over to
// each other, and a core is theirs for the whole handshake.
type polite struct {
	net.Conn
	pace *pacer
	out  chan []byte // what is to be written
}

// newPolite starts a goroutine that writes, until out is closed. A pipe has no buffer: an end that
// has to send an alert while the other writes would wait until the time is over.
func newPolite(conn net.Conn, pace *pacer) polite {
	c := polite{conn, pace, make(chan []byte, 16)}
	go func() {
		defer conn.Close()
		for b := range c.out {
			_, _ = conn.Write(b) // the end that reads finds out
		}
	}()
	return c
}

func (c polite) Write(b []byte) (int, error) {
	c.out <- bytes.Clone(b)
	return len(b), nil
}

func (c polite) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.pace.step()
	runtime.Gosched()
	return n, err
}
