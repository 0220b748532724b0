package meta_test

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// Who only speaks is not idle.
func TestReadingIsNotIdle(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const idle = time.Second
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, IdleTimeout: idle})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		tick := time.NewTicker(idle / 20)
		defer tick.Stop()
		for since := time.Now(); time.Since(since) < idle+idle/4; <-tick.C {
			_, err := io.WriteString(peer, "x")
			require.NoError(t, err)
			assert.Equal(t, "x", string(expect[meta.MessageTCP](a).Data))
		}
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrIdle, "when it has fallen silent")
	})
}
