package certmanager

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

// TestSoak replaces certificate, chain, CA bundle and CRL in random gestures while proven
// peers connect all the time. No proven peer fails, no removed one gets in, and what is
// served is never older than what was published.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	s := newSoak(t)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for _, version := range versions {
		for _, cache := range []tls.ClientSessionCache{nil, tls.NewLRUClientSessionCache(1), &tlstest.Replay{}} {
			wait.Go(func() { s.keepConnecting(stop, version, cache) })
		}
	}
	start := time.Now()
	n := soakRotations()
	for i := range n {
		s.rotate(i)
		s.check(i)
		if t.Failed() {
			break
		}
	}
	close(stop)
	wait.Wait()
	t.Logf("%d rotations in %v: %d connections of proven peers, %d of them resumed, none failed; %d of removed peers, all refused; %d evictions",
		n, time.Since(start).Round(time.Second), s.connections.Load(), s.resumed.Load(), s.removed, s.m.Status().Evicted)
	require.NotZero(t, s.resumed.Load())
	require.NotZero(t, s.removed)
	require.Zero(t, s.m.Status().Rejections, s.m.Status().LastError)
}

type soak struct {
	t      *testing.T
	m      *Manager
	dir    string
	server *tls.Config
	random *rand.Rand

	ca, intermediate, guest *tlstest.CA // guest comes and goes
	pair                    *tlstest.Pair
	guestIn, victimRevoked  bool
	victim                  *tlstest.Pair // of ca, revoked now and then

	stays         *tracked
	guestConfig   *tls.Config // with a ticket from when it was let in
	victimConfig  *tls.Config
	number        atomic.Int64 // of the certificate published last
	numbers       sync.Map     // serial to number
	connections   atomic.Int64
	resumed       atomic.Int64
	removed       int
	victimTracked *tracked
}

func newSoak(t *testing.T) *soak {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := &soak{t: t, dir: filepath.Join(t.TempDir(), "tls"), random: rand.New(rand.NewPCG(seed, 0)), ca: tlstest.NewCA(t), guest: tlstest.NewCA(t), guestIn: true}
	s.intermediate = s.ca.Intermediate(t)
	require.NoError(t, os.Mkdir(s.dir, 0o700))
	s.victim = s.ca.Issue(t, tlstest.Leaf{Names: []string{"victim.test"}})
	s.newPair(s.ca, 0)
	require.NoError(t, tlstest.RenameOver(s.dir, s.files(), nil))
	s.m = newManager(t, Options{PollInterval: 50 * time.Millisecond, Source: Files{
		Cert: filepath.Join(s.dir, "tls.crt"), Key: filepath.Join(s.dir, "tls.key"),
		ClientCAs: filepath.Join(s.dir, "clients.crt"), RootCAs: filepath.Join(s.dir, "root.crt"), CRLs: filepath.Join(s.dir, "crl.pem"),
	}})
	s.server = s.m.ServerTLS()
	s.guestConfig, s.victimConfig = s.config(s.guest.Issue(t, tlstest.Leaf{})), s.config(s.victim)
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
	if s.guestIn {
		clients = append(clients, s.guest.PEM()...)
	}
	var revoked []*x509.Certificate
	if s.victimRevoked {
		revoked = append(revoked, s.victim.Leaf)
	}
	return map[string][]byte{
		"tls.crt": s.pair.CertPEM, "tls.key": s.pair.KeyPEM, "clients.crt": clients, "root.crt": s.ca.PEM(), "crl.pem": s.ca.CRL(s.t, revoked...),
	}
}

// rotate changes something and waits until that is published.
func (s *soak) rotate(i int) {
	what := ""
	switch s.random.IntN(4) {
	case 0:
		what = "certificate"
		s.newPair(s.ca, i+1)
	case 1:
		what = "certificate with a chain"
		s.newPair(s.intermediate, i+1)
	case 2:
		what = fmt.Sprintf("guest CA in the bundle: %v", !s.guestIn)
		s.guestIn = !s.guestIn
	case 3:
		what = fmt.Sprintf("victim revoked: %v", !s.victimRevoked)
		s.victimRevoked = !s.victimRevoked
	}
	gesture := tlstest.Gestures[s.random.IntN(len(tlstest.Gestures))]
	require.NoError(s.t, gesture.Replace(s.dir, s.files(), nil))
	eventually(s.t, fmt.Sprintf("rotation %d by %s: %s", i, gesture.Name, what), s.published)
	if number, ok := s.numbers.Load(s.pair.Leaf.SerialNumber.String()); ok {
		s.number.Store(number.(int64))
	}
}

func (s *soak) published() bool {
	status := s.m.Status()
	wantCAs, wantRevoked := 2, 0
	if s.guestIn {
		wantCAs++
	}
	if s.victimRevoked {
		wantRevoked++
	}
	return status.Certificates[0].Serial == fmt.Sprintf("%x", s.pair.Leaf.SerialNumber) &&
		len(status.ClientCAs) == wantCAs && status.CRLs[0].Revoked == wantRevoked
}

// check tries the peers that come and go, with the tickets that they have kept.
func (s *soak) check(i int) {
	guest, victim := connect(s.t, s.server, s.guestConfig), connect(s.t, s.server, s.victimConfig)
	if s.guestIn {
		guest.ok(s.t)
	} else {
		s.removed++
		require.Error(s.t, guest.serverErr, "rotation %d: the guest's CA is not in the bundle", i)
	}
	if s.victimRevoked {
		s.removed++
		require.ErrorIs(s.t, victim.serverErr, ErrRevoked, "rotation %d", i)
		if s.victimTracked != nil {
			require.ErrorIs(s.t, s.victimTracked.evicted(s.t), ErrRevoked)
			s.victimTracked.release()
			s.victimTracked = nil
		}
	} else {
		victim.ok(s.t)
		if s.victimTracked == nil {
			s.victimTracked = track(s.m, victim.server)
		}
	}
	s.stays.open(s.t, "it holds")
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
