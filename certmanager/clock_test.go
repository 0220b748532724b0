package certmanager_test

import (
	"crypto/tls"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/tlstest"
)

// The timers of connections count the time that the machine is awake. When the clock is set forward
// they are set anew, and when it is set back nobody has to go.
func TestClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
		}})
		events := collect(m)
		open := func(hours time.Duration) *tracked {
			client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(hours * time.Hour)})
			return track(m, connectPipe(m.ServerTLS(), client).server)
		}
		short, long := open(3), open(100)
		young := track(m, connectPipe(m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).server)
		set := func(d time.Duration) {
			clock.Step(d)
			t.Cleanup(func() { clock.Step(-d) })
			time.Sleep(2 * 10 * time.Second)
		}
		set(time.Second) // as time servers do
		assert.Empty(t, events(certmanager.Warning))
		set(-10 * time.Hour)
		short.open(t, "it holds for longer now")
		long.open(t, "it has begun long ago")
		refused := errors.New("refused")
		require.NoError(t, m.SetClientRule(certmanager.NewRule("not young", func(*certmanager.Peer) error { return nil })))
		young.open(t, "it had begun in its handshake")
		require.NoError(t, m.SetClientRule(certmanager.NewRule("nobody young", func(p *certmanager.Peer) error {
			if p.Certificate.NotBefore.Before(time.Now().Add(-24 * time.Hour)) {
				return nil
			}
			return refused
		})))
		require.ErrorIs(t, young.evicted(t), refused)
		set(14 * time.Hour)
		assert.ErrorIs(t, short.evicted(t), certmanager.ErrExpired)
		long.open(t, "it holds")
		assert.Len(t, events(certmanager.Warning), 2)
		assert.EqualValues(t, 2, m.Status().ClockSteps)
		assert.ErrorContains(t, events(certmanager.Warning)[1].Err, "the clock was set by 14h0m0s")
		short.release()
		long.release()
	})
}
