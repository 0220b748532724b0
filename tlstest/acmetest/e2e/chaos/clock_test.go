//go:build linux

package chaos

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// The clock goes forward beyond the end of a client's certificate: the client has to go, and all
// others stay.
func TestClockForward(t *testing.T) {
	w := newWorld(t, "clock set forward by ten hours")
	w.begin()
	short := w.ca.MutualClientConfig(t, publicName, tlstest.Leaf{Usage: tlstest.ClientOnly, NotAfter: time.Now().Add(5 * time.Hour)})
	conn, err := w.dialAs(short)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, w.traffic.exchange(conn))

	began := time.Now()
	w.ask("step 10h")
	w.visible("warning of the clock, Status.ClockSteps, evicted: expired", func(r report) bool {
		return r.happened(certmanager.Warning, "10h") && r.Status.ClockSteps == 1 && r.Stats.Ended[meta.ErrEvicted.Error()] == 1
	})
	assert.Less(t, time.Since(began), soon)
	next := w.rotate()
	w.served(next, soon)
	w.finish()
}

// The clock goes forward to when a certificate has to be renewed: it is, and once, although by this
// clock the new one has to be renewed soon as well.
func TestClockForwardACME(t *testing.T) {
	w := newWorld(t, "clock set forward to an ACME renewal")
	ca := w.acme(24 * time.Hour)
	w.begin()
	w.await("the certificate", 20*time.Second, serving)
	first, err := w.visitPublic()
	require.NoError(t, err)

	w.ask("step 17h")
	began := time.Now()
	w.visible("warning of the clock, issued, Status.ACME.Next", func(r report) bool {
		return r.happened(certmanager.Warning, "17h") && len(r.kind(certmanager.Issued)) == 2 && time.Until(ordered(r).Next) > 17*time.Hour
	})
	w.await("the next certificate", soon, func(report) bool {
		next, err := w.visitPublic()
		return err == nil && next != first
	})
	w.arrived(time.Since(began), 10*time.Second)
	time.Sleep(2 * poll)
	assert.Equal(t, 2, ca.Orders())
	w.more = 6 // the connections to the CA that are kept
	w.finish()
}

// The clock goes back to before the certificates began: what is in service stays so, what is new
// has to wait until the clock is right.
func TestClockBack(t *testing.T) {
	w := newWorld(t, "clock set back by ten hours")
	w.begin()
	w.await("its clients", 10*time.Second, func(r report) bool { return r.Stats.Connections >= stayers })
	w.ask("step -10h")
	next := w.rotate() // begins an hour ago, which is in nine hours
	w.visible("warning of the clock, Status.ClockSteps, rejected", func(r report) bool {
		return r.happened(certmanager.Warning, "-10h") && r.happened(certmanager.Rejected, certmanager.ErrNotYetValid.Error())
	})
	w.ask("step 10h")
	w.served(next, soon)
	w.finish()
}
