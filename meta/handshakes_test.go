package meta_test

import (
	"crypto/tls"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// However many clients come at once, no more than MaxHandshakes compute, and all are served.
func TestMaxHandshakes(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		const crowd, limit = 20, 3
		var inside, most atomic.Int32
		release := make(chan struct{})
		config := m.manager.(manager).server.Clone()
		config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if now := inside.Add(1); now > most.Load() {
				most.Store(now)
			}
			<-release
			inside.Add(-1)
			return nil, nil
		}
		a := newHost(t).spawn(nil)
		server, addr := a.listen(meta.TCPServerOptions{CertManager: manager{server: config}, MaxHandshakes: limit})
		shaken := make(chan error, crowd)
		for range crowd {
			peer := tls.Client(dialTCP(t, addr), m.client)
			go func() { shaken <- peer.Handshake() }()
		}
		eventually(t, func() bool { return a.inspect(server)["connections establishing"] == strconv.Itoa(crowd) }, "all are there")
		eventually(t, func() bool { return a.inspect(server)["handshakes"] == strconv.Itoa(limit) }, "the places are taken")
		close(release)
		for range crowd {
			require.NoError(t, <-shaken)
			expect[meta.MessageTCPConnect](a)
		}
		assert.EqualValues(t, limit, most.Load())
		assert.Equal(t, "0", a.inspect(server)["handshakes"])

		standard, _ := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		assert.Equal(t, strconv.Itoa(2*runtime.GOMAXPROCS(0)), a.inspect(standard)["max handshakes"])
	})
}

// Who is in its handshake when the server is drained is served, and told at once that this ends.
func TestDrainDuringHandshake(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		server, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		conn := dialTCP(t, addr)
		eventually(t, func() bool { return a.inspect(server)["connections establishing"] == "1" }, "it is accepted")
		a.do(func(o *owner) { assert.NoError(t, o.MonitorAlias(server)) })
		a.send(server, meta.MessageTCPDrain{Timeout: time.Minute})
		require.Equal(t, server, expect[gen.MessageDownAlias](a).Alias)
		peer := m.secure(t, conn)
		id := expect[meta.MessageTCPConnect](a).ID
		assert.Equal(t, id, expect[meta.MessageTCPDraining](a).ID)
		peer.Close()
		expect[meta.MessageTCPDisconnect](a)
		a.quiet()
	})
}
