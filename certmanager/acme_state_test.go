package certmanager

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/tlstest"
)

const acmeTestName = "a.example.test"

// idleACME returns a manager with an ACME source whose CA cannot be reached, and a name of it
// that only the test looks after.
func idleACME(t *testing.T, wrap func(*ACME) Source) (*Manager, *acmeState, *acmeName) {
	t.Helper()
	source := &ACME{
		HostPolicy: autocert.HostWhitelist(acmeTestName), Cache: autocert.DirCache(t.TempDir()),
		Directory: "https://127.0.0.1:1/", HandshakeTimeout: -1,
	}
	m := newManager(t, Options{Source: wrap(source), PollInterval: time.Hour})
	s, n := source.state, newACMEName(acmeTestName, false)
	s.mu.Lock()
	s.names[n.name] = n
	s.mu.Unlock()
	return m, s, n
}

// issueACME makes a certificate as a CA would issue it to the source.
func issueACME(t *testing.T, ca *tlstest.CA, notBefore, notAfter time.Time) *tls.Certificate {
	t.Helper()
	pair := ca.Issue(t, tlstest.Leaf{Names: []string{acmeTestName}, NotBefore: notBefore, NotAfter: notAfter})
	recorded.key(pair.Key)
	cert := pair.Certificate()
	return &cert
}

func servesACME(m *Manager) bool { return !m.current.Load().names.lookup(acmeTestName).none() }

// A certificate of a public CA takes the place of the fallback of a private one, to whose roots
// it does not lead.
func TestACMEBesideAPrivateCA(t *testing.T) {
	private := tlstest.NewCA(t)
	m, s, n := idleACME(t, func(a *ACME) Source {
		return Sources{a, Static{
			Certificates: []tls.Certificate{private.Issue(t, tlstest.Leaf{Names: []string{acmeTestName}}).Certificate()},
			ClientCAs:    private.Pool(), RootCAs: private.Pool(),
		}}
	})
	cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	s.adopt(n, cert)
	eventually(t, "the certificate", func() bool {
		return m.current.Load().names.lookup(acmeTestName).list() != nil && m.Status().Generation == 2
	})
	assert.Empty(t, m.Status().LastError)
	assert.Equal(t, cert.Leaf.Raw, m.current.Load().names.lookup(acmeTestName).first.tls.Leaf.Raw)
}

// The long waits of failures while there was time left are not those of a name without a certificate.
func TestBackOffBeginsAnewAtTheEnd(t *testing.T) {
	m, s, n := idleACME(t, func(a *ACME) Source { return a })
	cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(30*time.Hour))
	s.adopt(n, cert)
	wait := func() time.Duration {
		s.postpone(n, errors.New("the CA is down"))
		return time.Until(s.status()[0].Next)
	}
	for range 8 {
		wait()
	}
	assert.Greater(t, wait(), time.Hour)
	s.expire(n, cert)
	assert.Less(t, wait(), 2*time.Second)
	assert.Less(t, wait(), 4*time.Second)
	assert.Equal(t, 11, m.Status().ACME[0].Failures)
	for range 8 {
		wait()
	}
	assert.Greater(t, wait(), 50*time.Minute)
}

// A policy that refuses a name which is served, for example since its database is away, does not
// take it out of service, and is asked again.
func TestPolicyThatFailsIsAskedAgain(t *testing.T) {
	var away atomic.Bool
	m, s, n := idleACME(t, func(a *ACME) Source {
		a.HostPolicy = func(_ context.Context, host string) error {
			if away.Load() || host != acmeTestName {
				return errors.New("the database is away")
			}
			return nil
		}
		return a
	})
	events := collect(m)
	cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	s.adopt(n, cert)
	away.Store(true)
	for range 3 {
		wanted, known := s.stillWanted(t.Context(), n, true, 0)
		assert.False(t, wanted)
		assert.True(t, known)
	}
	eventually(t, "the certificate", func() bool { return servesACME(m) })
	status := m.Status().ACME[0]
	assert.Contains(t, status.Error, "the database is away")
	assert.Less(t, time.Until(status.Next), 8*time.Minute, "a tenth of what is left")
	eventually(t, "one warning", func() bool { return len(events(Warning)) == 1 })

	away.Store(false)
	wanted, _ := s.stillWanted(t.Context(), n, true, 3)
	assert.True(t, wanted)
	away.Store(true)
	s.expire(n, cert)
	n.asked <- struct{}{}
	_, known := s.stillWanted(t.Context(), n, false, 3)
	assert.False(t, known, "without a certificate the policy decides")
	assert.Empty(t, m.Status().ACME)
	assert.Len(t, events(Warning), 1)
}

// Where timers stood still, as while a machine sleeps, what ended meanwhile is taken out of service within
// a minute.
func TestExpiredWhileTheMachineSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s, n := idleACME(t, func(a *ACME) Source { return a })
		cert := issueACME(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour))
		s.adopt(n, cert)
		time.Sleep(time.Second)
		n.expiry.Stop()
		n.due, n.info.at = time.Now().Add(100*time.Hour), time.Now().Add(100*time.Hour)
		s.mu.Lock()
		n.fixed, s.o.Domains = true, []string{n.name} // it does not look into the cache
		s.mu.Unlock()
		s.tending.Go(func() { s.tend(s.ctx, n) })
		time.Sleep(time.Hour - time.Minute)
		assert.True(t, servesACME(m))
		time.Sleep(2 * time.Minute)
		assert.False(t, servesACME(m))
	})
}

// At start only what New waits for is ordered at once: all else has to be answered by the program's own
// server, which listens later.
func TestOrdersAtStartWaitForTheServer(t *testing.T) {
	for _, background := range []bool{false, true} {
		source := &ACME{Domains: []string{"due.example.test", "young.example.test", "missing.example.test"}, Background: background}
		o, err := source.ready()
		require.NoError(t, err)
		s, began := newACMEState(source, o, &Manager{}), time.Now()
		due, young, missing := s.names["due.example.test"], s.names["young.example.test"], s.names["missing.example.test"]
		due.due, young.due = began.Add(-time.Hour), began.Add(time.Hour)
		s.giveTimeToListen([]*acmeName{missing})
		assert.False(t, due.due.Before(began.Add(backgroundDelay)))
		assert.Equal(t, began.Add(time.Hour), young.due)
		assert.Equal(t, background, missing.due.After(began))
	}
}
