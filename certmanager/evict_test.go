package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A connection that is being recycled, some time within the hour, does not stay that long
// once its CA is removed.
func TestRecycledPeerIsRemovedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
		c := track(m, connectPipe(m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server)
		require.Equal(t, 1, m.Recycle(m.Status().Generation+1, time.Hour))
		m.SetClientCAs(tlstest.NewCA(t).Pool())
		m.Recycle(m.Status().Generation+1, time.Hour) // and asking again puts nothing off
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorIs(t, c.evicted(t), certmanager.ErrUntrusted)
	})
}

// Nor does one that is to be recycled sooner than it was first asked for.
func TestRecycleSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
		state := connectPipe(m.ServerTLS(), ca.ClientConfig(t, "localhost")).ok(t).server
		const n = 100
		var ended atomic.Int32
		for range n {
			m.Track(&state, nil, func(error) { ended.Add(1) })
		}
		for _, over := range []time.Duration{time.Hour, time.Second, time.Hour} {
			require.Equal(t, n, m.Recycle(m.Status().Generation+1, over))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		assert.EqualValues(t, n, ended.Load())
	})
}

// Many connections that fail at once are not closed at once: their peers all come back.
func TestEvictionsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
		state := connectPipe(m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
		const n = 500
		ends := make(chan time.Time, n)
		for range n {
			m.Track(&state, nil, func(error) { ends <- time.Now() })
		}
		start := time.Now()
		m.SetClientCAs(tlstest.NewCA(t).Pool())
		tenths := make(map[time.Duration]int)
		for range n {
			tenths[(<-ends).Sub(start)/(50*time.Millisecond)]++
		}
		for tenth := range time.Duration(10) { // half a second, for 500
			assert.Greater(t, tenths[tenth], 10, tenth)
		}
		assert.LessOrEqual(t, len(tenths), 11)
	})
}

// Nor is an end put off by further changes, of which there may always be another before it comes.
func TestEvictionsAreNotPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
		state := connectPipe(m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
		const n = 1000
		var ended atomic.Int32
		for range n {
			m.Track(&state, nil, func(error) { ended.Add(1) })
		}
		for range 4 {
			m.SetClientCAs(tlstest.NewCA(t).Pool())
			time.Sleep(time.Second / 4)
		}
		synctest.Wait()
		assert.EqualValues(t, n, ended.Load())
	})
}

// What a rule would do to open connections can be tried out.
func TestReportOnlyKeepsConnections(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{ReportOnly: true, Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	events := collect(m)
	state := connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
	c := track(m, state)
	list := []*x509.RevocationList{parseCRL(t, ca.CRL(t, state.PeerCertificates[0]))}
	candidate := certmanager.Static{ClientCAs: ca.Pool(), CRLs: list, CRLIssuers: []*x509.Certificate{ca.Certificate()}}
	impact, err := m.DryRun(candidate)
	require.NoError(t, err)
	require.Empty(t, impact, "a revocation is reported only")
	impact, err = m.DryRun(certmanager.Static{ClientCAs: tlstest.NewCA(t).Pool()})
	require.NoError(t, err)
	require.Len(t, impact, 1)
	_, err = m.DryRun(certmanager.Static{})
	require.ErrorContains(t, err, "without client CAs")
	m.SetClientRule(certmanager.DNSName("other.test"))
	eventually(t, "the report", func() bool { return len(events(certmanager.PeerEvicted)) == 1 })
	report := events(certmanager.PeerEvicted)[0]
	assert.True(t, report.ReportOnly)
	assert.ErrorIs(t, report.Err, certmanager.ErrNotAuthorized)
	assert.Equal(t, uint64(1), m.Status().Reported)
	assert.Zero(t, m.Status().Evicted)
	c.open(t, "it was only reported")
	m.SetClientCAs(tlstest.NewCA(t).Pool())
	require.ErrorIs(t, c.evicted(t), certmanager.ErrUntrusted, "a CA that is removed is no matter of rules")
}

// While the open connections are judged, which may take long, others come and go.
func TestJudgingKeepsNobodyWaiting(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	client := func(name string) tls.ConnectionState {
		return connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{Names: []string{name}})).ok(t).server
	}
	first, second := client("first.test"), client("second.test")
	slow := track(m, first)
	judging, blocked := make(chan struct{}, 1), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.SetClientRule(certmanager.NewRule("slow", func(p *certmanager.Peer) error {
			if p.Certificate.DNSNames[0] == "second.test" {
				return nil
			}
			judging <- struct{}{}
			<-blocked
			return errors.New("no")
		}))
	}()
	<-judging
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		track(m, second).release()
		assert.Equal(t, 1, m.Status().Connections)
	}()
	select {
	case <-passed:
	case <-time.After(10 * time.Second):
		t.Error("Track waits for the judgement of another connection")
	}
	close(blocked)
	<-done
	<-passed
	require.ErrorIs(t, slow.evicted(t), certmanager.ErrNotAuthorized)
}

// The first connections that fail are closed before the last ones are judged, which may take long.
func TestEvictionsDoNotWaitForTheLastVerdict(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	state := connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
	const n = 5
	evicted := make(chan error, n)
	for range n {
		m.Track(&state, nil, func(reason error) { evicted <- reason })
	}
	var judged atomic.Int32
	last, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		m.SetClientRule(certmanager.NewRule("slow", func(*certmanager.Peer) error {
			if judged.Add(1) == n {
				<-last
			}
			return errors.New("no")
		}))
	}()
	for i := range n {
		if i == n-1 {
			close(last)
		}
		select {
		case reason := <-evicted:
			require.ErrorIs(t, reason, certmanager.ErrNotAuthorized)
		case <-time.After(10 * time.Second):
			close(last)
			t.Fatal("it waits for the verdict about others")
		}
	}
	<-done
}
