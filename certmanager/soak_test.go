package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// soakRotations is how many rotations TestSoak makes: 10,000 with ERGOTLS_SOAK=1, any other
// number as it is, a few without.
func soakRotations() int {
	switch n, _ := strconv.Atoi(os.Getenv("ERGOTLS_SOAK")); n {
	case 0:
		return 30
	case 1:
		return 10_000
	default:
		return n
	}
}

// TestSoak replaces certificate, chain, CA bundle and CRL in random replacements while proven
// peers connect all the time and removed ones try to. No proven peer fails, no removed one gets
// in, and what is served is never older than what was published.
func TestSoak(t *testing.T) {
	needs.Long(t)
	s := newSoak(t)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for _, version := range versions {
		for _, cache := range []tls.ClientSessionCache{nil, tls.NewLRUClientSessionCache(1), &tlstest.Replay{}} {
			wait.Go(func() { s.keepConnecting(stop, version, cache) })
		}
	}
	wait.Go(func() { s.keepTrying(stop, &s.guest) })
	wait.Go(func() { s.keepTrying(stop, &s.victim) })
	n := soakRotations()
	func() {
		defer wait.Wait()
		defer close(stop)
		for i := 0; i < n && !t.Failed(); i++ {
			s.timed(i)
			s.check(i)
			if i%500 == 499 {
				s.summary(i + 1)
			}
		}
	}()
	s.summary(n)
	require.NotZero(t, s.resumed.Load())
	require.NotZero(t, s.refused.Load())
}

func (s *soak) summary(rotations int) {
	status := s.m.Status()
	s.t.Logf("%d rotations in %v: %d connections of proven peers, %d of them resumed, none failed; %d of removed peers, all refused; %d tickets declined; %d evictions; generation %d",
		rotations, time.Since(s.start).Round(time.Second), s.connections.Load(), s.resumed.Load(), s.refused.Load(), status.DeclinedTickets, status.Evicted, status.Generation)
}

// comesAndGoes is a peer that is let in and removed, and keeps its first ticket.
type comesAndGoes struct {
	pair    *tlstest.Pair
	config  *tls.Config
	in      bool         // wanted; only the test's goroutine knows
	removed atomic.Int64 // the number of its removal while that is published, else 0
}

type soak struct {
	t      *testing.T
	start  time.Time
	m      *certmanager.Manager
	dir    string
	server *tls.Config
	random *rand.Rand

	ca, intermediate, guestCA *tlstest.CA
	pair                      *tlstest.Pair
	crlNumber                 string
	took                      time.Duration // of the last rotation
	guest                     comesAndGoes  // its CA does
	victim                    comesAndGoes  // of ca, revoked now and then

	stays         *tracked
	victimTracked *tracked
	number        atomic.Int64 // of the certificate published last
	numbers       sync.Map     // serial to number

	connections, resumed, refused atomic.Int64
}

func newSoak(t *testing.T) *soak {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := &soak{
		t: t, start: time.Now(), dir: filepath.Join(t.TempDir(), "tls"), random: rand.New(rand.NewPCG(seed, 0)),
		ca: tlstest.NewCA(t), guestCA: tlstest.NewCA(t),
	}
	s.intermediate = s.ca.Intermediate(t)
	require.NoError(t, os.Mkdir(s.dir, 0o700))
	s.guest.pair, s.victim.pair = s.guestCA.Issue(t, tlstest.Leaf{}), s.ca.Issue(t, tlstest.Leaf{Names: []string{"victim.test"}})
	for _, p := range []*comesAndGoes{&s.guest, &s.victim} {
		p.in, p.config = true, s.config(p.pair)
	}
	s.newPair(s.ca, 0)
	require.NoError(t, tlstest.RenameOver(s.dir, s.files(), nil))
	s.m = newManager(t, certmanager.Options{PollInterval: 50 * time.Millisecond, Source: certmanager.Files{
		Cert: filepath.Join(s.dir, "tls.crt"), Key: filepath.Join(s.dir, "tls.key"),
		ClientCAs: filepath.Join(s.dir, "clients.crt"), RootCAs: filepath.Join(s.dir, "root.crt"), CRLs: filepath.Join(s.dir, "crl.pem"),
	}})
	s.server = s.m.ServerTLS()
	stable := connect(t, s.server, s.config(s.ca.Issue(t, tlstest.Leaf{}))).ok(t)
	s.stays = track(s.m, stable.server)
	s.check(0)
	return s
}

func (s *soak) config(pair *tlstest.Pair) *tls.Config {
	cert := pair.Certificate()
	config := s.ca.ClientConfig(s.t, "localhost")
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	config.ClientSessionCache = &tlstest.Replay{}
	return config
}

// newPair makes the certificate of rotation number.
func (s *soak) newPair(issuer *tlstest.CA, number int) {
	s.pair = issuer.Issue(s.t, tlstest.Leaf{})
	s.numbers.Store(s.pair.Leaf.SerialNumber.String(), int64(number))
}

func (s *soak) files() map[string][]byte {
	clients := append(s.ca.PEM(), s.intermediate.PEM()...)
	if s.guest.in {
		clients = append(clients, s.guestCA.PEM()...)
	}
	var revoked []*x509.Certificate
	if !s.victim.in {
		revoked = append(revoked, s.victim.pair.Leaf)
	}
	crl := s.ca.CRL(s.t, revoked...) // another one each time
	s.crlNumber = parseCRL(s.t, crl).Number.String()
	return map[string][]byte{
		"tls.crt": s.pair.CertPEM, "tls.key": s.pair.KeyPEM, "clients.crt": clients, "root.crt": s.ca.PEM(), "crl.pem": crl,
	}
}

// timed makes a rotation, and allows a rejection only where files were torn for as long as that is
// reported: on a busy machine a replacement of many steps takes its time, and the next may begin
// before the reload loop has looked.
func (s *soak) timed(i int) {
	before, start := s.m.Status().Rejections, time.Now()
	s.rotate(i)
	took := time.Since(start)
	if status := s.m.Status(); status.Rejections != before {
		s.t.Logf("rotation %d took %v after one of %v; rejected: %s", i, took, s.took, status.LastError)
		require.GreaterOrEqual(s.t, took+s.took, time.Second, status.LastError)
	}
	s.took = took
}

// rotate changes something and waits until that is published.
func (s *soak) rotate(i int) {
	what := ""
	kind := s.random.IntN(6)
	if kind == 0 || kind == 5 {
		what += " certificate"
		s.newPair(s.ca, i+1)
	}
	if kind == 1 {
		what += " certificate with a chain"
		s.newPair(s.intermediate, i+1)
	}
	if kind == 2 || kind == 5 {
		s.guest.in = !s.guest.in
		what += fmt.Sprintf(" guest's CA in the bundle: %v", s.guest.in)
	}
	if kind == 3 || kind == 5 {
		s.victim.in = !s.victim.in
		what += fmt.Sprintf(" victim revoked: %v", !s.victim.in)
	}
	if kind == 4 {
		what += " CRL issued again"
	}
	for _, p := range []*comesAndGoes{&s.guest, &s.victim} {
		if p.in {
			p.removed.Store(0)
		}
	}
	replacement := tlstest.Replacements[s.random.IntN(len(tlstest.Replacements))]
	require.NoError(s.t, replacement.Replace(s.dir, s.files(), nil))
	if s.random.IntN(4) == 0 { // someone is impatient, while the loop may be about to load what it has read before
		require.NoError(s.t, s.m.Reload(s.t.Context()))
	}
	eventually(s.t, fmt.Sprintf("rotation %d by %s:%s", i, replacement.Name, what), s.published)
	if number, ok := s.numbers.Load(s.pair.Leaf.SerialNumber.String()); ok {
		s.number.Store(number.(int64))
	}
	for _, p := range []*comesAndGoes{&s.guest, &s.victim} {
		if !p.in {
			p.removed.CompareAndSwap(0, int64(i+1))
		}
	}
}

func (s *soak) published() bool {
	status := s.m.Status()
	wantCAs, wantRevoked := 2, 0
	if s.guest.in {
		wantCAs++
	}
	if !s.victim.in {
		wantRevoked++
	}
	return status.Certificates[0].Serial == fmt.Sprintf("%x", s.pair.Leaf.SerialNumber) &&
		len(status.ClientCAs) == wantCAs && status.CRLs[0].Revoked == wantRevoked && status.CRLs[0].Number == s.crlNumber
}

// check tries the peers that come and go, with the tickets that they have kept.
func (s *soak) check(i int) {
	guest, victim := connect(s.t, s.server, s.guest.config), connect(s.t, s.server, s.victim.config)
	if s.guest.in {
		guest.ok(s.t)
	} else {
		s.refused.Add(1)
		var unknown x509.UnknownAuthorityError
		require.ErrorAs(s.t, guest.serverErr, &unknown, "rotation %d: the guest's CA is not in the bundle", i)
	}
	if s.victim.in {
		victim.ok(s.t)
		if s.victimTracked == nil {
			s.victimTracked = track(s.m, victim.server)
		}
	} else {
		s.refused.Add(1)
		require.ErrorIs(s.t, victim.serverErr, certmanager.ErrRevoked, "rotation %d", i)
		if s.victimTracked != nil {
			require.ErrorIs(s.t, s.victimTracked.evicted(s.t), certmanager.ErrRevoked)
			s.victimTracked.release()
			s.victimTracked = nil
		}
	}
	s.stays.open(s.t, "it holds")
}

// keepTrying connects whether the peer is let in or not: where it was removed from before the
// handshake to after it, it must not get in.
func (s *soak) keepTrying(stop <-chan struct{}, p *comesAndGoes) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		before := p.removed.Load()
		c := connect(s.t, s.server, p.config)
		if before == 0 || before != p.removed.Load() {
			continue
		}
		if c.serverErr == nil {
			s.t.Errorf("a removed peer was let in: %s", p.pair.Leaf.Subject)
			return
		}
		s.refused.Add(1)
	}
}

// keepConnecting is a proven peer.
func (s *soak) keepConnecting(stop <-chan struct{}, version uint16, cache tls.ClientSessionCache) {
	client := s.config(s.ca.Issue(s.t, tlstest.Leaf{}))
	client.MaxVersion, client.ClientSessionCache = version, cache
	for {
		select {
		case <-stop:
			return
		default:
		}
		before := s.number.Load()
		c := connect(s.t, s.server, client)
		if c.serverErr != nil || c.clientErr != nil {
			s.t.Errorf("a proven peer failed: server %v, client %v", c.serverErr, c.clientErr)
			return
		}
		s.connections.Add(1)
		if c.server.DidResume {
			s.resumed.Add(1)
			continue // the client is shown no certificate
		}
		number, _ := s.numbers.Load(c.client.PeerCertificates[0].SerialNumber.String())
		if number.(int64) < before {
			s.t.Errorf("certificate %d was served after %d was published", number, before)
			return
		}
	}
}
