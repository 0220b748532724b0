package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// slowRule lets every peer in. Its call number wait does not return until released.
type slowRule struct {
	calls, wait       atomic.Int64
	entered, released chan struct{}
}

func newSlowRule() *slowRule {
	return &slowRule{entered: make(chan struct{}, 1), released: make(chan struct{})}
}

func (r *slowRule) check(*certmanager.Peer) error {
	if r.calls.Add(1) == r.wait.Load() {
		r.entered <- struct{}{}
		<-r.released
	}
	return nil
}

// othersPass requires that Status, which asks for the open connections, returns.
func othersPass(t *testing.T, m *certmanager.Manager) {
	t.Helper()
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		m.Status()
	}()
	select {
	case <-passed:
	case <-time.After(5 * time.Second):
		assert.Fail(t, "a rule runs under the lock of the open connections")
	}
}

// A connection that is made known while another set comes into service is judged by that one too,
// without keeping others waiting.
func TestTrackDuringChangeKeepsNobodyWaiting(t *testing.T) {
	ca, rule := tlstest.NewCA(t), newSlowRule()
	m := newManager(t, certmanager.Options{
		ClientRule: certmanager.NewRule("slow", rule.check),
		Source:     certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()},
	})
	state := connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
	rule.wait.Store(rule.calls.Load() + 1)
	done := make(chan *tracked)
	go func() { done <- track(m, state) }()
	<-rule.entered
	m.SetServerName("another.test")
	rule.wait.Add(1)
	rule.released <- struct{}{}
	<-rule.entered
	othersPass(t, m)
	close(rule.released)
	(<-done).open(t, "the rule lets it in")
	assert.Equal(t, 1, m.Status().Connections)
}

// The same where a chain of a peer has ended and another is looked for.
func TestReviewKeepsNobodyWaiting(t *testing.T) {
	first, second, cert := renewedRoot(t, 2*time.Second, time.Hour)
	ca, rule, dir := tlstest.NewCA(t), newSlowRule(), t.TempDir()
	certPath, keyPath := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	root := func(cert *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	m := newManager(t, certmanager.Options{
		ClientRule: certmanager.NewRule("slow", rule.check),
		Source:     certmanager.Files{Cert: certPath, Key: keyPath, ClientCAs: write(t, dir, "ca.crt", root(first))},
	})
	client := ca.ClientConfig(t, "localhost")
	client.Certificates = []tls.Certificate{cert}
	c := track(m, connect(t, m.ServerTLS(), client).ok(t).server)
	write(t, dir, "ca.crt", append(root(first), root(second)...))
	require.NoError(t, m.Reload(t.Context()))
	rule.wait.Store(rule.calls.Load() + 1)
	<-rule.entered
	othersPass(t, m)
	close(rule.released)
	c.open(t, "another chain holds")
	require.Equal(t, 1, m.Status().Connections)
}
